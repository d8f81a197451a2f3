"""Archives that become datasets over REST, solvers that are judged for them, and a training that reads one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as parquet
import pytest
import requests

from pipeline.clock import Clock
from pipeline.service.database.statements import Database
from pipeline.service.work.attempt import Hands
from pipeline.service.work.worker import work
from tests.servers import picture_training as spots
from tests.servers.databases import KINDS, empty
from tests.servers.service import Person, Stand, stood

SQLITE = pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
NET = spots.NET.replace('source: "train"', 'source: "any"').replace('source: "test"', 'source: "any"')


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    yield from stood(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def ann(shared: Stand) -> Person:
    empty(shared.site)
    return shared.person("ayes", "ann")


def packed(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


def pictures(count: int, seed: int) -> dict[str, bytes]:
    found = enumerate(spots.pictures(count, seed))
    return {f"{spots.LABELS[label]}/{seed}-{at}.png": spots.png(image) for at, (image, label) in found}


def works(stand: Stand, folder: Path) -> None:
    """A worker does all that is queued."""

    async def does(database: Database) -> None:
        hands = Hands(database, stand.store, Clock(), folder / "scratch", lambda: False, lambda said: None)
        await work(hands, once=True)

    stand.site.run(does(stand.site.open()))


@contextlib.contextmanager
def working(stand: Stand, folder: Path) -> Iterator[None]:
    """A worker beside the block."""
    ending = threading.Event()

    async def does(database: Database) -> None:
        await work(Hands(database, stand.store, Clock(), folder / "scratch", ending.is_set, lambda said: None))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: stand.site.run(does(stand.site.open())))
        try:
            yield
        finally:
            ending.set()
        done.result()


def dataset(ann: Person, content: bytes, **more: Any) -> str:
    body = {"name": "spots", "datafile_id": ann.datafile(content, "spots.zip"), **more}
    return str(ann.got("POST", "/v1/datasets", body)["id"])


def sides(ann: Person, name: str) -> dict[str, set[bytes]]:
    """SHA-256 of the pictures of each side, by the shards as a client downloads them."""
    manifest = ann.got("GET", f"/v1/datasets/{name}/files/manifest.json")
    found: dict[str, set[bytes]] = {}
    for shard in manifest["shards"]:
        content = ann.ask("GET", f"/v1/datasets/{name}/files/{shard['name']}").content
        rows = parquet.read_table(io.BytesIO(content), columns=["content_sha256"]).to_pylist()
        found.setdefault(shard["side"], set()).update(row["content_sha256"] for row in rows)
    return found


def pixels_of(content: bytes) -> bytes:
    """They are small, so that a thumbnail has all of them."""
    return bytes(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).tobytes())


def test_an_archive_becomes_a_dataset_whose_every_entry_is_counted(shared: Stand, ann: Person, tmp_path: Path) -> None:
    files = pictures(60, 0)
    twin = next(iter(files.values()))
    odd = {"north/twin.png": twin, "north/notes.txt": b"no picture", "../up.png": twin, "south/torn.png": twin[:60]}
    split = {"train": 80, "test": 20}
    name = dataset(ann, packed(files | odd), split=split, seed=5)
    bad = dataset(ann, b"no archive at all" * 100)
    where = f"/v1/datasets/{name}"
    queued = ann.got("GET", where)
    assert (queued["state"], queued["contents"]) == ("queued", None)
    early = {"name": "early", "solver": spots.SOLVER, "net": NET, "dataset_id": name}
    assert ann.ask("POST", "/v1/solvers", early).status_code == 409, "it is not made yet"
    works(shared, tmp_path)
    made = ann.got("GET", where)
    contents = made["contents"]
    assert (made["state"], made["progress"]) == ("succeeded", {"entries": 64, "pictures": 61, "rejected": 3})
    assert contents["entries"] == contents["examples"] + contents["duplicates"] + sum(contents["rejected"].values())
    assert (contents["examples"], contents["duplicates"]) == (60, 1)
    assert contents["rejected"] == {"not_image": 1, "traversal": 1, "truncated": 1}
    assert contents["classes"] == sorted(spots.LABELS)
    assert {side: of["labels"] for side, of in contents["sides"].items()} == {
        "train": dict.fromkeys(spots.LABELS, 8), "test": dict.fromkeys(spots.LABELS, 2)}  # fmt: skip
    told = ann.got("GET", f"{where}/rejections")
    assert told["counts"] == contents["rejected"]
    assert [(one["name"], one["reason"]) for one in told["items"]] == [
        ("north/notes.txt", "not_image"), ("../up.png", "traversal"), ("south/torn.png", "truncated")]  # fmt: skip
    thumbs = ann.got("GET", f"{where}/files/thumbnails.json")
    assert {label: len(some) for label, some in thumbs.items()} == dict.fromkeys(spots.LABELS, 4)
    for label, some in thumbs.items():
        own = {pixels_of(content) for path, content in files.items() if path.startswith(f"{label}/")}
        assert {pixels_of(base64.b64decode(one)) for one in some} <= own, "pictures of its own label"
    before = sides(ann, name)
    assert {side: len(of) for side, of in before.items()} == {"train": 48, "test": 12}
    assert not before["train"] & before["test"], "no picture stands on two sides"
    failed = ann.got("GET", f"/v1/datasets/{bad}")
    assert (failed["state"], failed["reason"], failed["contents"]) == ("failed", "bad_archive", None)
    assert str(tmp_path) not in failed["detail"]
    assert ann.got("GET", f"/v1/datasets/{bad}/rejections") == {"counts": {}, "items": []}

    forgot = f"update @work set state = 'queued', result = null, finished_at = null where id = '{name}'"
    shared.site.run(shared.site.bare(forgot))  # as a worker that died between its files and its last word leaves it
    works(shared, tmp_path)
    again = ann.got("GET", where)
    assert (again["state"], again["contents"], sides(ann, name)) == ("succeeded", contents, before)
    more = dataset(ann, packed(pictures(30, 1)), extends_id=name)
    gone = dataset(ann, packed(files))
    assert ann.got("POST", f"/v1/datasets/{gone}/cancel")["state"] == "cancelled"
    works(shared, tmp_path)
    after = sides(ann, more)
    assert all(before[side] <= after[side] for side in before), "an earlier picture keeps its side"
    assert sum(map(len, after.values())) == 90
    assert [one["id"] for one in ann.got("GET", "/v1/datasets")["items"]] == [gone, more, bad, name]

    solver = ann.got("POST", "/v1/solvers", early)
    assert (solver["dataset_id"], solver["inputs"]) == (name, [])
    net_of = 8 * (3 * 3 * 3 + 1) + spots.CLASSES * (8 * 7 * 7 + 1)
    assert (solver["price"]["parameters"], solver["price"]["iterations"]) == (net_of, 120)
    small = {**early, "net": NET.replace(f"num_output: {spots.CLASSES}", "num_output: 2")}
    refused = ann.ask("POST", "/v1/solvers", small).json()["errors"][0]
    assert (refused["pointer"], "2 outputs, the dataset 6 labels" in refused["detail"]) == ("#/net/layer/4", True)
    job = {"name": "j", "solver_id": solver["id"], "inputs": {"train": ann.datafile(b"x")}}
    assert ann.ask("POST", "/v1/training-jobs", job).json()["errors"][0]["pointer"] == "#/inputs"
    for kept in (name, f"{more}"):
        status = ann.ask("DELETE", f"/v1/datasets/{kept}", If_Match="*").status_code
        assert status == (409 if kept == name else 204), "what others are made of stays"
    datafile = made["datafile_id"]
    assert ann.ask("DELETE", f"/v1/datafiles/{datafile}", If_Match="*").status_code == 409


@SQLITE
def test_the_walk_through_of_the_document_is_typed_from_an_archive_to_a_model(
    shared: Stand, ann: Person, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="LEFT OUT: a training needs torch: scripts/training.sh")
    text = (Path(__file__).parents[2] / "docs/service.md").read_text()
    (typed,) = re.findall(r"```sh\n(ask.*?)```", text, re.DOTALL)
    (tmp_path / "spots.zip").write_bytes(packed(pictures(240, 0)))
    (tmp_path / "solver.prototxt").write_text(spots.SOLVER)
    (tmp_path / "net.prototxt").write_text(NET)
    environ = {"PATH": os.environ["PATH"], "TOKEN": ann.token, "API": shared.url}
    with working(shared, tmp_path):
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", typed], cwd=tmp_path, env=environ, capture_output=True, text=True,
            timeout=600,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made, trained, history = (json.loads(line) for line in done.stdout.splitlines())
    assert made["contents"]["sides"]["test"]["examples"] == 48
    assert trained["state"] == "succeeded", trained["detail"]
    version = json.loads((tmp_path / "version.json").read_text())
    assert version["figures"]["test/accuracy"] > 0.5, "of six classes"
    assert version["labels"] == sorted(spots.LABELS), "those of the dataset"
    assert version["lineage"] == {
        "training_job_id": trained["id"], "iteration": 120, "solver_id": trained["solver_id"],
        "dataset_id": made["id"], "inputs": {},
    }  # fmt: skip
    assert [one["action"] for one in history["items"]] == ["alias set", "version added", "model added"]
    _evaluated(ann, trained, version["figures"]["test/accuracy"])
    _classifies(ann, made["id"], trained["id"], version["figures"]["test/accuracy"])
    weights = next(one for one in version["files"] if one["name"] == "net.caffemodel")
    assert hashlib.sha256((tmp_path / "net.caffemodel").read_bytes()).hexdigest() == weights["sha256"]


def _evaluated(ann: Person, trained: dict[str, Any], accuracy: float) -> None:
    """The confusion matrix counts as the job's own test, and each of the surest mistakes has its picture."""
    found = ann.got("GET", f"/v1/training-jobs/{trained['id']}/evaluation")
    assert found["labels"] == sorted(spots.LABELS)
    assert set(trained["result"]) == {"iteration", "files"}, "where it lies is nobody's business"
    [test] = found["tests"]
    matrix = np.array(test["matrix"])
    assert (test["iteration"], matrix.shape, matrix.sum()) == (120, (6, 6), test["examples"])
    assert matrix.trace() == test["right"]
    assert test["right"] / test["examples"] == pytest.approx(accuracy, abs=1e-6)
    assert len(test["mistakes"]) == min(24, test["examples"] - test["right"]) > 0
    sureness = [one["of_label"] for one in test["mistakes"]]
    assert sureness == sorted(sureness)
    for one in test["mistakes"]:
        assert one["label"] != one["likeliest"][0]["label"]
        image = cv2.imdecode(np.frombuffer(base64.b64decode(one["picture"]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert image is not None


def _classifies(ann: Person, made: str, job: str, accuracy: float) -> None:
    """A classifier of the job gives the dataset's test pictures the labels that the job's own test counted."""
    held = sides(ann, made)["test"]
    tested = {name: one for name, one in pictures(240, 0).items() if hashlib.sha256(one).digest() in held}
    assert len(tested) == len(held) == 48
    classifier = ann.got("POST", "/v1/classifiers", {"name": "spots", "training_job_id": job})
    assert classifier["labels"] == sorted(spots.LABELS), "those of the dataset"
    answer = requests.post(
        f"{ann.url}/v1/classifiers/{classifier['id']}/classify", headers={"Authorization": f"Bearer {ann.token}"},
        files=[("files", (name, one)) for name, one in tested.items()], timeout=120,
    )  # fmt: skip
    assert answer.ok, answer.text
    wrong = sum(one["predictions"][0]["label"] != one["name"].split("/")[0] for one in answer.json()["results"])
    counted = round(60 * (1 - accuracy))  # the job's test has 60 examples: the first 12 of 48 come twice
    assert counted / 2 <= wrong <= counted
