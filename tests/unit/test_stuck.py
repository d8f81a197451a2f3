"""A single shipment that cannot go on is told, with age, cause and the way out; a deleted plan is written again."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.app import ship_again
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.layout import Keys, ShipmentName, Task
from pipeline.ledger.protocol import beat, claim, state_of
from pipeline.ledger.row_counts import NO_ROWS, RowCounts
from pipeline.ledger.state import ShipmentState
from pipeline.operations.health.judge import Finding, Level, judge
from pipeline.operations.health.stuck import stuck
from pipeline.settings import Health
from pipeline.stages import operator_requests, retries
from tests.simulation.folders import HEADER, Folders, url, world_of
from tests.unit.test_health import look_of

HOUR = 3600.0
KEYS = Keys("shop")


def found(world: Folders, tmp_path: Path) -> list[Finding]:
    facts = look_of(world, tmp_path)(lambda key: 0.0)
    return [one for one in judge(facts, Health(disk_percent=100)) if one.key.startswith("stuck")]


def gone(world: Folders, pattern: str) -> str:
    """Somebody deletes an object of the bucket; its key."""
    path = world.in_bucket(pattern)
    path.unlink()
    return str(path.relative_to(world.top / "bucket"))


def others_get_on(world: Folders) -> None:
    """Another list comes and is delivered."""
    world.put_refs("b.csv", HEADER + f"8,x,{url('ok', 99)}\n")
    world.hand.at += 10
    world.run()


def test_a_deleted_plan_is_told_at_once_and_repair_writes_it_again_with_nothing_lost(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(7)))
    world.turns().take("ship")
    assert found(world, tmp_path) == []
    while list((world.top / "bucket").glob("shop/c/*/plan")):
        gone(world, "shop/c/*/plan")
    assert world.run() == 0, "nobody can go on with it"
    (one,) = found(world, tmp_path)
    assert one.level is Level.ALERT
    assert "its plan is gone" in one.text
    assert "verify --repair" in one.hint
    assert [what for what in world.mend() if what.startswith("written again")]
    world.run()
    assert found(world, tmp_path) == []
    assert [f.kind for f in world.look() if f.level == "damage"] == []
    assert sum(int(line.split()[0]) for line in _rows(world)) == 7


def _rows(world: Folders) -> list[str]:
    files = (world.top / "lake" / "features").glob("*/*/cnn_features.txt.gz")
    return [f"{len(gzip.decompress(path.read_bytes()).splitlines())} {path}" for path in files]


def test_the_plan_of_a_retry_follows_from_its_parent(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('later', 1)}", f"7,b,{url('ok', 1)}")
    world.run()
    (plan,) = [path for path in (world.top / "bucket").glob("shop/c/*/plan") if ".1-" in path.parent.name]
    before = plan.read_bytes()
    plan.unlink()
    assert [what for what in world.mend() if what.startswith("written again")]
    old, new = json.loads(before), json.loads(plan.read_bytes())
    assert {**old, "nonce": ""} == {**new, "nonce": ""}


def test_a_plan_that_nothing_tells_of_stays_lost_and_is_told(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    gone(world, "shop/c/*/plan")
    world.put_refs("a.csv", HEADER + f"7,other,{url('ok', 2)}\n")
    assert [what for what in world.mend() if what.startswith("written again")] == []
    (one,) = found(world, tmp_path)
    assert "hathi ship --close" in one.hint


def test_repair_leaves_what_is_whole_and_what_prune_is_at(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    assert world.mend() == []
    gone(world, "shop/c/*/plan")
    world.hand.at += 500 * 86400.0
    assert [what for what in world.mend() if what.startswith("written again")] == []


def test_a_batch_that_is_gone_is_told_with_its_key_however_well_others_do(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(6)))
    world.turns().take("ship")
    key = gone(world, "shop/c/*/b/00000")
    others_get_on(world)
    (one,) = found(world, tmp_path)
    assert one.level is Level.ALERT
    assert "its batch 0 is gone" in one.text
    assert key in one.hint
    assert "hathi ship --close" in one.hint


@pytest.mark.parametrize(
    ("stage", "pattern"), [("aggregate", "shop/d/*/*/*.features.parquet"), ("deliver", "shop/d/*/*/7/*.gz")]
)
def test_data_that_is_gone_under_a_shipment_is_told_with_the_stage_that_fails(
    tmp_path: Path, stage: str, pattern: str
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    turns = world.turns()
    for before in ("ship", "compute", "aggregate")[: 2 if stage == "aggregate" else 3]:
        turns.take(before)
    gone(world, pattern)
    for _ in range(12):
        world.hand.at += 300
        world.turns().take(stage)
    (one,) = found(world, tmp_path)
    assert f"{stage} failed" in one.text
    others_get_on(world)
    assert len(found(world, tmp_path)) == 1, "however well others do"


@pytest.mark.parametrize(
    ("stages", "pattern", "fails"),
    [
        (("ship", "compute"), "shop/d/*/*/00000.features.parquet", "aggregate"),
        (("ship", "compute", "aggregate"), "shop/d/*/*/7/features/*", "deliver"),
    ],
)
def test_who_meets_data_that_is_gone_says_the_way_out_at_once(
    tmp_path: Path, stages: tuple[str, ...], pattern: str, fails: str
) -> None:
    world = world_of(tmp_path, f"7,i,{url('ok', 1)}")
    for stage in stages:
        world.turns().take(stage)
    key = gone(world, pattern)
    world.said.clear()
    world.turns().take(fails)
    said = "\n".join(world.said)
    assert f"{key} is gone, and its shipment needs it" in said
    assert f"`hathi ship --close {key.split('/')[2]}` ends the shipment without features" in said


def test_a_batch_that_nobody_computes_is_told_where_others_get_on_and_a_queue_is_none(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    world.hand.at += 7 * HOUR
    assert found(world, tmp_path) == [], "nothing moves at all: that is told as such"
    name = ShipmentName.parse(world.in_bucket("shop/c/*/plan").parent.name)
    context = world.context()
    state = state_of(context, name)
    times = {KEYS.plan(name): world.hand.at - 7 * HOUR}
    now = world.hand.at
    (one,) = stuck(KEYS, [(state, times)], now, now - 60, 6.0, ())
    assert "compute has not finished 1 of 1 batch" in one.cause
    later = ShipmentName(name.version, name.round, 1, 0, name.hash)
    behind = replace(state, name=later)
    assert len(stuck(KEYS, [(state, times), (behind, times)], now, now - 60, 6.0, ())) == 1, "it waits for its turn"


def test_a_shipment_of_which_nothing_but_the_hint_stands_is_none() -> None:
    name = ShipmentName.parse("20260101T000000Z.000.00000.0-abcdefabcdef")
    assert stuck(KEYS, [(ShipmentState(name), {})], 1e9, None, 6.0, ()) == ()


# ---- the way out


def only_shipment(world: Folders) -> str:
    (plan,) = (world.top / "bucket").glob("shop/c/*/plan")
    return plan.parent.name


def close(world: Folders, shipment: str) -> operator_requests.Closed:
    done = ship_again.close([world.context("gate.operator")], shipment)
    world.hand.at += 10
    return done


def is_well(world: Folders, tmp_path: Path) -> None:
    """Nothing is open, nothing is damaged, and health has nothing to say of it."""
    world.run()
    assert found(world, tmp_path) == []
    assert [f for f in world.look() if f.level == "damage"] == []
    assert list((world.top / "bucket" / "shop/h/open").glob("*/*")) == []


def test_a_shipment_whose_batch_is_gone_is_closed_and_its_items_are_delivered_all_the_same(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(3)))
    world.turns().take("ship")
    name = only_shipment(world)
    gone(world, "shop/c/*/b/00000")
    done = close(world, name)
    assert (done.refs, str(done.again).split(".")[1]) == (3, "001")
    is_well(world, tmp_path)
    assert sum(int(line.split()[0]) for line in _rows(world)) == 3
    with pytest.raises(PermanentError, match="closed already"):
        close(world, name)


def test_a_shipment_whose_data_is_gone_before_delivery_is_closed(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,b,{url('down', 1)}")
    turns = world.turns()
    for stage in ("ship", "compute", "aggregate"):
        turns.take(stage)
    name = min(path.parent.name for path in (world.top / "bucket").glob("shop/c/*/plan"))
    gone(world, "shop/d/*/*/7/*.gz")
    close(world, name)
    world.run()
    assert found(world, tmp_path) == []
    assert [f for f in world.look() if f.level == "damage"] == []
    assert not [line for line in _rows(world) if name in line], "nothing of it is delivered"
    assert sum(int(line.split()[0]) for line in _rows(world)) == 1


def test_a_delivered_shipment_whose_retry_cannot_be_planned_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,b,{url('down', 1)}")
    turns = world.turns()
    turns.take("ship")
    turns.take("compute")
    with monkeypatch.context() as patch:
        patch.setattr(retries, "retry", lambda context, state: None)
        turns.take("aggregate")
        turns.take("deliver")
    name = only_shipment(world)
    gone(world, "shop/d/*/*/carried.pb")
    world.turns().take("aggregate")
    assert world.context().bucket.get(f"shop/c/{name}/done")
    close(world, name)
    world.run(stages=["ship", "aggregate", "deliver"])
    assert not [f for f in world.look() if f.level == "damage"]
    assert not list((world.top / "bucket").glob(f"shop/h/open/*/{name}"))


def test_what_goes_on_is_not_closed(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    name = only_shipment(world)
    box = world.context("box.two")
    beat(box)
    claim(box, ShipmentName.parse(name), Task.batch("ab" * 32, 0), 1)
    with pytest.raises(PermanentError, match="being worked on"):
        close(world, name)
    with pytest.raises(ConfigError, match="no shipment"):
        close(world, name[:-1] + ("0" if name[-1] != "0" else "1"))
    with pytest.raises(ConfigError, match="not a shipment"):
        close(world, "yesterday's")


def test_who_is_interrupted_closes_again_and_ships_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    name = only_shipment(world)
    gone(world, "shop/c/*/b/00000")

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(operator_requests, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            close(world, name)
    close(world, name)
    assert len(list((world.top / "bucket").glob("shop/c/*/plan"))) == 2
    is_well(world, tmp_path)


def test_why_and_the_report_tell_what_became_of_a_closed_shipment(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    turns = world.turns()
    for stage in ("ship", "compute", "aggregate"):
        turns.take(stage)
    name = only_shipment(world)
    close(world, name)
    state = state_of(world.context(), ShipmentName.parse(name))
    assert state.given_up
    assert state.done is not None
    assert state.done.void == "closed by an operator: it could not go on; without features: 1 ref"
    assert RowCounts.of(state) == NO_ROWS
