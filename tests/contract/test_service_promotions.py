"""Promotions over REST, both databases: who may, what is refused before it is queued, and one number a request."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.app import promoting
from pipeline.service.ids import Kind, new_id
from pipeline.service.words import Role
from pipeline.service.work import lease
from tests.environment import environ
from tests.integration.conftest import picture, row
from tests.servers.databases import KINDS, empty, sites_of
from tests.servers.dying_promoter import POINTS
from tests.servers.promoting import SET, Lake, served, worker_of
from tests.servers.service import Person, Stand, standing

ROOT = Path(__file__).parents[2]
SETS = {
    "b": SET,
    "hats": SET.replace("shoes", "hats").replace("features", "hats"),
    "red-hats": SET.replace("shoes", "hats").replace("features", "red"),
}


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("service")
    lake = Lake(folder / "promoting", folder / "bucket")
    lake.write({"ayes": ["b", "hats"]}, SETS)
    for site in sites_of(request, folder):
        with standing(site, folder, promoter=lake.promoter()) as stand:
            yield stand
            assert stand.said == [], "nothing that an operator has to know of"


@dataclass
class Shop:
    """A tenant with a model of some versions, and the lake in a bucket of its own below the service's."""

    stand: Stand
    lake: Lake
    ann: Person
    model: str

    def version(self, seed: int, **pictures: Any) -> int:
        job = self.ann.job()
        self.stand.trained(self.ann, job, "accuracy", served(seed, **pictures))
        body = {"training_job_id": job, "labels": ["cat", "dog"]}
        return int(self.ann.got("POST", f"/v1/models/{self.model}/versions", body)["number"])

    def promote(self, version: int | None = None, **more: Any) -> str:
        body = {"feature_set": "b", **more}
        body |= {"model_id": self.model, "version": version} if version is not None else {}
        return str(self.ann.got("POST", "/v1/promotions", body)["id"])

    def shown(self, promotion: str) -> dict[str, Any]:
        return dict(self.ann.got("GET", f"/v1/promotions/{promotion}"))

    def work(self, name: str = "") -> list[str]:
        return worker_of(self.stand, self.lake.promoter(), name)

    def lease_ends(self) -> None:
        """Of what is promoted just now: whoever asks next gets it."""
        ended = "update @work set lease_until = 0 where kind = 'promote' and state = 'running'"
        self.stand.site.run(self.stand.site.bare(ended))

    def done(self, promotion: str) -> dict[str, Any]:
        """What is in use after a worker has done it."""
        said = self.work()
        shown = self.shown(promotion)
        assert shown["state"] == "succeeded", (shown, said)
        (found,) = shown["in_use"]
        return dict(found)


@pytest.fixture
def shop(shared: Stand) -> Shop:
    empty(shared.site)
    ann = shared.person("ayes", "ann", Role.OPERATOR)
    lake = Lake(shared.folder / "promoting", shared.folder / "bucket")
    subprocess.run(["rm", "-rf", str(lake.bucket / "shop"), str(lake.folder / "lake")], check=True)
    model = str(ann.got("POST", "/v1/models", {"name": "shoes"})["id"])
    return Shop(shared, lake, ann, model)


def test_a_version_goes_into_use_with_what_it_was_made_of_and_the_older_one_comes_back(shop: Shop) -> None:
    first, second = shop.version(1), shop.version(2)
    asked = {"feature_set": "b", "model_id": shop.model, "version": first, "why": "the first"}
    made = shop.ann.ask("POST", "/v1/promotions", asked, Idempotency_Key="k")
    assert (made.status_code, made.json()["state"]) == (201, "queued")
    again = shop.ann.ask("POST", "/v1/promotions", asked, Idempotency_Key="k")
    assert (again.json(), again.headers["Location"]) == (made.json(), made.headers["Location"]), "one of both"
    one = made.json()["id"]
    before = shop.done(one)
    assert (before["lake"], before["model"], before["number"], before["new"]) == ("shop", "shoes", 1, True)
    (body,) = shop.lake.promotions()
    version = shop.ann.got("GET", f"/v1/models/{shop.model}/versions/{first}")
    assert body["labels"] == ["cat", "dog"]
    assert body["figures"] == {"accuracy": version["figures"]["test/accuracy"]}
    assert (body["job"], body["request"], body["why"]) == (version["lineage"]["training_job_id"], one, "the first")
    assert body["by"] == f"{shop.ann.user}@ayes"
    datafile = version["lineage"]["inputs"]["train"]
    assert body["data"] == {datafile: hashlib.sha256(b"content").hexdigest()}

    shop.ann.ask("PUT", f"/v1/models/{shop.model}/aliases/best", {"version": second}, If_None_Match="*")
    two = shop.promote(model_id=shop.model, alias="best")
    after = shop.done(two)
    assert (after["number"], after["before"]) == (2, before["fingerprint"])
    assert shop.shown(two)["version"] == second
    back = shop.promote(number=1, why="back")
    assert shop.done(back) == {**before, "number": 3, "before": after["fingerprint"]}
    same = shop.promote(first)
    assert shop.done(same) == {**before, "number": 3, "before": before["fingerprint"], "new": False}, "in use already"
    bodies = shop.lake.promotions()
    assert [one["again"] for one in bodies] == [None, None, 1]
    assert bodies[2]["labels"] == ["cat", "dog"]
    assert shop.lake.files() == {file["key"] for one in bodies for file in one["files"]}, "each is named"

    told = shop.ann.got("GET", "/v1/promotions?limit=3")
    rest = shop.ann.got("GET", f"/v1/promotions?limit=3&cursor={told['next']}")
    assert [one["id"] for one in told["items"] + rest["items"]] == [same, back, two, one]
    history = shop.ann.got("GET", f"/v1/models/{shop.model}/history")["items"]
    noted = [(one["action"], one["version"], one["alias"]) for one in history if one["actor"] == shop.ann.user]
    assert noted[:2] == [("promoted for b", first, None), ("promoted for b", second, "best")]
    boss = shop.stand.person("ayes", "boss")
    audit = [one for one in boss.got("GET", "/v1/audit")["items"] if one["action"] == "promotion"]
    assert [(one["object"], one["actor"]) for one in audit] == [(one, shop.ann.user) for one in (same, back, two, one)]
    assert audit[1]["detail"] == "number 1 for b"


def test_only_an_operator_of_a_tenant_that_it_is_granted_to_promotes(shop: Shop) -> None:
    version = shop.version(1)
    body = {"feature_set": "b", "model_id": shop.model, "version": version}
    for role in (Role.VIEWER, Role.MEMBER):
        assert shop.stand.person("ayes", f"a-{role}", role).ask("POST", "/v1/promotions", body).status_code == 403
    strangers = shop.stand.person("bees", "ben")
    never = new_id(Kind.MODEL, 1.0)
    theirs, none = (strangers.ask("POST", "/v1/promotions", {**body, "model_id": one}) for one in (shop.model, never))
    assert theirs.text == none.text
    assert (theirs.status_code, theirs.json()["errors"][0]["pointer"]) == (422, "#/model_id")
    assert strangers.ask("POST", "/v1/promotions", {"feature_set": "b", "number": 1}).status_code == 422
    not_granted = shop.ann.ask("POST", "/v1/promotions", {**body, "feature_set": "red-hats"})
    no_such = shop.ann.ask("POST", "/v1/promotions", {**body, "feature_set": "no-such"})
    assert not_granted.json() == no_such.json(), "which sets there are is told to nobody whom they are not granted to"
    shared = shop.ann.ask("POST", "/v1/promotions", {**body, "feature_set": "hats"})
    assert (shared.status_code, "red-hats" in shared.text) == (409, False), "another set would change with it"
    promotion = shop.promote(version)
    assert strangers.ask("GET", f"/v1/promotions/{promotion}").status_code == 404
    assert strangers.got("GET", "/v1/promotions")["items"] == []
    assert shop.stand.person("ayes", "vera", Role.VIEWER).got("GET", f"/v1/promotions/{promotion}")["state"] == "queued"

    shop.lake.write({"ayes": []}, SETS)  # the right is taken back before a worker comes
    try:
        shop.work()
    finally:
        shop.lake.write({"ayes": ["b", "hats"]}, SETS)
    shown = shop.shown(promotion)
    assert (shown["state"], shown["reason"], "not the tenant's" in shown["detail"]) == ("failed", "bad_spec", True)
    assert shop.lake.promotions() == []


WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"mean": np.array([90, 100, 110], np.float32).reshape(3, 1, 1)},
        "preprocess.mean is [0] in set b, and [90, 100, 110] ",
    ),
    ({"scale": 0.00390625}, "is [1] in set b, and [0.00390625] "),
    ({"size": [8, 8], "crop": 4}, "preprocess.resize is direct in set b, and crop "),
]


def test_a_set_that_prepares_pictures_in_another_way_is_refused_with_both_values(shop: Shop) -> None:
    for pictures, says in WRONG:
        version = shop.version(1, **pictures)
        body = {"feature_set": "b", "model_id": shop.model, "version": version}
        refused = shop.ann.ask("POST", "/v1/promotions", body)
        assert refused.status_code == 422
        assert any(says in one["detail"] for one in refused.json()["errors"]), refused.text
        assert "[sets.NAME.preprocess]" in refused.json()["hint"]
    good = shop.version(1)
    for more, pointer in (({"blob": "ip"}, "#/blob"), ({"lake": "other"}, "#/lake"), ({"number": 1}, "#/model_id"),
                          ({"version": 99}, "#/version"), ({"version": None}, "#/model_id")):  # fmt: skip
        body = {"feature_set": "b", "model_id": shop.model, "version": good, **more}
        assert shop.ann.ask("POST", "/v1/promotions", body).json()["errors"][0]["pointer"] == pointer, more
    number = shop.promote(number=7)
    shop.work()
    assert (shop.shown(number)["state"], shop.shown(number)["reason"]) == ("failed", "no_data")
    assert "no promotion shoes@7" in shop.shown(number)["detail"]
    assert shop.lake.promotions() == []

    queued = shop.promote(good, blob="prob")
    changed = SETS | {"b": SET.replace("[0.0]", "[7.0]")}  # another operator changes the set before a worker comes
    shop.lake.write({"ayes": ["b", "hats"]}, changed)
    try:
        shop.work()
    finally:
        shop.lake.write({"ayes": ["b", "hats"]}, SETS)
    shown = shop.shown(queued)
    assert (shown["state"], shown["reason"]) == ("failed", "bad_spec")
    assert "preprocess.mean is [7] in set b, and [0] " in shown["detail"]
    assert str(shop.stand.folder) not in shown["detail"]
    assert shop.lake.promotions() == []


def test_of_two_promotions_at_once_one_is_in_use_and_the_other_is_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [shop.promote(shop.version(seed)) for seed in (1, 2)]
    _together(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(shop.work, ("one", "other")))
    shown = [shop.shown(one) for one in both]
    assert sorted(one["state"] for one in shown) == ["failed", "succeeded"]
    lost = next(one for one in shown if one["state"] == "failed")
    assert (lost["reason"], "shoes@1 is in use" in lost["detail"]) == ("overtaken", True)
    (body,) = shop.lake.promotions()
    assert body["request"] == next(one["id"] for one in shown if one["state"] == "succeeded")
    assert shop.lake.files() == {file["key"] for file in body["files"]}, "the loser left nothing"
    assert shop.done(shop.promote(lost["version"]))["number"] == 2, "asked again it is next"


def test_a_frozen_worker_and_the_one_that_took_over_put_one_number_there(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second claims after the first one's lease, and both write at the same instant."""
    promotion = shop.promote(shop.version(1))
    frozen, waits = threading.Event(), threading.Event()
    real = promoting.promote

    def at_the_commit(judged: promoting.Judged) -> promoting.Outcome:
        if not frozen.is_set():
            frozen.set()
            assert waits.wait(60)
        return real(judged)

    monkeypatch.setattr(promoting, "promote", at_the_commit)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 1e9)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shop.work, "frozen")
        assert frozen.wait(60)
        shop.lease_ends()
        assert shop.done(promotion)["number"] == 1
        waits.set()
        first.result()
    shown = shop.shown(promotion)
    assert (shown["state"], shown["attempt"], shown["in_use"][0]["number"]) == ("succeeded", 2, 1)
    (body,) = shop.lake.promotions()
    assert body["request"] == promotion
    assert shop.lake.files() == {file["key"] for file in body["files"]}


def _together(patch: pytest.MonkeyPatch) -> None:
    """Two have judged before the first of them writes."""
    barrier, real = threading.Barrier(2, timeout=60), promoting.promote

    def promote(judged: promoting.Judged) -> promoting.Outcome:
        if not barrier.broken and judged.number == 1:
            barrier.wait()
        return real(judged)

    patch.setattr(promoting, "promote", promote)


def test_a_worker_killed_on_its_way_leaves_garbage_or_a_promotion_that_the_next_one_finds(shop: Shop) -> None:
    refs = shop.lake.folder / "lake" / "refs" / "a.jsonl"
    refs.parent.mkdir(parents=True)
    refs.write_text("\n".join(row(item, picture(at)) for at, item in enumerate(("a", "bb", "ccc"))))
    prints = [shop.done(shop.promote(shop.version(1)))["fingerprint"]]
    shop.lake.hathi("run")
    garbage: set[str] = set()
    for number, point in enumerate(POINTS, 2):
        promotion = shop.promote(shop.version(number), backfill=True)
        program = [sys.executable, "-m", "tests.servers.dying_promoter", shop.stand.site.url, str(shop.lake.config)]
        killed = subprocess.run([*program, point], cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=120)
        assert killed.returncode == -9, killed.stdout + killed.stderr
        assert shop.shown(promotion)["state"] == "running"
        cut = point == "before the number"
        assert len(shop.lake.promotions()) == (number - 1 if cut else number), point
        shop.lease_ends()
        in_use = shop.done(promotion)
        assert (in_use["number"], in_use["new"], in_use["before"]) == (number, True, prints[-1]), point
        assert shop.shown(promotion)["attempt"] == 2
        prints.append(in_use["fingerprint"])
        bodies = shop.lake.promotions()
        assert [one["request"] == promotion for one in bodies] == [False] * (number - 1) + [True], point
        named = {file["key"] for one in bodies for file in one["files"]}
        assert named <= shop.lake.files()
        assert len(shop.lake.files() - named - garbage) == cut, "garbage, which prune deletes"
        garbage = shop.lake.files() - named
        plans = list((shop.lake.bucket / "shop" / "c").glob("*/plan"))
        assert len(plans) == number, "the back-fill is requested once"
        progress = shop.shown(promotion)["progress"]
        assert (progress["snapshots"], progress["delivered"], progress["refs"]) == (1, 0, 3), point
    shop.lake.hathi("run")
    assert shop.shown(promotion)["progress"] == {
        "snapshots": 1, "delivered": 1, "refs": 3, "computed": 3, "features": 3, "failures": 0}  # fmt: skip
    assert dict(shop.lake.prints()) == dict.fromkeys(prints, 3)
    newest = max(shop.lake.rows(), key=lambda one: one["shipment"])
    assert newest["fingerprint"] == prints[-1]
    shop.lake.hathi("verify", "--deep")
