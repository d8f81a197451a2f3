"""docs/permissions.md: its policies allow what each side asks of a bucket, and hardly anything that nobody asks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import estop, models, promoting, trainings
from pipeline.app.candidates import Files, of_promotion, of_training
from pipeline.errors import Stopped
from pipeline.ledger.layout import Task
from pipeline.ledger.manifest import AttemptEnd, Promoted
from pipeline.ledger.protocol import Context, beat, claim, give_up, leave
from pipeline.ledger.trainings import JobSpec
from pipeline.operations.prune import Pruner
from pipeline.stages import operator_requests
from pipeline.stages.loop import LakeStages
from pipeline.stores.opening import probe
from pipeline.stores.store import Listing
from pipeline.training import jobs
from pipeline.training.turn import take
from sample import random_features
from tests.integration.conftest import ROOT
from tests.simulation.toy_training import ToyTrainer
from tests.simulation.world import World, settings_of
from tests.unit.test_promotions import NET, promote
from tests.unit.test_promotions import job as finished_job
from tests.unit.test_prune import remove_source
from tests.unit.test_rounds import held_name
from tests.unit.test_stages import shipments, url, world_of

BUCKET = "arn:aws:s3:::hathi-bucket"
DAY = 86400.0
SIDES = ("Compute box", "Gateway")
TRAINS, PROMOTES = "Host that trains", "Host that promotes"
HOSTS = (*SIDES, TRAINS, PROMOTES)
OF_SERVERS = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:GetLifecycleConfiguration"}
"""What a bucket of S3 alone is asked, by its own module: uploads in parts, and the doctor's look at its rules."""


@dataclass(frozen=True)
class Request:
    """One request as a policy sees it."""

    action: str
    resource: str
    about: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Policy:
    """An identity policy, as far as Amazon's rules for evaluating it are needed here."""

    statements: tuple[Mapping[str, Any], ...]

    def grants(self, request: Request) -> list[tuple[str, str, str]]:
        """(sid, action, resource pattern) of what allows it."""
        return [
            (one["Sid"], action, pattern)
            for one in self.statements
            for action in listed(one["Action"])
            for pattern in listed(one["Resource"])
            if action == request.action
            and like(pattern, request.resource)
            and holds(one.get("Condition", {}), dict(request.about))
        ]

    def all(self) -> set[tuple[str, str, str]]:
        return {
            (one["Sid"], action, pattern)
            for one in self.statements
            for action in listed(one["Action"])
            for pattern in listed(one["Resource"])
        }


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def like(pattern: str, text: str) -> bool:
    """`*` is any text, `/` in it too, and `?` any one character."""
    words = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(words, text, re.S) is not None


def holds(condition: Mapping[str, Mapping[str, Any]], about: Mapping[str, str]) -> bool:
    for operator, keys in condition.items():
        for key, value in keys.items():
            if operator == "Null":
                if (key not in about) != (value == "true"):
                    return False
            elif operator == "StringLikeIfExists":
                if key in about and not any(like(one, about[key]) for one in listed(value)):
                    return False
            else:
                raise AssertionError(f"the test does not know the operator {operator}")
    return True


def policies() -> dict[str, Policy]:
    """By their headings, with names in the place of the placeholders."""
    text = (ROOT / "docs" / "permissions.md").read_text()
    found = {}
    for heading, body in re.findall(r"^## ([^\n]+)\n.*?^```json\n(.*?)^```", text, re.S | re.M):
        body = body.replace("BUCKET", "hathi-bucket").replace("PREFIX", "some/prefix").replace("LAKE", "shop")
        parsed = json.loads(body)
        assert parsed["Version"] == "2012-10-17"
        assert {one["Effect"] for one in parsed["Statement"]} == {"Allow"}
        found[heading] = Policy(tuple(parsed["Statement"]))
    assert sorted(found) == sorted(HOSTS)
    return found


@dataclass
class Recording:
    """A bucket that notes each verb as the request that S3 gets for it."""

    store: Any
    requests: list[Request] = field(default_factory=list)

    def note(self, action: str, key: str, **about: str) -> None:
        self.requests.append(Request(f"s3:{action}", f"{BUCKET}/some/prefix/{key}", tuple(about.items())))

    def list(self, prefix: str, **more: Any) -> Listing:
        self.requests.append(Request("s3:ListBucket", BUCKET, (("s3:prefix", f"some/prefix/{prefix}"),)))
        listing: Listing = self.store.list(prefix, **more)
        return listing

    def get(self, key: str, at_most: int | None = None) -> bytes:
        self.note("GetObject", key)
        content: bytes = self.store.get(key, at_most)
        return content

    def open(self, key: str) -> Any:
        self.note("GetObject", key)
        return self.store.open(key)

    def put(self, key: str, body: bytes | Path) -> None:
        self.note("PutObject", key)
        self.store.put(key, body)

    def put_new(self, key: str, body: bytes) -> None:
        self.note("PutObject", key, **{"s3:if-none-match": "*"})
        self.store.put_new(key, body)

    def delete(self, key: str) -> None:
        self.note("DeleteObject", key)
        self.store.delete(key)

    def sweep(self, seconds: float) -> int:
        self.requests.append(Request("s3:ListBucketMultipartUploads", BUCKET))
        number: int = self.store.sweep(seconds)
        return number


def sides(world: Any) -> Iterator[tuple[str, Context, Recording]]:
    for side, process in (("Gateway", "gate.one"), ("Compute box", "box.one")):
        context = world.context(process)
        recording = Recording(context.bucket)
        lake = context.lake if side == "Gateway" else None
        yield side, replace(context, bucket=recording, lake=lake), recording  # type: ignore[arg-type]


@dataclass
class Site:
    """A gateway and a compute box over one bucket, each seen through a recording of its own."""

    world: World
    where: dict[str, tuple[Context, Recording]]

    @property
    def gateway(self) -> Context:
        return self.where["Gateway"][0]

    @property
    def box(self) -> Context:
        return self.where["Compute box"][0]

    def turns(self) -> tuple[LakeStages, LakeStages]:
        return (
            LakeStages(self.gateway, self.world.serve, strict=True),
            LakeStages(self.box, self.world.serve, strict=True),
        )

    def work(self) -> None:
        """Until nothing is due."""
        gateway, box = self.turns()
        order = [(gateway, "ship"), (box, "compute"), (box, "aggregate"), (gateway, "deliver")]
        idle = 0
        while idle < 2:
            idle = 0 if sum(lake.take(stage).tasks for lake, stage in order) else idle + 1

    def pass_days(self, days: float, first: str = "Compute box") -> None:
        """first: who prunes first, and leaves little to the other."""
        self.world.hand.at += days * DAY
        for _, turns in sorted(zip(self.where, self.turns(), strict=True), key=lambda one: one[0] != first):
            Pruner(turns.context, turns.look).prune()
        self.work()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Request]]:
    """What each side asks in the life of a few shipments: retries, a batch that is held and released, a set with
    another net, images that come again, objects that nobody names, prune after a month and after two years."""
    world = world_of(
        tmp_path_factory.mktemp("world"),
        *(f"7,item{n},{url('ok', n)}" for n in range(8)),
        f"8,down,{url('down')}",
        compute={"strikes": 1, "lost": 1, "strikes_alone": 1, "lost_alone": 1},
        prune={"orphan_days": 1.0, "reuse_days": 1.0},
        sets={"demo": {"net": "n", "blob": "b", "root": "features"}},
    )
    site = Site(world, {side: (context, recording) for side, context, recording in sides(world)})
    for context, recording in site.where.values():
        check(recording)
        estop.engage_remote(estop.of_lakes([context]))
        beat(context)
        estop.lift_remote(estop.of_lakes([context]))
    site.turns()[0].take("ship")
    name = min(shipments(world).values())
    task = Task.batch(world.fingerprints["demo"], 0)
    for number in (1, 2):  # two strikes, the second alone: the next turn holds the batch
        assert claim(site.box, name, task, number, alone=number == 2)
        give_up(site.box, name, task, number, AttemptEnd(kind="strike", cause="killed"))
    site.work()
    operator_requests.answer(site.gateway, held_name(world), 0, "release")
    site.work()
    for _ in range(3):  # the retries
        world.hand.at += 4 * DAY
        site.work()
    world.lake.write("refs/a.csv", world.lake.files["refs/a.csv"][0])  # the same images once more
    world.hand.at += 60
    site.work()
    world.fingerprints["demo"] = "ef" * 32
    for newest, plan in operator_requests.newest(site.gateway, "refs/a.csv", ["demo"]):
        operator_requests.again(site.gateway, newest, plan, backfill=True)
    site.work()
    for side, (_, recording) in site.where.items():
        recording.store.put(f"shop/d/{name}/dead/00000.pb", b"of a process that was killed")
        recording.store.put("shop/u/d/abcdefabcdef/mixed/dead", b"of a process that was killed")
        site.pass_days(2, first=side)
    site.pass_days(30)
    remove_source(world)
    site.pass_days(500)
    site.pass_days(2)
    for context, _ in site.where.values():
        leave(context)
    assert [key for key in world.bucket.files if key.startswith("shop/")] == [], world.said
    return {side: recording.requests for side, (_, recording) in site.where.items()}


def check(recording: Recording) -> None:
    """What `hathi doctor` asks."""
    folder = "doctor-0123456789abcdef/"
    probe(recording, "")  # type: ignore[arg-type]
    probe(recording, folder)  # type: ignore[arg-type]
    recording.put(f"{folder}small", b"")
    recording.get(f"{folder}small")
    list(recording.list(folder))
    recording.delete(f"{folder}small")


@dataclass
class Racing(Recording):
    """Somebody else is first, once, while a file is uploaded."""

    race: Callable[[], None] | None = None

    def put(self, key: str, body: bytes | Path) -> None:
        super().put(key, body)
        race, self.race = self.race, None
        if race is not None:
            race()


@pytest.fixture(scope="module")
def trains(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    """What a host asks that trains jobs, is asked to end, goes on, loses a race, and looks at them as a person does."""
    folder = tmp_path_factory.mktemp("trains")
    world = World(folder)
    recording = Racing(world.context("box.one").bucket)
    context = replace(world.context("box.one"), bucket=recording, lake=None)  # type: ignore[arg-type]
    spec = JobSpec(model="toy", solver="", max_iter=12, every=5, seed=1)
    asked = iter(range(3))
    beat(context)
    jobs.refuse_forgotten(context, spec)
    name, _ = jobs.submit(context, spec)
    with pytest.raises(Stopped):
        take(replace(context, stopping=lambda: next(asked, None) is None), name, ToyTrainer)

    def first() -> None:
        leave(context)  # for the other it is dead
        assert take(world.context("box.two"), name, lambda one: ToyTrainer(one, cpu="another")) is not None

    recording.race = first
    assert take(context, name, ToyTrainer) is not None
    other, _ = jobs.submit(context, spec.model_copy(update={"seed": 2}))
    for one in trainings.trainings([context]):
        trainings.as_tree(trainings.training([context], one.name), details=True)
    trainings.fetch(trainings.training([context], str(name)), folder / "fetched")
    trainings.stop(trainings.training([context], str(other)))
    leave(context)
    return recording.requests


@pytest.fixture(scope="module")
def promotes(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    """What a host asks where files, a training and an older promotion are promoted, one of them too late."""
    folder = tmp_path_factory.mktemp("promotes")
    sets = {"demo": {"model": "shoes", "blob": "features", "root": "features"}}
    world = World(folder / "spill", settings_of(state=str(folder / "state"), sets=sets))
    weights = folder / "w.caffemodel"
    random_features.write(weights, 1)
    other = world.context("box.one")
    name = finished_job(other, weights, NET)
    other.bucket.put("shop/c/20260101T000000Z.000.00000.0-0123456789ab/plan", b"{}")
    recording = Racing(world.context("box.two").bucket)
    context = replace(world.context("box.two"), bucket=recording, lake=None)  # type: ignore[arg-type]
    promote(context, Files(NET, weights))
    with of_training(trainings.training([context], name), Files(NET)) as candidate:
        promoting.promote(promoting.judge(context, promoting.Wanted("shoes", candidate)))
    again = of_promotion(context, Promoted(model="shoes", number=1))
    promoting.promote(promoting.judge(context, promoting.Wanted("shoes", again)))
    random_features.write(folder / "v.caffemodel", 2)
    random_features.write(folder / "u.caffemodel", 3)
    recording.race = lambda: assert_won(promote(other, Files(NET, folder / "u.caffemodel")))
    assert not promote(context, Files(NET, folder / "v.caffemodel")).won
    models.versions([context], "shoes", lineage=True)
    return recording.requests


def assert_won(outcome: promoting.Outcome) -> None:
    assert outcome.won


@pytest.fixture(scope="module")
def of_hosts(
    asked: dict[str, list[Request]], trains: list[Request], promotes: list[Request]
) -> dict[str, list[Request]]:
    return {**asked, TRAINS: trains, PROMOTES: promotes}


@pytest.mark.parametrize("side", HOSTS)
def test_each_request_of_a_side_is_allowed_to_it(of_hosts: dict[str, list[Request]], side: str) -> None:
    policy = policies()[side]
    assert len(of_hosts[side]) > (100 if side in SIDES else 30)
    assert sorted({str(one) for one in of_hosts[side] if not policy.grants(one)}) == []


@pytest.mark.parametrize("side", HOSTS)
def test_nothing_is_allowed_that_nobody_asks(of_hosts: dict[str, list[Request]], side: str) -> None:
    policy = policies()[side]
    used = {grant for one in of_hosts[side] for grant in policy.grants(one)}
    assert sorted(grant for grant in policy.all() - used if grant[1] not in OF_SERVERS) == []


def test_neither_side_may_do_what_is_the_others_or_nobodys() -> None:
    shop = f"{BUCKET}/some/prefix/shop"
    name = f"{shop}/c/20260101T000000Z.000.00000.0-0123456789ab"
    once = (("s3:if-none-match", "*"),)
    refused = {
        "Gateway": [
            Request("s3:PutObject", f"{name}/abcdefabcdef/r/00000", once),
            Request("s3:PutObject", f"{name}/abcdefabcdef/t/00000/00001", once),
            Request("s3:PutObject", f"{name}/out", once),
            Request("s3:PutObject", f"{name}/plan"),
            Request("s3:PutObject", f"{name}/done"),
            Request("s3:GetObject", f"{BUCKET}/some/prefix/mall/c/x/plan"),
            Request("s3:ListBucket", BUCKET, (("s3:prefix", "some/prefix/mall/c/"),)),
        ],
        "Compute box": [
            Request("s3:PutObject", f"{name}/done", once),
            Request("s3:PutObject", f"{name}/t/done/00001", once),
            Request("s3:PutObject", f"{name}/abcdefabcdef/r/00000"),
            Request("s3:PutObject", f"{name}/out"),
            *(Request("s3:DeleteObject", f"{name}/{key}") for key in ("plan", "b/00000", "end", "out", "done")),
            Request("s3:DeleteObject", f"{name}/abcdefabcdef/r/00000"),
            Request("s3:PutObject", f"{BUCKET}/some/prefix/mall/d/x"),
        ],
        TRAINS: [
            Request("s3:PutObject", f"{shop}/j/toy-0123456789ab/out"),
            Request("s3:DeleteObject", f"{shop}/j/toy-0123456789ab/s/00005"),
            Request("s3:PutObject", f"{name}/plan", once),
            Request("s3:PutObject", f"{shop}/h/open/x"),
            Request("s3:PutObject", f"{shop}/m/shoes/1", once),
            Request("s3:GetObject", f"{shop}/c/x/plan"),
            Request("s3:DeleteObject", f"{shop}/d/m/x"),
            Request("s3:ListBucket", BUCKET, (("s3:prefix", "some/prefix/shop/c/"),)),
        ],
        PROMOTES: [
            Request("s3:PutObject", f"{shop}/m/shoes/1"),
            Request("s3:DeleteObject", f"{shop}/m/shoes/1"),
            Request("s3:PutObject", f"{shop}/j/toy-0123456789ab/out", once),
            Request("s3:DeleteObject", f"{shop}/d/j/x"),
            Request("s3:PutObject", f"{shop}/h/open/x"),
            Request("s3:GetObject", f"{shop}/d/x/y"),
        ],
    }
    for side, policy in policies().items():
        for request in refused[side]:
            assert policy.grants(request) == [], request
