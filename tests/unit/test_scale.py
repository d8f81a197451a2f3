"""docs/scale.md says what a batch and a shipment cost in requests; here it is counted, stage by stage."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.stages.loop import LakeStages
from tests.simulation.memory import MemoryStore
from tests.simulation.world import STAGES, World, settings_of
from tests.unit.test_polls import Counting

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
BATCH_REFS = 3


def requests(folder: Path, batches: int) -> dict[str, Counter[str]]:
    """What one shipment of so many batches of one partner asks of bucket and lake: by stage, of each store."""
    folder.mkdir()
    world = World(folder, settings_of(ship={"batch_refs": BATCH_REFS, "batches_per_shipment": 64}))
    rows = [f"7,{n},http://shop.example/ok-{n}" for n in range(batches * BATCH_REFS)]
    world.put_refs("a.csv", "\n".join(["partner_id,item_id,url", *rows]))
    world.hand.at += 10
    found: dict[str, Counter[str]] = {}
    for stage in STAGES:  # each in a process of its own, as a gateway and a box have them
        context = world.context(f"host.{stage}")
        bucket, lake = Counting(MemoryStore(world.bucket)), Counting(MemoryStore(world.lake))
        turns = LakeStages(replace(context, bucket=bucket, lake=lake), world.serve, strict=True)  # type: ignore[arg-type]
        assert turns.take(stage).worked
        found[stage] = Counter({"bucket": bucket.asked.total(), "lake": lake.asked.total()})
    return found


def documented() -> dict[str, tuple[int, int, int, int]]:
    """(bucket per batch, bucket per shipment, lake per batch, lake per shipment) of each stage's row."""
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", PAGE.read_text(), re.M)
    return {stage: (int(a), int(b), int(c), int(d)) for stage, a, b, c, d in rows}


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_batch_and_a_shipment_ask_of_the_stores_is_what_the_page_says(tmp_path: Path, stage: str) -> None:
    few, many = requests(tmp_path / "few", 4)[stage], requests(tmp_path / "many", 12)[stage]
    batch, shipment = {}, {}
    for store in ("bucket", "lake"):
        batch[store], rest = divmod(many[store] - few[store], 8)
        assert rest == 0, "the cost of a batch is a whole number"
        shipment[store] = few[store] - 4 * batch[store]
    assert documented()[stage] == (batch["bucket"], shipment["bucket"], batch["lake"], shipment["lake"])
