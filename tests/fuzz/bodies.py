"""One body of one shipment, or one file of ours on the lake, is changed to something nasty; then everybody looks at it.

A fresh host takes turns, a month goes by and prune comes, and every command that reads looks.  What must not be: an
error that is none of ours, or one that stops a turn; another shipment that is not delivered, done and closed; a thing
that is said twice; work that is done over in each poll; and data of an open shipment that is gone because this host
cannot read what names it.  Long form, every body, field and value: `python -m tests.fuzz.bodies`.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.codec.codecs import Forms
from pipeline.errors import FormatError, PipelineError
from pipeline.ledger.bodies import Body, body_of
from pipeline.ledger.deliveries import CurrentManifest, Index, PartnerManifest, Proposal
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Attempt, AttemptEnd, Batch, Done, End, Out, Plan, Result
from pipeline.ledger.protocol import Context
from pipeline.operations.health.judge import judge
from pipeline.operations.health.look import Look
from pipeline.operations.open_shipments import open_shipments
from pipeline.operations.prune import Pruner
from pipeline.operations.report.gather import gather
from pipeline.operations.report.scope import scope_of
from pipeline.operations.report.standing import standing
from pipeline.operations.verify import verify
from pipeline.operations.why import question_of, story
from pipeline.stages.compact.running import run as compact
from pipeline.stages.loop import LakeStages
from tests.simulation.light import LIGHT
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.world import STAGES, World, settings_of

DAY = 86400.0
DEEP = b'{"format":1,"x":' + b"[" * 200_000
VALUES: tuple[Any, ...] = (
    "",
    -1,
    0,
    1,
    7,
    10**6,
    10**12,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    2**70,
    -(2**63),
    None,
    [],
    {},
    [[]],
    [{}],
    ["x"],
    "007",
    "../x",
    "a/../../x",
    "/etc/passwd",
    "x" * 70,
    "x" * 5000,
    True,
    False,
    0.5,
    1.0,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "99999999T999999Z",
    "20260230T000000Z",
    "00000000T000000Z",
    "99991231T235959Z",
    "00010101T000000Z",
    "19691231T235959Z",
    "\ud800",
    "\udc80",
    "\u0661\u0662",
    "a\0b",
    "\n",
    "%s",
    "20200101T000000Z.000.00000.0-0123456789ab",
    "held",
    "shard",
    "strike",
    "retry",
    "release",
    "drop",
    "backfill",
    "again",
    "0" * 64,
    "f" * 64,
    {"7": 1},
    {"x": {"y": []}},
    [1, 2, 3],
)
RAW: tuple[bytes, ...] = (
    b"",
    b"{",
    b"{torn",
    b"\x00\xff not json",
    b"[1, 2]",
    b"{}",
    b"null",
    b"1",
    b'"x"',
    b"NaN",
    b'{"format": 99, "what": "ever"}',
    b'{"format": 1}',
    b'{"format": true}',
    b'{"format": 0}',
    b'{"format": -1}',
    b'{"format": 1.0}',
    b'{"format": "1"}',
    b'{"format": 1e400}',
    b'{"format": 1, "format": 1}',
    b'{"format": ' + b"9" * 5000 + b"}",
    DEEP,
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\x00}\x00",
    b" " * 70_000,
    b'{"format":1,"x":"' + b"y" * 100_000 + b'"}',
)
WHOLE = "the whole of it"


@dataclass(frozen=True)
class Target:
    """What is damaged.  kind: the body's; stages: how many of them ran before."""

    name: str
    kind: type[Body]
    stages: int
    lake: bool = False


TARGETS = (
    Target("plan", Plan, 1), Target("b/00000", Batch, 1), Target("end", End, 1), Target("F/t/00000/00001", Attempt, 2),
    Target("F/t/00000/00001.x", AttemptEnd, 2), Target("F/r/00000", Result, 2), Target("out", Out, 3),
    Target("t/out/00001", Attempt, 3), Target("done", Done, 4), Target("t/done/00001", Attempt, 4),
    Target("t/done/00001.x", AttemptEnd, 4), Target("child plan", Plan, 3), Target("child end", End, 3),
    Target("outputByPartner", Index, 4, True), Target("proposal", Proposal, 4, True), Target("token", Index, 4, True),
    Target("_manifest.json", PartnerManifest, 4, True), Target("current", CurrentManifest, 4, True),
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One damage.  path: of the field, () for the whole; value: what stands there then."""

    target: Target
    path: tuple[str | int, ...]
    value: Any

    def __str__(self) -> str:
        at = ".".join(map(str, self.path)) or WHOLE
        return f"{self.target.name} {at} = {self.value!r:.60}"


@dataclass
class Spoken(World):
    """A world that says what is to be said once only once, as the daemons do, and counts."""

    told: dict[str, str] = field(default_factory=dict)

    def context(self, name: str = "box.one") -> Context:
        def once(key: str, text: str) -> None:
            if self.told.setdefault(key, text) is text:
                self.said.append(text)

        known = super().context(name)
        return replace(known, once=once, bucket=_Answering(self.bucket), lake=_Answering(self.lake))  # type: ignore[arg-type]


class _Answering(MemoryStore):
    """What health asks of a store beside its keys."""

    def credentials_end(self) -> float | None:
        return None

    def forgets(self, prefix: str) -> str:
        return ""


class Stand:
    """Worlds as they are after so many stages, made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._disks: dict[tuple[int, bool], tuple[dict[str, Any], set[str], dict[str, Any], set[str], float]] = {}

    def world(self, target: Target) -> Spoken:
        """Two sources, one shipment each; one item of the first is to be tried again, and one file comes later."""
        forms = Forms() if target.lake else LIGHT
        key = (target.stages, target.lake)
        if key not in self._disks:
            self._disks[key] = self._made(forms, *key)
        world = Spoken(self._folder, settings_of(prune={"ledger_days": 400.0}), forms=forms)
        files, folders, lake_files, lake_folders, at = self._disks[key]
        world.bucket.files.update(files)
        world.bucket.folders |= folders
        world.lake.files.update(lake_files)
        world.lake.folders |= lake_folders
        world.hand.at = at
        world._nonces = 10_000
        return world

    def _made(
        self, forms: Forms, stages: int, lake: bool
    ) -> tuple[dict[str, Any], set[str], dict[str, Any], set[str], float]:
        world = Spoken(self._folder, settings_of(), forms=forms)
        head = "" if forms is LIGHT else "partner_id,external_id,url\n"
        world.put_refs("a.csv", f"{head}7,a,http://s/ok-1\n7,z,http://s/down-9\n")
        world.put_refs("b.csv", f"{head}8,b,http://s/ok-2\n")
        world.hand.at += 10
        turns = world.turns()
        for stage in STAGES[:stages]:
            turns.take(stage)
        if lake:
            list(compact(turns.context))
        return (
            dict(world.bucket.files),
            set(world.bucket.folders),
            dict(world.lake.files),
            set(world.lake.folders),
            world.hand.at,
        )


def place(world: World, target: Target) -> tuple[Disk, str]:
    """Where the target stands, or would."""
    plans = {
        ShipmentName.parse(key.split("/")[2]): body_of(Plan, content, key)
        for key, (content, _, _) in world.bucket.files.items()
        if key.endswith("/plan")
    }
    mine = sorted(name for name, plan in plans.items() if plan.snapshot.source == "refs/a.csv")
    if not target.lake:
        name = mine[-1] if target.name.startswith("child ") else mine[0]
        rest = target.name.removeprefix("child ").replace("F/", world.fingerprints["demo"][:12] + "/")
        return world.bucket, f"shop/c/{name}/{rest}"
    paths = {
        "outputByPartner": "features/outputByPartner",
        "proposal": "features/_index/0000000003",
        "token": "features/_index/tokens/deadbeef",
        "_manifest.json": f"features/{mine[0]}/7/_manifest.json",
        "current": "features/_current/7/0000000001/_manifest.json",
    }
    return world.lake, paths[target.name]


def good(world: World, target: Target) -> bytes:
    """What stands there before, or what might."""
    disk, key = place(world, target)
    if key in disk.files:
        return disk.files[key][0]
    made: dict[str, Body] = {
        "proposal": Proposal(token="deadbeef"),
        "token": Index(version=9),
        "F/t/00000/00001.x": AttemptEnd(kind="strike", cause="x"),
        "t/done/00001.x": AttemptEnd(kind="abandoned"),
    }
    return made[target.name].encode()


def changes(world: World, target: Target) -> Iterator[Change]:
    """Every damage to one target."""
    document = json.loads(good(world, target))
    for content in RAW:
        yield Change(target, (), content)
    yield Change(target, (), "a folder")
    for path in _paths(document):
        for value in VALUES:
            yield Change(target, path, value)
        yield Change(target, path, KeyError)
    for path in _paths(document):
        if isinstance(_at(document, path), dict):
            for name in ("007", "0", "9" * 19, "-1", "\u0661", "", "../8", "x"):
                yield Change(target, (*path, "*"), name)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield from _paths(inner, (*path, name))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def damage(world: World, change: Change) -> tuple[str, bytes]:
    """Do it; where, and what stands there now."""
    disk, key = place(world, change.target)
    if change.value == "a folder":
        disk.remove(key)
        disk.write(f"{key}/x", b"junk")
        return key, b""
    content = change.value
    if change.path:
        document = deepcopy(json.loads(good(world, change.target)))
        *before, last = change.path
        inner = _at(document, tuple(before))
        if last == "*":  # each name of an object becomes another one
            changed = dict.fromkeys([change.value], next(iter(inner.values()), None))
            inner.clear()
            inner.update(changed)
        elif change.value is KeyError:
            del inner[last]
        else:
            inner[last] = change.value
        content = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
    disk.write(key, content)
    return key, content


def tried(stand: Stand, change: Change) -> str:
    """What was wrong when everybody had looked; "" where nothing was."""
    world = stand.world(change.target)
    key, content = damage(world, change)
    try:
        return _tried(world, change, key, content)
    except PipelineError as error:
        return f"it stops what looks at it: {type(error).__name__}: {error}"
    except Exception as error:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/pipeline/" in frame.filename]
        where = f"{ours[-1].filename.rpartition('/pipeline/')[2]}:{ours[-1].lineno}" if ours else "the test"
        return f"{type(error).__name__}: {error!s:.100} at {where}"


def _tried(world: Spoken, change: Change, key: str, content: bytes) -> str:
    name = key.split("/")[2] if not change.target.lake else ""
    if change.target.name == "done" and name:  # as the daily pass puts it back
        world.bucket.write(f"shop/h/open/00000000T000000Z/{name}", b"")
    head = "" if world.forms is LIGHT else "partner_id,external_id,url\n"
    world.put_refs("c.csv", f"{head}9,c,http://s/ok-3\n")
    world.hand.at += 10
    turns = world.turns("box.two")
    counts = [0]
    while len(counts) < 4 or (counts[-1] != counts[-2] and len(counts) < 12):  # a batch is held after some strikes
        for stage in STAGES:
            turns.take(stage)
        counts.append(sum(1 for key in world.bucket.files if "/h/" not in key) + len(world.lake.files))
    if counts[-1] != counts[-2]:
        return f"something is written in each poll: {counts}"
    _look(world, turns)
    spoilt = _unreadable(change, key, content)
    kept = [key for key in world.bucket.files if spoilt and name and key.startswith(f"shop/d/{name}/")]
    if change.target.lake:
        list(compact(turns.context))
    for _ in range(2):
        world.hand.at += 30 * DAY
        Pruner(turns.context, turns.look).prune()
    _look(world, turns)
    lost = [key for key in kept if key not in world.bucket.files]
    if lost:
        return f"prune deleted {lost[0]} of a shipment that cannot be read"
    return _others(world, change, name or "no shipment") or _said_twice(world)


def _unreadable(change: Change, key: str, content: bytes) -> bool:
    """Whether it makes the shipment one that cannot be read here."""
    if change.target.name.removeprefix("child ") not in ("plan", "end", "out", "done"):
        return False
    try:
        body_of(change.target.kind, content, key)
    except FormatError:
        return True
    return False


def _others(world: Spoken, change: Change, name: str) -> str:
    """The shipments beside it are delivered, done and closed, unless the index itself cannot be read."""
    if change.target.name in ("outputByPartner", "proposal"):
        return ""
    for partner in ("8", "9"):
        if not any(key.startswith("features/2") and key.endswith(f"/{partner}/_SUCCESS") for key in world.lake.files):
            return f"partner {partner} is not delivered"
    for key, (content, _, _) in world.bucket.files.items():
        if not key.endswith("/plan") or name in key or b'"refs/a.csv"' in content:
            continue
        top = key.removesuffix("plan")
        if f"{top}done" not in world.bucket.files:
            return f"{top} is not done"
        if f"shop/h/open/00000000T000000Z/{top.split('/')[2]}" in world.bucket.files:
            return f"the hint of {top} is still there"
    return ""


def _said_twice(world: Spoken) -> str:
    twice = {text for text in world.said if world.said.count(text) > 1 and "tried again" not in text}
    return f"said more than once: {sorted(twice)[0]}" if twice else ""


def _look(world: Spoken, turns: LakeStages) -> None:
    """Status, health, verify, why, report."""
    context = world.context("gate.look")
    look = Look(world.settings, [context], world.hand.clock(), expects_lakes=True)
    facts = look(lambda key: 0.0)
    judge(facts, world.settings.health)
    standing(context, facts.lakes[0], open_shipments(context))
    for one in verify(context, deep=True):
        assert one.do
    story(context, question_of(7, "a"))
    gather([context], scope_of("today", world.hand.at), True)


def some(
    seed: str, seconds: float | None, folder: Path, targets: tuple[Target, ...] = TARGETS
) -> tuple[int, list[str]]:
    """Damages in an order that the seed gives, for so many seconds of processor time (None: all of them)."""
    stand = Stand(folder)
    listed = [change for target in targets for change in changes(stand.world(target), target)]
    random.Random(seed).shuffle(listed)
    ends = time.process_time() + seconds if seconds is not None else float("inf")
    found: dict[str, list[str]] = {}
    number = 0
    for change in listed:
        if time.process_time() > ends:
            break
        number += 1
        wrong = tried(stand, change)
        if wrong:
            found.setdefault(wrong.rpartition(" at ")[2][:60], []).append(f"{change}: {wrong}")
    return number, [f"{hits[0]}   [{len(hits)} of them]" for hits in found.values()]


if __name__ == "__main__":
    wanted = tuple(target for target in TARGETS if target.name in sys.argv[1:]) or TARGETS
    with tempfile.TemporaryDirectory(prefix="hathi-bodies-") as scratch:
        tries, findings = some("all", None, Path(scratch), wanted)
    print(f"{tries} damages, {len(findings)} findings")
    print("\n".join(findings))
    sys.exit(1 if findings else 0)
