"""Held batches, shipping again and back-fills: each a shipment of its own, and the greatest name wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PermanentError
from pipeline.ledger.bodies import body_of
from pipeline.ledger.layout import Keys, ShipmentName, Task
from pipeline.ledger.manifest import End, Out, Plan
from pipeline.ledger.protocol import claim
from pipeline.stages import operator_requests
from tests.simulation.world import World
from tests.unit.test_stages import outs, shipments, tables, url, world_of

KEYS = Keys("shop")


def held_world(tmp_path: Path) -> World:
    """One batch of three was given up; the other was computed."""
    world = world_of(
        tmp_path,
        *(f"7,item{n},{url('ok', n)}" for n in range(6)),
        f"7,item1,{url('ok', 100)}",
        compute={"strikes": 1, "lost": 1, "strikes_alone": 1, "lost_alone": 1},
    )
    turns = world.turns()
    turns.take("ship")
    (name, *_) = sorted(shipments(world).values())
    fingerprint = world.fingerprints["demo"]
    from pipeline.ledger.layout import Task
    from pipeline.ledger.protocol import claim

    for number in (1, 2):
        dead = world.context(f"dead.{number}")
        assert claim(dead, name, Task.batch(fingerprint, 0), number, alone=number == 2)
    world.run(turns)
    return world


def held_name(world: World) -> ShipmentName:
    (hint,) = [key for key in world.bucket.files if "/h/held/" in key]
    return ShipmentName.parse(hint.rpartition("/")[2].rpartition(".")[0])


def reasons(world: World) -> list[tuple[object, object]]:
    return [(row["external_id"], row["reason"]) for row in tables(world, "failures")]


def test_a_batch_that_is_given_up_is_delivered_as_held_and_the_rest_goes_on(tmp_path: Path) -> None:
    world = held_world(tmp_path)
    assert sorted(reasons(world)) == [("item0", "held"), ("item1", "held"), ("item2", "held")]
    assert {row["external_id"] for row in tables(world, "features")} == {"item1", "item3", "item4", "item5"}
    (one,) = operator_requests.held(world.context())
    assert (one.batch, one.refs, one.answered) == (0, 3, "")
    assert [key for key in world.bucket.files if "/h/open/" in key] == []


def test_a_release_computes_just_the_held_rows_and_two_people_agree(tmp_path: Path) -> None:
    world = held_world(tmp_path)
    name = held_name(world)
    child = operator_requests.answer(world.context("a"), name, 0, "release")
    assert operator_requests.answer(world.context("b"), name, 0, "release") == child
    with pytest.raises(PermanentError, match="was answered before: release"):
        operator_requests.answer(world.context("c"), name, 0, "drop")
    assert child.generation == 4
    world.run()
    end = body_of(End, world.bucket.files[KEYS.end(child)][0], "")
    assert end.refs == 3
    got = {row["external_id"]: row["url"] for row in tables(world, "features") if row["shipment"] == str(child)}
    assert got == {"item0": url("ok", 0), "item1": url("ok", 1), "item2": url("ok", 2)}
    newest: dict[object, tuple[str, object]] = {}
    for row in tables(world, "features"):
        newest[row["external_id"]] = max(newest.get(row["external_id"], ("", "")), (str(row["shipment"]), row["url"]))
    assert newest["item1"][1] == url("ok", 100), "the newer row of another part is not outranked"
    assert [key for key in world.bucket.files if "/h/" in key] == []


def test_a_drop_is_a_release_whose_end_is_void(tmp_path: Path) -> None:
    world = held_world(tmp_path)
    child = operator_requests.answer(world.context(), held_name(world), 0, "drop")
    world.run()
    assert body_of(End, world.bucket.files[KEYS.end(child)][0], "").void == "dropped by an operator"
    assert [key for key in world.bucket.files if "/h/" in key] == []
    assert list(operator_requests.held(world.context())) == []


def test_only_what_is_held_can_be_answered(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    (name,) = shipments(world).values()
    with pytest.raises(PermanentError, match="is not held"):
        operator_requests.answer(world.context(), name, 0, "release")


@pytest.mark.parametrize("wanted", ["7", "refs/a.csv", "the shipment"])
def test_a_snapshot_is_shipped_again_in_a_new_round(tmp_path: Path, wanted: str) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(8)))
    world.run()
    before = dict(world.asked)
    if wanted == "the shipment":
        wanted = str(min(shipments(world).values()))
    ((name, plan),) = operator_requests.newest(world.context(), wanted, ["demo"])
    child = operator_requests.again(world.context(), name, plan)
    assert (child.version, child.round) == (name.version, 1)
    world.run()
    assert world.asked == {u: n + 1 for u, n in before.items()}
    assert len(tables(world, "features")) == 16
    assert world.run() == 0


def test_nothing_is_shipped_again_by_a_name_that_nobody_knows(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    assert operator_requests.newest(world.context(), "8", ["demo"]) == []


def test_a_back_fill_copies_from_the_bucket_and_serves_the_new_net(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(8)))
    world.run()
    world.fingerprints["demo"] = "ef" * 32
    del world.lake.files["refs/a.csv"]  # the source is not read again
    for name, plan in operator_requests.newest(world.context(), "", ["demo"]):
        operator_requests.again(world.context(), name, plan, backfill=True)
    world.run()
    assert sorted({(name.round, name.part) for name in shipments(world).values()}) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    by_round = {out.fingerprint for out in outs(world)}
    assert by_round == {"ab" * 32, "ef" * 32}
    assert len(tables(world, "features")) == 16


def test_a_back_fill_reads_the_source_once_the_bucket_has_forgotten(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(8)))
    world.run()
    world.hand.at += 20 * 86400
    world.pruner().prune()
    ((name, plan),) = operator_requests.newest(world.context(), "", ["demo"])
    child = operator_requests.again(world.context(), name, plan, backfill=True)
    assert body_of(Plan, world.bucket.files[KEYS.plan(child)][0], "").kind == "again"
    world.run()
    assert len(tables(world, "features")) == 16
    assert all(isinstance(out, Out) for out in outs(world))


def test_a_release_of_a_batch_whose_shipment_became_void_is_void_too(tmp_path: Path) -> None:
    """The simulation found it: the parent never gets its `out`, and the release would wait for ever."""
    from pipeline.ledger.protocol import commit

    world = held_world(tmp_path)
    name = held_name(world)
    for key in (KEYS.out(name), KEYS.done(name), KEYS.end(name)):
        del world.bucket.files[key]
    commit(world.context(), KEYS.end(name), End(batches=0, refs=0, rows=0, rejected=0, void="a file is gone"))
    child = operator_requests.answer(world.context(), name, 0, "release")
    world.run()
    assert body_of(End, world.bucket.files[KEYS.end(child)][0], "").void == "the shipment that it comes from is void"
    assert [key for key in world.bucket.files if "/h/" in key] == []


@pytest.mark.parametrize("trial", range(3))
def test_of_two_releases_that_hold_one_item_the_newer_row_wins_whatever_their_names(tmp_path: Path, trial: int) -> None:
    rows = [f"7,item{n},{url('ok', n)}" for n in range(6)]
    rows[0] = f"7,other{trial},{url('ok', 0)}"  # another snapshot, and so other names
    rows[4] = f"7,item1,{url('ok', 100)}"
    limits = {"strikes": 1, "lost": 1, "strikes_alone": 1, "lost_alone": 1}
    world = world_of(tmp_path, *rows, compute=limits)
    turns = world.turns()
    turns.take("ship")
    (name, *_) = sorted(shipments(world).values())
    for batch in (0, 1):
        for number in (1, 2):
            task = Task.batch(world.fingerprints["demo"], batch)
            assert claim(world.context(f"dead.{batch}.{number}"), name, task, number, alone=number == 2)
    world.run(turns)
    held = list(operator_requests.held(world.context()))
    assert [one.batch for one in held] == [0, 1]
    for one in held:
        operator_requests.answer(world.context(), one.name, one.batch, "release")
    world.run()
    assert [row["url"] for row in tables(world, "features") if row["external_id"] == "item1"] == [url("ok", 100)]
