"""What a poll asks of the bucket, by count (docs/protocol.md 9): its cost is that of open work, not of history.

A list counts once for each page of 1,000 keys, as object stores bill it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.clock import Process
from pipeline.ledger.layout import FIRST_DUE, Keys, ShipmentName, version_of
from pipeline.ledger.manifest import (
    Attempt,
    Batch,
    DataFile,
    Done,
    End,
    Out,
    OutPartner,
    Place,
    Plan,
    Result,
    Snapshot,
    SourceFile,
)
from pipeline.ledger.protocol import SHIPMENTS_OF_A_POLL, Context, beat
from pipeline.stages.loop import LakeStages
from pipeline.stores.store import Entry, Listing
from tests.simulation.memory import MemoryStore
from tests.simulation.world import STAGES, World, settings_of

KEYS = Keys("shop")
PAGE = 1000
LIST_HINTS, LIST_ALIVE = "list h/open/", "list h/alive/"


@dataclass
class Counting:
    """A bucket that counts what is asked of it."""

    store: MemoryStore
    asked: Counter[str] = field(default_factory=Counter)

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        what = f"list {_kind(prefix)}"
        self.asked[what] += 1
        listing = self.store.list(prefix, after=after, until=until, folders=folders)
        return Listing(listing.now, self._pages(what, listing.entries))

    def _pages(self, what: str, entries: Iterator[Entry]) -> Iterator[Entry]:
        for number, entry in enumerate(entries):
            if number and number % PAGE == 0:
                self.asked[what] += 1
            yield entry

    def __getattr__(self, verb: str) -> Any:
        def call(key: str, *args: Any) -> Any:
            if verb != "sweep":  # no key, and a listing of its own
                self.asked[f"{verb} {_kind(key)}"] += 1
            return getattr(self.store, verb)(key, *args)

        return call


def _kind(key: str) -> str:
    """h/open/, h/alive/, c/, c/S/ and c/S/plan, ...: what is asked for, whichever shipment it is."""
    parts = key.removeprefix("shop/").split("/")
    if parts[0] == "h":
        return "/".join(parts[:2]) + "/"
    if parts[0] == "c" and len(parts) > 2:
        return "/".join(["c", "S", *("F" if len(part) == 12 else part for part in parts[2:])])
    return "/".join(parts)


@dataclass
class Host:
    """One process's turns over a world, its bucket counted."""

    world: World
    name: str = "host.one"

    def __post_init__(self) -> None:
        context = self.world.context(self.name)
        self.counting = Counting(MemoryStore(self.world.bucket))
        self.context: Context = replace(context, bucket=self.counting)  # type: ignore[arg-type]
        self.turns = LakeStages(self.context, self.world.serve, strict=True)

    def asks(self, stage: str) -> dict[str, int]:
        """The requests of one turn of a stage."""
        self.counting.asked.clear()
        self.turns.take(stage)
        return dict(self.counting.asked)


def name_of(number: int, part: int = 0, generation: int = 0, set: str = "demo") -> ShipmentName:
    version = version_of(1_600_000_000 + number)
    return ShipmentName.of("shop", "snapshot", set, version, 0, part, generation)


def plan_of(number: int, **more: Any) -> Plan:
    file = SourceFile(path=f"old/{number}.csv", length=1, modified=1)
    version = version_of(1_600_000_000 + number)
    snapshot = Snapshot(source=file.path, version=version, files=(file,))
    values: dict[str, Any] = {
        "lake": "shop", "set": "demo", "snapshot": snapshot, "snapshot_digest": "snapshot", "batch_refs": 3,
        "batch_bytes": 100, "batches": 2, "due": FIRST_DUE, "retry_delays": (1.0, 2.0, 3.0),
    }  # fmt: skip
    return Plan(**{**values, **more})


DATA = DataFile(key="shop/d/x", size=1, sha256="0" * 64, rows=1)
BATCH = Batch(data=DATA, refs=1, rows=1, rejected=0, cursor=Place(file=1))
END = End(batches=1, refs=1, rows=1, rejected=0)
SERVED = OutPartner(files=(), features=1, failures=0)
OUT = Out(
    fingerprint="ab" * 32, dim=4, at="20250101T000000Z", partners={"7": SERVED}, refs=1, features=1, failures=0,
    duplicates=0, reasons={},
)  # fmt: skip


def closed(world: World, number: int) -> None:
    """A shipment of long ago, with all its keys."""
    name = name_of(number)
    keys = [KEYS.plan(name), KEYS.batch(name, 0), KEYS.end(name), KEYS.out(name), KEYS.done(name)]
    keys += [f"shop/c/{name}/abababababab/t/00000/00001", KEYS.result(name, "ab" * 32, 0)]
    for key in [*keys, f"shop/d/{name}/nonce/00000.pb"]:
        world.bucket.write(key, b"not read")


def opened(world: World, name: ShipmentName, plan: Plan, **bodies: Any) -> None:
    """An open shipment: its hint, its plan and more bodies by what follows `c/S/`, slashes as two underscores."""
    world.bucket.write(KEYS.open_hint(plan.due, name), b"")
    world.bucket.write(KEYS.plan(name), plan.encode())
    for rest, body in bodies.items():
        world.bucket.write(f"{KEYS.shipment(name)}{rest.replace('__', '/')}", body.encode())


def world_with(tmp_path: Path, closed_shipments: int = 0) -> World:
    """A lake whose one file is delivered, and closed shipments of long ago."""
    world = World(tmp_path, settings_of())
    world.put_refs("a.csv", "partner_id,external_id,url\n7,a,http://shop.example/ok-1\n")
    world.hand.at += 10
    world.run()
    for number in range(closed_shipments):
        closed(world, number)
    return world


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("closed_shipments", [10, 10_000])
def test_an_idle_poll_is_two_lists_however_much_was_done_before(
    tmp_path: Path, stage: str, closed_shipments: int
) -> None:
    host = Host(world_with(tmp_path, closed_shipments))
    first = host.asks(stage)
    if stage == "ship":  # a new process looks once which snapshots are covered, from their oldest version on
        assert first.pop("list c/") == 1
        assert first.pop("list h/gone/") == 1
    assert first == {LIST_HINTS: 1, LIST_ALIVE: 1}
    assert host.asks(stage) == {LIST_HINTS: 1, LIST_ALIVE: 1}


def test_a_source_whose_version_went_back_is_named_in_each_poll_and_looked_into_once(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    content = b"partner_id,external_id,url\n7,a,http://shop.example/ok-2\n"
    world.lake.files["refs/a.csv"] = (content, world.hand.at - 86400, 99)
    host = Host(world)
    for _ in range(3):
        tally = host.turns.take("ship")
        assert (tally.problems, tally.tasks) == (1, 0)
    assert "its version went back" in world.said[-1]
    assert host.asks("ship") == {LIST_HINTS: 1, LIST_ALIVE: 1}
    world.put_refs("b.csv", "partner_id,external_id,url\n7,b,http://shop.example/ok-3\n")
    world.hand.at += 10
    tally = host.turns.take("ship")
    assert (tally.problems, tally.counts.refs) == (1, 1)


@pytest.mark.parametrize("stage", STAGES)
def test_a_thousand_retries_that_are_not_due_cost_nothing(tmp_path: Path, stage: str) -> None:
    world = world_with(tmp_path)
    for number in range(1000):
        due = version_of(world.hand.at + 3600 + number)
        plan = plan_of(number, kind="retry", due=due, parent=str(name_of(number)))
        opened(world, name_of(number, generation=1), plan, b__00000=BATCH, end=END)
    host = Host(world)
    host.asks(stage)
    assert host.asks(stage) == {LIST_HINTS: 1, LIST_ALIVE: 1}


def waiting_for_another_box(world: World, number: int, plan: Plan, end: End = END) -> None:
    """Its batch is being computed elsewhere."""
    attempt = Attempt(process="box.far", at="20250101T000000Z")
    opened(world, name_of(number), plan, b__00000=BATCH, end=end, abababababab__t__00000__00001=attempt)


def another_box_beats(world: World) -> None:
    context = world.context("box.far")
    beat(replace(context, process=Process(name="box.far", clock=world.hand.clock())))


@pytest.mark.parametrize("stage", STAGES)
def test_a_poll_reads_64_of_a_thousand_open_shipments_and_goes_round(tmp_path: Path, stage: str) -> None:
    world = world_with(tmp_path)
    for number in range(1000):
        waiting_for_another_box(world, number, plan_of(number))
    another_box_beats(world)
    host = Host(world)
    host.asks(stage)  # what a new process looks at once
    reached: set[str] = set()
    inner = host.counting.list

    def listed(prefix: str, **options: Any) -> Listing:
        if prefix.startswith("shop/c/2"):
            reached.add(prefix)
        return inner(prefix, **options)

    host.counting.list = listed  # type: ignore[method-assign]
    for _ in range(-(-1000 // SHIPMENTS_OF_A_POLL)):
        asked = host.asks(stage)
        lists = {what: count for what, count in asked.items() if what.startswith("list")}
        assert lists == {LIST_HINTS: 1, LIST_ALIVE: 1, "list c/S/": SHIPMENTS_OF_A_POLL}
        assert {what for what in asked if not what.startswith("list")} <= {
            "get c/S/plan", "get c/S/end", "get c/S/F/t/00000/00001",
        }  # fmt: skip
    assert len(reached) == 1000
    host.asks(stage)
    assert host.asks(stage) == {LIST_HINTS: 1, LIST_ALIVE: 1, "list c/S/": SHIPMENTS_OF_A_POLL}, "bodies are cached"


def _out(world: World, name: ShipmentName, plan: Plan, **more: Any) -> None:
    opened(world, name, plan, b__00000=BATCH, end=END, out=OUT, **more)


@pytest.mark.parametrize("stage", STAGES)
def test_parts_whose_next_part_is_planned_are_not_planned_again_in_each_poll(tmp_path: Path, stage: str) -> None:
    world = world_with(tmp_path)
    for number in range(10):
        waiting_for_another_box(world, number, plan_of(number), replace_end(next=Place(row=1)))
        following = ShipmentName.of("shop", "snapshot", "demo", name_of(number).version, 0, 1, 0)
        attempt = Attempt(process="box.far", at="20250101T000000Z")
        opened(world, following, plan_of(number, cursor=Place(row=1)), b__00000=BATCH, end=END,
               abababababab__t__00000__00001=attempt)  # fmt: skip
    another_box_beats(world)
    host = Host(world)
    host.asks(stage)
    assert host.asks(stage) == {LIST_HINTS: 1, LIST_ALIVE: 1, "list c/S/": 20}


def replace_end(**more: Any) -> End:
    return END.model_copy(update=more)


@pytest.mark.parametrize("stage", ["ship", "compute", "aggregate"])
def test_what_waits_for_its_delivery_costs_one_list_in_the_other_stages(tmp_path: Path, stage: str) -> None:
    world = world_with(tmp_path)
    for number in range(10):
        out = OUT.model_copy(update={"carried": DATA})
        opened(world, name_of(number), plan_of(number), b__00000=BATCH, end=END, out=out)
        child = ShipmentName.of("shop", "snapshot", "demo", name_of(number).version, 0, 0, 1)
        due = version_of(world.hand.at + 3600)
        opened(
            world, child, plan_of(number, kind="retry", due=due, parent=str(name_of(number))), b__00000=BATCH, end=END
        )
    host = Host(world)
    host.asks(stage)
    assert host.asks(stage) == {LIST_HINTS: 1, LIST_ALIVE: 1, "list c/S/": 10}


@pytest.mark.parametrize("stage", STAGES)
def test_of_batches_that_have_their_result_no_body_is_read(tmp_path: Path, stage: str) -> None:
    """128 batches of a shipment on the way: attempts are read while they may be live, and never again."""
    world = world_with(tmp_path)
    attempt = Attempt(process="box.far", at="20250101T000000Z")
    result = Result(kind="shard", refs=1, fingerprint="ab" * 32, process="box.far", attempt=1)
    bodies: dict[str, Any] = {"end": replace_end(batches=128, refs=128, rows=128)}
    for batch in range(128):
        bodies[f"b__{batch:05d}"] = BATCH
        bodies[f"abababababab__t__{batch:05d}__00001"] = attempt
        if batch:
            bodies[f"abababababab__r__{batch:05d}"] = result
    opened(world, name_of(1), plan_of(1, batches=128), **bodies)
    another_box_beats(world)
    asked = Host(world).asks(stage)
    for once in ("list c/", "list h/gone/"):
        asked.pop(once, None)
    assert asked == {
        LIST_HINTS: 1, LIST_ALIVE: 1, "list c/S/": 1,
        "get c/S/plan": 1, "get c/S/end": 1, "get c/S/F/t/00000/00001": 1,
    }  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_only_what_is_done_looks_at_its_child_and_its_next_part(tmp_path: Path, stage: str) -> None:
    """Delivered, its retries not planned yet because the box is down: one look at each, and nothing is put."""
    world = world_with(tmp_path)
    done = Done(folders=(), at="20250101T000000Z")
    for number in range(10):
        name = name_of(number, set="unknown")
        _out(world, name, plan_of(number, set="unknown"), done=done)
        world.bucket.write(KEYS.end(name), replace_end(next=Place(row=1)).encode())
        following = ShipmentName.of("shop", "snapshot", "unknown", name.version, 0, 1, 0)
        world.bucket.write(KEYS.plan(following), plan_of(number, set="unknown").encode())
    host = Host(world)
    asked = host.asks(stage)
    if stage == "compute":
        assert "delete h/open/" not in asked
    else:
        assert asked["delete h/open/"] == 10
        assert host.asks(stage) == {LIST_HINTS: 1, LIST_ALIVE: 1}
