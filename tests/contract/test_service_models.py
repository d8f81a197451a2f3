"""Models over REST: versions that are snapshots, aliases that nobody overwrites unseen, a history that only grows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import PermanentError
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import Role, scope
from tests.servers.databases import KINDS, empty
from tests.servers.service import WEIGHTS, Person, Stand, stood


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    yield from stood(request, tmp_path_factory.mktemp("service"))


@pytest.fixture
def stand(shared: Stand) -> Stand:
    empty(shared.site)
    return shared


def modelled(stand: Stand, ann: Person) -> tuple[str, str]:
    """A model's place and the id of a job with a snapshot at iteration 10."""
    job = ann.job()
    stand.trained(ann, job, "accuracy")
    return f"/v1/models/{ann.got('POST', '/v1/models', {'name': 'digits'})['id']}", job


def test_versions_are_snapshots_with_their_lineage_and_stay_as_they_are(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    where, job = modelled(stand, ann)
    body = {"training_job_id": job, "labels": ["zero", "one"], "note": "the first"}
    made = ann.ask("POST", f"{where}/versions", body, Idempotency_Key="k")
    assert made.headers["Location"] == f"{where}/versions/1"
    assert ann.ask("POST", f"{where}/versions", body, Idempotency_Key="k").json() == made.json(), "made once"
    version = ann.got("GET", f"{where}/versions/1")
    assert version == made.json()
    assert version["figures"] == {"test/accuracy": 0.5}
    said = ann.got("GET", f"/v1/training-jobs/{job}")
    lineage = {"training_job_id": job, "iteration": 10, "solver_id": said["solver_id"],
               "dataset_id": None, "inputs": said["inputs"]}  # fmt: skip
    assert version["lineage"] == lineage
    assert (version["labels"], version["created_by"]) == (["zero", "one"], ann.user)
    file = ann.ask("GET", f"{where}/versions/1/artifacts/{WEIGHTS}")
    assert file.content == b"accuracy weights"
    assert file.headers["ETag"] == f'"{version["files"][0]["sha256"]}"'
    assert ann.ask("GET", f"{where}/versions/1/artifacts/other").status_code == 404
    assert ann.ask("POST", "/v1/models", {"name": "digits"}).status_code == 409
    for wrong, pointer in (({"training_job_id": job, "iteration": 9}, "#/iteration"),
                           ({"training_job_id": new_id(Kind.TRAINING_JOB, 1.0)}, "#/training_job_id"),
                           ({"training_job_id": ann.job()}, "#/training_job_id")):  # fmt: skip
        assert ann.ask("POST", f"{where}/versions", wrong).json()["errors"][0]["pointer"] == pointer
    assert ann.ask("POST", f"/v1/training-jobs/{job}/cancel").ok
    stand.site.run(stand.site.bare("update @work set state = 'cancelled', worker_id = null, lease_until = null"))
    kept = ann.ask("DELETE", f"/v1/training-jobs/{job}", If_Match="*")
    assert (kept.status_code, "model versions" in kept.json()["detail"]) == (409, True)
    assert ann.ask("DELETE", f"{where}/versions/1").status_code == 204
    assert ann.got("POST", f"{where}/versions", {"training_job_id": job})["number"] == 2, "no number comes twice"
    assert ann.ask("GET", f"{where}/versions/1").status_code == 404
    viewer = stand.person("ayes", "vera", Role.VIEWER)
    assert viewer.got("GET", f"{where}/versions")["items"][0]["number"] == 2
    assert viewer.ask("DELETE", f"{where}/versions/2").status_code == 403


def test_an_alias_names_one_version_and_its_history_says_who_changed_it(stand: Stand) -> None:
    ann, max_ = stand.person("ayes", "ann"), stand.person("ayes", "max", Role.MEMBER)
    where, job = modelled(stand, ann)
    for _ in range(3):
        ann.got("POST", f"{where}/versions", {"training_job_id": job})
    alias = f"{where}/aliases/best"
    assert ann.ask("PUT", alias, {"version": 1}).status_code == 428
    assert ann.ask("PUT", alias, {"version": 1}, If_Match="*").status_code == 412, "there is none yet"
    assert ann.ask("PUT", alias, {"version": 9}, If_None_Match="*").json()["errors"][0]["pointer"] == "#/version"
    first = ann.ask("PUT", alias, {"version": 1}, If_None_Match="*")
    assert first.status_code == 201
    assert ann.ask("PUT", alias, {"version": 2}, If_None_Match="*").status_code == 412
    tag = ann.ask("GET", alias).headers["ETag"]
    assert tag == first.headers["ETag"]
    assert max_.got("PUT", alias, {"version": 3}, If_Match=tag) == {"alias": "best", "version": 3}
    assert ann.ask("PUT", alias, {"version": 2}, If_Match=tag).status_code == 412, "two tabs"
    assert ann.ask("DELETE", f"{where}/versions/3").status_code == 409, "an alias names it"
    assert ann.got("GET", where)["aliases"] == {"best": 3}
    assert ann.got("GET", "/v1/models")["items"][0]["aliases"] == {"best": 3}
    assert ann.ask("DELETE", alias, If_Match=tag).status_code == 412
    assert ann.ask("DELETE", alias, If_Match="*").status_code == 204
    told = [(one["actor"], one["action"], one["version"], one["alias"], one["before"])
            for one in ann.got("GET", f"{where}/history")["items"]]  # fmt: skip
    assert told == [
        (ann.user, "alias removed", None, "best", 3), (max_.user, "alias set", 3, "best", 1),
        (ann.user, "alias set", 1, "best", None), *((ann.user, "version added", n, None, None) for n in (3, 2, 1)),
        (ann.user, "model added", None, None, None),
    ]  # fmt: skip

    async def change() -> None:
        for sql in ("update model_history set actor = 'x'", "delete from model_history"):
            with pytest.raises(PermanentError):
                async with stand.site.open().transaction(scope(ann.tenant)) as statements:
                    await statements.rows(sql)

    stand.site.run(change())


def test_of_eight_who_move_an_alias_at_once_one_does_and_the_others_are_told(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    where, job = modelled(stand, ann)

    def add(_: int) -> int:
        return int(Person(ann.url, ann.token).got("POST", f"{where}/versions", {"training_job_id": job})["number"])

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(add, range(8))) == list(range(1, 9))
        tag = ann.ask("PUT", f"{where}/aliases/best", {"version": 1}, If_None_Match="*").headers["ETag"]

        def move(number: int) -> int:
            who = Person(ann.url, ann.token)
            return who.ask("PUT", f"{where}/aliases/best", {"version": number}, If_Match=tag).status_code

        assert sorted(pool.map(move, range(1, 9))) == [200] + [412] * 7
    items = ann.got("GET", f"{where}/history?limit=2")
    seen = len(items["items"])
    while items["next"]:
        items = ann.got("GET", f"{where}/history?limit=2&cursor={items['next']}")
        seen += len(items["items"])
    assert seen == 11, "eight versions, the model, and two of the alias"
