"""A document of one training is changed to something nasty; then everybody looks at it, and another one is trained."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import trainings
from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.layout import JobName, Keys
from pipeline.ledger.trainings import JobSpec
from pipeline.operations.prune.deletion import perform as forget
from pipeline.operations.prune.trainings import plan_trainings
from pipeline.training import jobs
from pipeline.training.state import Finished
from pipeline.training.turn import turn
from tests.fuzz.bodies import RAW, VALUES
from tests.simulation.toy_training import ToyTrainer
from tests.simulation.world import World

VICTIM = JobSpec(model="victim", solver="", max_iter=12, every=4, seed=1)
OTHER = JobSpec(model="other", solver="", max_iter=8, every=4, seed=2)
KEYS = Keys("shop").job(VICTIM.name())
DOCUMENTS = ("spec", "t/00001", "t/00001.x", "s/0000000004", "s/0000000008", "out", "stop")
EACH = 70
TEST = '{"step": 4, "kind": "test", "values": %s}'
ROWS = [*(TEST % values for values in ('[1]', '{"a": []}', '{"test/accuracy": 1e999}', "1", "null")),
        '{"step": 4, "kind": 1}', '{"step": true}', "[" * 100_000, "1"]  # fmt: skip
"""Of a snapshot that comes from iteration 4, which was tested."""


def world_of(spill: Path) -> World:
    """The victim was trained to a parting at 9 by one box, and ended by another; a person ended it as well."""
    world = World(spill)
    jobs.submit(world.context(), VICTIM)
    asked = iter(range(11))  # two of them by the turn itself
    box = replace(world.context(), stopping=lambda: next(asked, None) is None)
    with pytest.raises(Stopped):
        turn(box, ToyTrainer, lambda name, error: None)
    return world


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    if here:
        yield here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in items:
        yield from paths(one, (*here, name))


def changed(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> bytes:
    found = deepcopy(body)
    place: Any = found
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return json.dumps(found).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_value_of_any_document_stops_another_training_or_raises_what_is_not_ours(
    document: str, tmp_path: Path
) -> None:
    chance = random.Random(document)
    world = world_of(tmp_path)
    if document in ("out", "stop"):
        turn(world.context("box.two"), ToyTrainer, lambda name, error: None)
        world.bucket.write(KEYS.stop, b'{"format":1,"nonce":"1","by":"ann","at":"20261120T185900Z","why":""}\n')
    whole = dict(world.bucket.files)
    key = f"{KEYS.top}{document}"
    body = json.loads(whole[key][0])
    places = list(paths(body))
    wrong = [changed(body, chance.choice(places), chance.choice(VALUES)) for _ in range(EACH)]
    if "rows" in body:
        wrong += [changed(body, ("rows",), [row]) for row in ROWS]
    for content in (*wrong, *RAW[:12]):
        world.bucket.files.clear()
        world.bucket.files.update(whole)
        world.bucket.write(key, content)
        everybody_looks(world, content)


def everybody_looks(world: World, content: bytes) -> None:
    failed: list[PipelineError] = []
    jobs.submit(world.context(), OTHER)

    def note(name: JobName, error: PipelineError) -> None:
        assert name == VICTIM.name(), (error, content)
        failed.append(error)

    for number in range(2):
        world.hand.at += 100.0
        turn(world.context(f"box.{number}"), ToyTrainer, note)
    context = world.context("box.look")
    assert jobs.look(context, OTHER.name()).standing(frozenset()) == Finished(8), content
    for one in trainings.trainings([context]):
        trainings.as_tree(one)
    seen = trainings.training([context], str(VICTIM.name()))
    json.dumps(trainings.as_tree(seen, details=True))
    trainings.rows(seen)
    world.hand.at += 30 * 86400.0
    for deletion in list(plan_trainings(context, world.hand.at)):
        forget(context, deletion)
    if seen.job.unreadable:
        assert any(True for _ in world.bucket.under(KEYS.data)), content
