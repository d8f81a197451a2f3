"""How many workers there should be: the numbers, and how they go down."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import Clock
from pipeline.service import scaling
from pipeline.service.scaling import Bounds, Load, Queue, Rules, Steady, Wanted, steadied, wanted
from pipeline.service.words import Slot
from pipeline.service.work.telling import Teller
from pipeline.settings.service import Service, ServiceScaling, ServiceWorkers

WIDE = Bounds(0, 100)


def test_so_many_workers_that_what_is_queued_begins_in_time() -> None:
    load = Load((Queue(10, 600.0, 50),), running=3)
    assert wanted(load, WIDE, 60.0) == 13
    assert wanted(load, WIDE, 120.0) == 8
    assert wanted(load, Bounds(0, 6), 60.0) == 6
    assert wanted(load, Bounds(0, 2), 60.0) == 3, "never below what runs"
    assert wanted(Load((Queue(1, 0.0, 9),)), WIDE, 60.0) == 1, "what takes no time needs a worker as well"
    assert wanted(Load(), Bounds(1, 4), 60.0) == 1
    assert wanted(Load(), WIDE, 60.0) == 0


def test_nobody_is_wanted_for_work_that_no_worker_could_begin() -> None:
    hour = 3600.0
    assert wanted(Load((Queue(3, 3 * hour, 50),)), WIDE, 60.0) == 3, "a worker does one thing at a time"
    assert wanted(Load((Queue(1000, 1000 * hour, 4),)), WIDE, 60.0) == 4, "a tenant runs only so much"
    assert wanted(Load((Queue(1000, 1000 * hour, 0),), running=4), WIDE, 60.0) == 4
    assert wanted(Load((Queue(9, hour, 0), Queue(1, 60.0, 4))), WIDE, 60.0) == 1


LOADS = st.builds(
    Load, st.lists(st.builds(Queue, st.integers(1, 50), st.floats(0, 1e6), st.integers(-3, 60)), max_size=4).map(tuple),
    st.integers(0, 30),
)  # fmt: skip


@given(load=LOADS, least=st.integers(0, 5), more=st.integers(0, 30), target=st.floats(0.1, 1e4))
@settings(max_examples=200, deadline=None)
def test_the_number_is_within_the_bounds_and_never_below_what_runs(
    load: Load, least: int, more: int, target: float
) -> None:
    number = wanted(load, Bounds(least, least + more), target)
    assert max(load.running, least) <= number <= max(load.running, least + more)
    startable = sum(max(0, min(one.queued, one.startable)) for one in load.queues)
    assert number <= max(least, load.running + startable)
    if startable and load.running < least + more:
        assert number > load.running or number == least, "somebody comes for what can begin"


@given(st.lists(st.tuples(st.floats(0.0, 9.0), st.integers(0, 9)), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None)
def test_it_is_the_most_that_was_wanted_within_the_idle_time(steps: list[tuple[float, int]]) -> None:
    idle, now, state, seen = 10.0, 0.0, Steady(), list[tuple[float, int]]()
    for pause, number in steps:
        now += pause
        seen.append((now, number))
        state = steadied(state, now, number, idle)
        assert state.desired == max(n for at, n in seen if now - at < idle)
        assert len(state.lately) <= 10


def test_the_time_of_queued_work_is_what_it_told_else_what_its_like_took_else_a_minute() -> None:
    assert scaling.seconds_of(12.0, [1.0]) == 12.0
    assert scaling.seconds_of(None, [1.0, 100.0, 3.0]) == 3.0
    assert scaling.seconds_of(None, []) == 60.0


def test_the_rules_are_those_of_the_settings() -> None:
    given = Service(workers=ServiceWorkers(train_min=3, train_max=2), scaling=ServiceScaling(idle_seconds=7))
    rules = scaling.rules_of(given)
    assert rules == Rules({Slot.TRAIN: Bounds(3, 3), Slot.LIGHT: Bounds(1, 2)}, 60.0, 7.0)


def numbers(count: int) -> dict[Slot, Wanted]:
    return {Slot.TRAIN: Wanted(Load((Queue(2, 120.0, 9),)), count)}


def program(folder: Path, text: str) -> list[str]:
    path = folder / "tell.py"
    path.write_text(f"import json, sys, time\nfrom pathlib import Path\nhere = Path({str(folder)!r})\n{text}\n")
    return [sys.executable, str(path)]


def told(command: list[str], *counts: int, seconds: float = 60.0) -> list[str]:
    """What is said while these numbers are told one after the other, each when the program before has ended."""
    said: list[str] = []

    async def tell() -> None:
        teller = Teller(command, seconds, Clock(), said.append)
        for count in counts:
            teller(numbers(count))
            while (running := asyncio.all_tasks() - {asyncio.current_task()}):  # fmt: skip
                await asyncio.wait(running)

    asyncio.run(tell())
    return said


def test_a_program_is_told_each_number_that_changed(tmp_path: Path) -> None:
    command = program(tmp_path, "with (here / 'told').open('a') as out: print(sys.stdin.read(), file=out)")
    assert told(command, 2, 2, 3, 0) == []
    lines = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [line["kinds"]["train"]["desired"] for line in lines] == [2, 3, 0]
    assert lines[0]["kinds"]["train"]["queued"] == 2


def test_a_program_that_fails_hangs_or_is_missing_is_said_and_asked_again_later(tmp_path: Path) -> None:
    (said,) = told(program(tmp_path, "print('no such queue'); sys.exit(3)"), 1, 1, 2)
    assert "ended with 3: no such queue" in said
    (said,) = told(program(tmp_path, "time.sleep(600)"), 1, seconds=0.3)
    assert "did not end within 0.3 s" in said
    (said,) = told([str(tmp_path / "absent")], 1)
    assert "absent" in said
    assert told([], 1, 2) == []
