"""What is forgotten and what is kept, over a store in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cli.wiring.daily import prune_daily
from pipeline.clock import Clock
from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.operations.prune import Pruner
from pipeline.process.logs import Once
from pipeline.recent import Recent
from pipeline.stages import operator_requests
from pipeline.stages.loop import LakeStages
from tests.simulation.light import LIGHT
from tests.simulation.memory import MemoryStore
from tests.simulation.world import World, settings_of
from tests.unit.test_polls import PAGE, Counting, Host, closed, name_of
from tests.unit.test_rounds import held_name, held_world
from tests.unit.test_stages import HEADER, shipments, tables, url, world_of

DAY = 86400.0
KEYS = Keys("shop")


def after_days(world: World, days: float) -> int:
    world.hand.at += days * DAY
    return world.pruner().prune()


def remove_source(world: World) -> None:
    """The file goes, its folder stays."""
    del world.lake.files["refs/a.csv"]
    world.lake.folders.add("refs")


def data_keys(world: World) -> list[str]:
    return [key for key in world.bucket.files if key.startswith("shop/d/")]


def test_data_and_attempts_go_after_keep_days_and_the_ledger_stays(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(8)))
    world.run()
    before = dict(world.bucket.files)
    after_days(world, 13)
    assert world.bucket.files == before
    assert after_days(world, 2) > 0
    assert data_keys(world) == []
    kept = {key.split("/", 3)[3] for key in world.bucket.files if key.startswith("shop/c/")}
    f = world.fingerprints["demo"][:12]
    assert kept == {"plan", "b/00000", "b/00001", f"{f}/r/00000", f"{f}/r/00001", "end", "out", "done"}
    assert world.run() == 0, "what was shipped is not shipped again"
    assert after_days(world, 1) == 0


def test_nothing_of_an_open_shipment_goes(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('down')}", f"7,b,{url('ok')}")
    world.run(stages=("ship", "compute"))
    before = dict(world.bucket.files)
    assert after_days(world, 500) == len([key for key in before if "/h/alive/" in key])
    assert {k for k in before if "/h/alive/" not in k} == set(world.bucket.files)


def test_the_ledger_goes_once_its_source_is_gone_parents_before_children(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(8)), f"7,d,{url('down')}")
    world.run()
    for delay in (3700, 86500, 259300):
        world.hand.at += delay
        world.run()
    assert after_days(world, 20) > 0
    after_days(world, 500)
    assert any(key.endswith("/plan") for key in world.bucket.files), "the source still names the snapshot"
    remove_source(world)
    removed: list[str] = []
    world.bucket.watch = lambda what, key, content: removed.append(key)
    after_days(world, 1)
    plans = [ShipmentName.parse(key.split("/")[2]) for key in removed if key.endswith("/plan")]
    assert plans == sorted(plans)
    assert len(plans) >= 5
    for name in plans:
        mine = [key for key in removed if str(name) in key]
        assert mine[0] == KEYS.plan(name)
    assert world.bucket.files == {}


def test_a_shipment_whose_forgetting_was_interrupted_is_finished_off(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    after_days(world, 20)
    (name,) = shipments(world).values()
    del world.bucket.files[KEYS.plan(name)]
    remove_source(world)
    after_days(world, 500)
    assert world.bucket.files == {}


def test_held_data_stays_until_the_release_has_its_end(tmp_path: Path) -> None:
    world = held_world(tmp_path)
    name = held_name(world)
    after_days(world, 100)
    assert len(data_keys(world)) == 2, "the batch's refs, and the failures that say which rows are held"
    operator_requests.answer(world.context(), name, 0, "release")
    world.run()
    assert len([row for row in tables(world, "features") if "4-" in str(row["shipment"])]) == 3
    after_days(world, 20)
    assert data_keys(world) == []


def test_the_hint_of_a_held_batch_that_was_answered_goes(tmp_path: Path) -> None:
    """It may come back late: a put whose answer was lost."""
    world = held_world(tmp_path)
    name = held_name(world)
    operator_requests.answer(world.context(), name, 0, "drop")
    world.run()
    world.bucket.write(KEYS.held_hint(name, 0), b"")
    after_days(world, 0)
    assert [key for key in world.bucket.files if "/h/held/" in key] == []


def test_what_no_manifest_names_goes_after_a_week(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    (name,) = shipments(world).values()
    before = [*data_keys(world), "shop/d/somebody-elses/object"]
    world.bucket.write(f"shop/d/{name}/dead/00000.pb", b"of a process that was killed")
    world.bucket.write("shop/d/20200101T000000Z.000.00000.0-0123456789ab/x/00000.pb", b"of a plan never written")
    world.bucket.write("shop/d/somebody-elses/object", b"not ours")
    assert after_days(world, 6) == 0
    after_days(world, 2)
    assert data_keys(world) == before
    assert "shop/d/somebody-elses/object" in world.bucket.files


def test_hints_without_a_plan_go_and_lost_hints_come_back(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('down')}")
    world.run(stages=("ship",))
    (hint,) = [key for key in world.bucket.files if "/h/open/" in key]
    del world.bucket.files[hint]
    stray = "shop/h/open/00000000T000000Z/20200101T000000Z.000.00000.0-0123456789ab"
    world.bucket.write(stray, b"")
    after_days(world, 1)
    assert hint in world.bucket.files
    assert stray in world.bucket.files
    after_days(world, 8)
    assert stray not in world.bucket.files


def test_the_lake_keeps_its_folders_and_loses_leftovers(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    world.lake.write("features/_tmp/dead.1/7/features/x", b"half")
    world.lake.write("features/_index/tokens/dead", b"{}")
    before = world.delivered()
    after_days(world, 8)
    gone = set(before) - set(world.delivered())
    assert gone == {"features/_tmp/dead.1/7/features/x", "features/_index/tokens/dead", "features/_index/0000000001"}
    assert len(tables(world, "features")) == 1


def test_old_folders_go_only_where_lake_days_is_set_and_no_index_names_them(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", prune={"lake_days": 30})
    world.run()
    world.hand.at += 40 * DAY
    assert world.pruner().prune() > 0
    assert len(tables(world, "features")) == 1, "the newest version of a partner stays in the index"
    world.put_refs("a.csv", f"{HEADER}7,a,{url('ok', 2)}\n")
    world.hand.at += 60
    world.run()
    after_days(world, 1)
    assert [row["url"] for row in tables(world, "features")] == [url("ok", 2)]


def test_after_a_thousand_delivered_shipments_the_bucket_holds_their_ledger_and_nothing_else(tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.simulation.light import LIGHT

    world = World(tmp_path)
    world.forms = replace(LIGHT)
    for number in range(1000):
        world.put_refs(f"{number:04d}.csv", f"7,item{number},http://shop.example/ok-{number}\n")
        world.hand.at += 1
    world.run()
    assert len(shipments(world)) == 1000
    after_days(world, 15)
    rest = {key.split("/", 3)[3] for key in world.bucket.files}
    assert rest == {"plan", "b/00000", f"{world.fingerprints['demo'][:12]}/r/00000", "end", "out", "done"}
    assert len(world.bucket.files) == 6000
    for number in range(1000):
        del world.lake.files[f"refs/{number:04d}.csv"]
    world.lake.folders.add("refs")
    after_days(world, 500)
    assert world.bucket.files == {}


def old_records(world: World, number: int, days: float, *, data: bool) -> None:
    """Closed shipments of so many days ago; nothing of them can be read, so whoever asks for a body fails."""
    at = world.hand.at
    for one in range(number):
        closed(world, one)
        name = name_of(one)
        for key in [key for top in "cd" for key in world.bucket.under(f"shop/{top}/{name}/")]:
            content, _, serial = world.bucket.files[key]
            world.bucket.files[key] = (content, at - days * DAY, serial)
            if not data and ("/d/" in key or "/t/" in key):
                del world.bucket.files[key]


def asked_by_prune(world: World) -> tuple[int, int, int]:
    """Requests to the bucket and to the lake of one whole pass, pages of listings apart; the pages."""
    host = Host(world)
    lake = Counting(MemoryStore(world.lake))
    turns = LakeStages(replace(host.context, lake=lake), world.serve, strict=True)  # type: ignore[arg-type]
    assert Pruner(turns.context, turns.look).prune() == 0
    pages = sum(count for what, count in host.counting.asked.items() if what.startswith("list"))
    return sum(host.counting.asked.values()) - pages, sum(lake.asked.values()), pages


@pytest.mark.parametrize(("days", "data"), [(1.0, True), (5.0, True), (9.0, True), (20.0, False), (300.0, False)])
def test_with_nothing_to_forget_a_pass_asks_for_nothing_of_a_thousand_shipments(
    tmp_path: Path, days: float, data: bool
) -> None:
    asked = []
    for number in (10, 1000):
        world = World(tmp_path)
        world.lake.folders.add("refs")
        old_records(world, number, days, data=data)
        asked.append(asked_by_prune(world))
    (few, lake, pages), (many, more_lake, more_pages) = asked
    assert (many, more_lake) == (few, lake)
    assert more_pages - pages <= 1000 * 8 // PAGE + 1, "pages of the two listings alone"


def test_a_record_that_a_source_still_names_is_not_asked_for_however_old(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(20)))
    world.run()
    after_days(world, 20)
    world.hand.at += 500 * DAY
    asked, _, _ = asked_by_prune(world)
    assert asked == 0, "four parts and their names follow from the source's snapshot"


def test_a_pass_that_is_left_goes_on_behind_and_forgets_the_same(tmp_path: Path) -> None:
    rests = []
    for steps in (1_000_000, 1):
        (tmp_path / str(steps)).mkdir()
        world = world_of(tmp_path / str(steps), *(f"7,item{n},{url('ok', n)}" for n in range(20)))
        world.run()
        remove_source(world)
        world.bucket.write("shop/d/20200101T000000Z.000.00000.0-0123456789ab/x/00000.pb", b"of nobody")
        world.bucket.write("shop/c/junk", b"not ours")
        for days in (20, 500):
            world.hand.at += days * DAY
            after: str | None = ""
            parts = 0
            while after is not None:
                parts += 1
                left = iter(range(steps))
                turns = world.turns()
                turns.context.bucket.list("")
                pruned = Pruner(turns.context, turns.look).some(after, lambda left=left: next(left, None) is not None)  # type: ignore[misc]
                assert pruned.after is None or pruned.after >= after
                if pruned.after == after and not pruned.number:
                    raise AssertionError("it stands still")
                after = pruned.after
        assert (parts > 1) == (steps == 1)
        rests.append(sorted(world.bucket.files))
    assert rests[0] == rests[1] == ["shop/c/junk"]


def test_a_days_pass_takes_a_part_of_each_turn_and_begins_anew_a_day_later(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(20)), prune={"turn_seconds": 1.0})
    world.run()
    world.hand.at += 20 * DAY
    state = tmp_path / "state"
    state.mkdir()
    mark = state / "pruned.ship"
    looks = iter(range(10**9))
    clock = Clock(now=lambda: mark.stat().st_mtime if mark.exists() else 0.0, monotonic=lambda: next(looks) * 0.3)
    turns = 0
    while not mark.exists() or mark.read_text():
        prune_daily([world.turns()], ["ship"], state, clock, lambda: False)
        turns += 1
    assert turns > 3
    assert data_keys(world) == []
    began = mark.stat().st_mtime
    world.bucket.write("shop/h/alive/somebody", b"")
    world.hand.at += 2 * DAY
    prune_daily([world.turns()], ["ship"], state, clock, lambda: False)
    assert "shop/h/alive/somebody" in world.bucket.files, "today's is done"
    tomorrow = Clock(now=lambda: began + DAY + 1, monotonic=lambda: 0.0)
    prune_daily([world.turns()], ["ship"], state, tomorrow, lambda: False)
    assert "shop/h/alive/somebody" not in world.bucket.files
    mark.write_text('{"shop": "junk\\ud800", "another": 7}')
    prune_daily([world.turns()], ["ship"], state, tomorrow, lambda: False)


def sizes(thing: object, seen: set[int] | None = None) -> int:
    """Things held in the sets, dicts and lists of Hathi's own objects, as deep as they go."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type)) or callable(thing):
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        return len(thing) + sum(sizes(value, seen) for value in thing.values())
    if isinstance(thing, (set, frozenset, list, tuple)):
        return len(thing) + sum(sizes(value, seen) for value in thing)
    mine = type(thing).__module__.startswith("pipeline")
    return sum(sizes(value, seen) for value in vars(thing).values()) if mine and hasattr(thing, "__dict__") else 0


def test_what_a_daemon_remembers_does_not_grow_with_what_goes_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ledger.protocol.CACHED_BODIES", 60)
    world = World(tmp_path, settings_of(ship={"batch_refs": 3, "batches_per_shipment": 2, "open_shipments": 1000}))
    world.forms = LIGHT
    turns = world.turns()
    object.__setattr__(turns.context, "seen", Recent(10))
    grown = []
    for day in range(8):
        for number in range(30):
            kind = "down" if number % 4 == 0 else "ok"
            world.put_refs(f"{day}-{number:04d}.csv", f"7,item{number},http://shop.example/{kind}-{day}{number}\n")
        world.hand.at += 60
        world.run(turns)
        for number in range(30):
            del world.lake.files[f"refs/{day}-{number:04d}.csv"]
        world.lake.folders.add("refs")
        turns.take("ship")
        grown.append(sizes(turns))
    assert len(shipments(world)) >= 240
    assert max(grown[4:]) <= max(grown[:4]) * 1.05, grown


def test_what_is_remembered_is_the_last_of_it() -> None:
    few: Recent[int] = Recent(3)
    for number in range(5):
        few.add(number)
        few.add(0)
    assert [number in few for number in range(5)] == [True, False, False, True, True], "what is asked for stays"
    few.discard(4)
    assert 4 not in few
    once = Once()
    for number in range(3 * Once.MOST):
        once.say("ship", str(number), "text")
    assert len(once._said) == Once.MOST
