"""No answer to a tenant says where the service's hosts and stores are: a canary lies in every path of the service."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.clock import Clock
from pipeline.service.database.statements import Database
from pipeline.service.neutral import ADDRESS, PATH, neutral, within
from pipeline.service.work.attempt import Hands
from pipeline.service.work.preparing import SERVING
from pipeline.service.work.worker import work
from tests.servers.databases import KINDS, sites_of
from tests.servers.demand import until
from tests.servers.service import SERVED, WEIGHTS, Person, Stand, standing

CANARY = "canary-7f3a"
WORK = Path(__file__).parents[2] / "pipeline/service/work"


@pytest.fixture(params=KINDS)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    folder = tmp_path / CANARY / "of-the-service"
    folder.mkdir(parents=True)
    for site in sites_of(request, folder):
        with standing(site, folder) as made:
            yield made


def works(stand: Stand) -> str:
    """A worker does all that is queued; what it said to its log."""
    said: list[str] = []

    async def does(database: Database) -> None:
        hands = Hands(database, stand.store, Clock(), stand.folder / "scratch", lambda: False, said.append)
        await work(hands, once=True)

    stand.site.run(does(stand.site.open()))
    return "\n".join(said)


def lost(stand: Stand, name: str) -> None:
    """Somebody deleted what the bucket has of a thing."""
    for entry in [one for one in stand.store.list("s/") if f"/{name}/" in one.key]:
        stand.store.delete(entry.key)


def answers(ann: Person, *paths: str) -> dict[str, str]:
    """What each says, whatever its status."""
    return {path: ann.ask("GET", path).text for path in paths}


def test_what_breaks_on_a_host_or_in_the_bucket_is_told_without_its_place(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    trained = ann.job()
    facts = json.dumps({**SERVED, "net": "layer {"}).encode()
    stand.trained(ann, trained, given={WEIGHTS: b"no weights", SERVING: facts}, over=True)
    given = {"name": "c", "training_job_id": trained, "labels": ["a", "b"]}
    broken, gone = (str(ann.got("POST", "/v1/classifiers", given | {"name": name})["id"]) for name in ("c", "d"))
    job, datafile = ann.job(), ann.datafile(b"archive")
    dataset = str(ann.got("POST", "/v1/datasets", {"name": "d", "datafile_id": datafile})["id"])
    sync = [ann.ask("POST", f"/v1/classifiers/{broken}/classify", {"urls": ["http://127.0.0.1:9/x.png"]})]
    sync += [ann.ask("POST", f"/v2/models/{broken}/infer", {"inputs": [
        {"name": "data", "datatype": "FP32", "shape": [1, 3, 4, 4], "data": [0.0] * 48}]})]  # fmt: skip
    for name in (datafile, trained):
        lost(stand, name)
    lost(stand, json.loads(ann.ask("GET", f"/v1/training-jobs/{job}").text)["inputs"]["train"])
    asked = {"name": "p", "classifier_id": gone, "urls": ["http://127.0.0.1:9/x.png"]}
    classified = str(ann.got("POST", "/v1/classification-jobs", asked)["id"])
    sync += [ann.ask("POST", f"/v2/models/{gone}/infer", {"inputs": [
        {"name": "data", "datatype": "FP32", "shape": [1, 3, 4, 4], "data": [0.0] * 48}]})]  # fmt: skip
    said = works(stand)
    found = answers(
        ann, f"/v1/training-jobs/{job}", f"/v1/training-jobs/{job}/logs", f"/v1/training-jobs/{job}/events",
        f"/v1/training-jobs/{trained}/logs", f"/v1/training-jobs/{trained}/metrics", "/v1/training-jobs",
        f"/v1/datasets/{dataset}", f"/v1/classification-jobs/{classified}", f"/v1/classifiers/{gone}",
    )  # fmt: skip
    for path in (f"/v1/training-jobs/{job}", f"/v1/datasets/{dataset}", f"/v1/classification-jobs/{classified}"):
        assert json.loads(found[path])["state"] == "failed", found[path]
    assert all(answer.status_code >= 400 for answer in sync[1:]), [answer.text for answer in sync]
    texts = [*found.values(), *(answer.text + str(answer.headers) for answer in sync)]
    assert [text for text in texts if CANARY in text or str(stand.folder.parent) in text] == []
    for name in (job, dataset):
        assert [line for line in said.splitlines() if line.startswith(name) and CANARY in line], "the log has the whole"
    assert f"s/{ann.tenant}/" in found[f"/v1/training-jobs/{job}"], "and the tenant is told which of its own it is"
    until(lambda: any(CANARY in line for line in stand.said), "so has the API server's log")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing at /srv/canary/b/s/te_1/u/df_1/0-x | ENOENT", "nothing at s/te_1/u/df_1/0-x | ENOENT"),
        ('File "/opt/canary/lib/torch/x.py", line 3, in f', f'File "{PATH}", line 3, in f'),
        ("[Errno 28] No space left on device: '/var/canary/a.bin'", f"[Errno 28] No space left on device: '{PATH}'"),
        ("s3://canary/p at http://canary:9000, GetObject", f"{ADDRESS} at {ADDRESS}, GetObject"),
        ("postgresql://u:canary@h/db", ADDRESS),
        ("/w/tj/out/x is torn; unable to open /w/tj/in/train.", "out/x is torn; unable to open in/train."),
        ("in /w/tj, in /w/tj2/x", f"in ., in {PATH}"),
        ("layer c1/3x3: a/b/c, #/net/layer, 3/4 of 1 / 2", "layer c1/3x3: a/b/c, #/net/layer, 3/4 of 1 / 2"),
    ],
)  # fmt: skip
def test_a_text_keeps_what_is_the_tenants_and_loses_where_the_service_is(text: str, told: str) -> None:
    assert neutral(within(text, "/w/tj")) == told


def test_the_url_that_a_tenant_gave_itself_is_told_to_it() -> None:
    assert neutral("https://a.example/b/c.zip: /opt/canary/x", web=False) == f"https://a.example/b/c.zip: {PATH}"


def test_no_worker_tells_a_tenant_the_text_of_an_error_as_it_is() -> None:
    """Each detail of an Ending and of a strike is a text of ours, or has gone through `told`."""
    seen = 0
    for path in sorted(WORK.glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Ending", "queue.strike"):
                for given in call.args[2:]:
                    seen += 1
                    text = ast.unparse(given)
                    passed = "told(" in text or "_said(" in text or text in ("says", "Reason.DISK_LIMIT")
                    assert passed or isinstance(given, ast.Constant), f"{path.name}: {ast.unparse(call)}"
    assert seen >= 10
