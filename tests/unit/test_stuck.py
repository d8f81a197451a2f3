"""A single shipment that cannot go on is told, with age, cause and the way out; a deleted plan is written again."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.ledger.protocol import state_of
from pipeline.ledger.state import ShipmentState
from pipeline.operations.health.judge import Finding, Level, judge
from pipeline.operations.health.stuck import stuck
from pipeline.settings import Health
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
    assert "1 of its 1 batches not computed" in one.cause
    later = ShipmentName(name.version, name.round, 1, 0, name.hash)
    behind = replace(state, name=later)
    assert len(stuck(KEYS, [(state, times), (behind, times)], now, now - 60, 6.0, ())) == 1, "it waits for its turn"


def test_a_shipment_of_which_nothing_but_the_hint_stands_is_none() -> None:
    name = ShipmentName.parse("20260101T000000Z.000.00000.0-abcdefabcdef")
    assert stuck(KEYS, [(ShipmentState(name), {})], 1e9, None, 6.0, ()) == ()
