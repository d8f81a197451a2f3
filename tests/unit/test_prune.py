"""What is forgotten and what is kept, over a store in memory."""

from __future__ import annotations

from pathlib import Path

from pipeline.layout import Keys, ShipmentName
from pipeline.stages import rounds
from tests.simulation.world import World
from tests.unit.test_rounds import held_name, held_world
from tests.unit.test_stages import HEADER, shipments, tables, url, world_of

DAY = 86400.0
KEYS = Keys("shop")


def after_days(world: World, days: float) -> int:
    world.hand.at += days * DAY
    return world.turns().prune()


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
    rounds.answer(world.context(), name, 0, "release")
    world.run()
    assert len([row for row in tables(world, "features") if "4-" in str(row["shipment"])]) == 3
    after_days(world, 20)
    assert data_keys(world) == []


def test_the_hint_of_a_held_batch_that_was_answered_goes(tmp_path: Path) -> None:
    """It may come back late: a put whose answer was lost."""
    world = held_world(tmp_path)
    name = held_name(world)
    rounds.answer(world.context(), name, 0, "drop")
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
    assert world.turns().prune() > 0
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
