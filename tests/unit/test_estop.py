"""ESTOP in the bucket: seen by each poll and beat, at no request more, and taken back by a person alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.app import estop
from pipeline.clock import Clock
from pipeline.errors import Stopped, TemporaryError
from pipeline.ledger.layout import Keys
from pipeline.ledger.protocol import Context, alive, beat, poll
from pipeline.process.stop import Stop
from pipeline.service.halting import heeded
from pipeline.service.keys import ESTOP as SERVICE_ESTOP
from pipeline.stages.loop import LakeStages
from pipeline.stores.store import Store
from tests.servers.demand import until
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.world import STAGES, World
from tests.unit.test_polls import LIST_ALIVE, LIST_HINTS, Counting
from tests.unit.test_prune import after_days
from tests.unit.test_stages import url, world_of

KEYS = Keys("shop")


def stopping_host(world: World) -> tuple[Context, Stop, list[str]]:
    """A process whose Stop hears of the bucket's ESTOP, as `cli.wiring` connects them; what it says."""
    said: list[str] = []
    stop = Stop(None, Clock(), said.append)
    return replace(world.context("box.one"), stopping=stop, engage=stop.engage), stop, said


@pytest.mark.parametrize("stage", STAGES)
def test_a_turn_of_each_stage_stops_at_its_poll_and_the_process_ends_with_4(tmp_path: Path, stage: str) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    context, stop, said = stopping_host(world)
    estop.engage_remote(estop.of_lakes([context]))
    before = dict(world.bucket.files)
    tally = LakeStages(context, world.serve, strict=True).take(stage)
    assert (tally.stopped, tally.tasks) == (True, 0)
    assert world.bucket.files == before, "nothing is begun"
    assert (stop(), stop.exit_code) == (True, 4)
    assert said == ["ESTOP engaged in the bucket: shop/h/alive/ESTOP; hathi start --remote deletes it"]
    estop.lift_remote(estop.of_lakes([context]))
    assert estop.standing_remote(estop.of_lakes([context])) == []
    world.run()
    assert world.delivered(), "the next start takes up what was open"


def test_looking_for_it_costs_no_request(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    context, _, _ = stopping_host(world)
    counting = Counting(MemoryStore(world.bucket))
    poll(replace(context, bucket=counting))  # type: ignore[arg-type]
    assert dict(counting.asked) == {LIST_HINTS: 1, LIST_ALIVE: 1}


def test_a_beat_sees_it_while_a_turn_goes_on_for_hours(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    context, stop, said = stopping_host(world)
    beat(context)
    assert not stop()
    estop.engage_remote(estop.of_lakes([context]))
    beat(context)
    beat(context)
    assert stop()
    assert len(said) == 1, "it is said once"


def test_it_is_no_process_grows_no_older_and_prune_leaves_it(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    context, _, _ = stopping_host(world)
    estop.engage_remote(estop.of_lakes([context]))
    since = world.hand.at
    assert alive(context, world.hand.at) == frozenset()
    after_days(world, 400)
    assert [(one.place, one.since) for one in estop.standing_remote(estop.of_lakes([context]))] == [
        (f"{context.settings.bucket.url}/shop/h/alive/ESTOP", pytest.approx(since, abs=60))
    ]
    with pytest.raises(Stopped, match="ESTOP stands in the bucket"):
        poll(context)


class Unreachable:
    """A bucket that does not answer."""

    def list(self, *_: Any, **__: Any) -> Iterator[Any]:
        raise TemporaryError("the bucket cannot be reached", "no answer", "look at the network")


def test_a_bucket_that_cannot_be_reached_is_no_estop(tmp_path: Path) -> None:
    context, stop, said = stopping_host(world_of(tmp_path))
    deaf = replace(context, bucket=Unreachable())  # type: ignore[arg-type]
    with pytest.raises(TemporaryError):
        LakeStages(deaf, lambda *asked: None, strict=True).take("ship")  # type: ignore[arg-type, return-value]
    assert (stop(), said) == (False, [])


def test_the_services_own_is_seen_by_a_program_that_runs_also_after_the_bucket_was_away() -> None:
    disk, said, asked = Disk(time.time), list[str](), list[int]()
    stop = Stop(None, Clock(), said.append)

    class Away(MemoryStore):
        def list(self, *words: Any, **more: Any) -> Any:
            asked.append(1)
            if len(asked) < 3:
                raise TemporaryError("the bucket cannot be reached", "no answer", "look at the network")
            return super().list(*words, **more)

    with heeded(cast("Store", Away(disk)), stop, said.append, seconds=0.001):
        until(lambda: len(asked) > 3, "it is looked for again and again")
        assert not stop()
        estop.engage_remote([estop.Place(cast("Store", MemoryStore(disk)), "memory:", SERVICE_ESTOP)])
        until(stop, "it is seen")
    assert stop.exit_code == 4
    assert said == [
        "it cannot be seen whether ESTOP stands in the bucket: "
        "the bucket cannot be reached | no answer | look at the network",
        "the bucket is looked at for ESTOP again; this is over: the bucket cannot be reached",
        "ESTOP engaged in the bucket: s/ESTOP; hathi start --remote deletes it",
    ]


def test_each_lake_has_its_own_and_the_file_stands_beside_them(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    context, _, _ = stopping_host(world)
    other = replace(context, lake_name="other")
    estop.engage_remote(estop.of_lakes([other]))
    poll(context)
    with pytest.raises(Stopped):
        poll(other)
    state = tmp_path / "new" / "state"
    assert estop.standing_here(state) == []
    place = estop.engage_here(state)
    assert [(one.place, one.remote) for one in estop.standing_here(state)] == [(place, False)]
    estop.lift_here(state)
    estop.lift_here(state)
    assert estop.standing_here(state) == []
    assert [one.remote for one in estop.standing_remote(estop.of_lakes([context, other]))] == [True]
