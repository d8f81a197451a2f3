"""The product's own stages over stores whose every call may be the last: whatever happens, the result is right.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_simulation SCHEDULES [STEPS]`.
A failure prints its seed and a shorter trace of faults.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import pytest

from pipeline.codec.codecs import Forms
from tests.simulation.laws import Violation
from tests.simulation.light import LIGHT
from tests.simulation.mistakes import MISTAKES, Plant
from tests.simulation.universe import Universe, shorter

LIGHT_SCHEDULES = 50
REAL_SCHEDULES = 6
STEPS = 1500
"""Under faults; coming to rest takes some thousand more."""


@dataclass
class Ran:
    """What some schedules came to."""

    schedules: int = 0
    steps: int = 0
    seconds: float = 0.0
    broken: list[tuple[int, str, list[int]]] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)


def make(real: bool, seed: int, only: frozenset[int] | None = None) -> Universe:
    return Universe(seed, forms=Forms() if real else LIGHT, only=only)


def run_some(real: bool, seeds: list[int], steps: int) -> Ran:
    """Schedules one after the other, in this process."""
    ran = Ran()
    began = time.process_time()
    for seed in seeds:
        universe = make(real, seed)
        try:
            universe.run(steps)
        except Violation:
            faults, words = shorter(seed, steps, lambda seed, only: make(real, seed, only))
            ran.broken.append((seed, words, faults))
        finally:
            universe.close()
        ran.schedules += 1
        ran.steps += universe.scheduler.steps
        for fault, number in universe.scheduler.counts.items():
            ran.faults[fault] = ran.faults.get(fault, 0) + number
    ran.seconds = time.process_time() - began
    return ran


def run_all(real: bool, first: int, schedules: int, steps: int) -> Ran:
    """Schedules spread over the cores."""
    cores = len(os.sched_getaffinity(0))
    chunks = [list(range(first + n, first + schedules, cores * 4)) for n in range(cores * 4)]
    total = Ran()
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        for ran in pool.map(run_some, [real] * len(chunks), chunks, [steps] * len(chunks)):
            total.schedules += ran.schedules
            total.steps += ran.steps
            total.seconds += ran.seconds
            total.broken += ran.broken
            for fault, number in ran.faults.items():
                total.faults[fault] = total.faults.get(fault, 0) + number
    return total


def told(ran: Ran, forms: str) -> str:
    kinds: dict[str, int] = {}
    for fault, number in ran.faults.items():
        kind = " ".join(fault.split()[:2]) if fault.startswith(("kill", "lost")) else fault.split()[0]
        kinds[kind] = kinds.get(kind, 0) + number
    rate = ran.steps / ran.seconds if ran.seconds else 0.0
    lines = [f"{ran.schedules} schedules, {forms} forms: {ran.steps} steps, {rate:.0f} steps per CPU second; {kinds}"]
    for seed, words, faults in ran.broken:
        lines.append(f"seed {seed}: {words}; faults at steps {faults}")
    return "\n".join(lines)


@pytest.mark.parametrize(("real", "schedules"), [(False, LIGHT_SCHEDULES), (True, REAL_SCHEDULES)])
def test_whatever_happens_what_is_delivered_is_right(
    real: bool, schedules: int, figures: Callable[[str], None]
) -> None:
    ran = run_all(real, 0, schedules, STEPS)
    figures(told(ran, "real" if real else "light"))
    assert ran.broken == []
    assert ran.schedules == schedules


def test_a_seed_says_everything_about_its_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []
    for pace in (1, 2):
        # A machine twice as slow the second time: what reads the wall's clock shows in what is written.
        monkeypatch.setattr(time, "monotonic", itertools.count(time.monotonic(), pace).__next__)
        universe = make(False, 7)
        universe.run(400)
        universe.close()
        traces.append((universe.scheduler.steps, universe.scheduler.struck, dict(universe.bucket.files)))
    assert traces[0] == traces[1]


SCHEDULES_FOR_A_MISTAKE = 150


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all in the first few schedules; the one about `done` needs 98, since an operator closes what is stuck."""
    plant(monkeypatch)
    for seed in range(SCHEDULES_FOR_A_MISTAKE):
        universe = make(False, seed)
        try:
            universe.run(2000)
        except Violation:
            return
        finally:
            universe.close()
    pytest.fail(f"{plant.__name__} was not found in {SCHEDULES_FOR_A_MISTAKE} schedules")


def test_a_shorter_trace_is_found_for_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.simulation.mistakes import not_reading_back_after_unknown

    not_reading_back_after_unknown(monkeypatch)
    struck = 0
    for seed in range(200):
        universe = make(False, seed)
        try:
            universe.run(800)
        except Violation:
            struck = len(universe.scheduler.struck)
            if struck >= 24:
                break
        finally:
            universe.close()
    assert struck >= 24, "a failure with a long trace"
    faults, words = shorter(seed, 800, lambda seed, only: make(False, seed, only))
    assert words
    assert len(faults) <= struck // 2


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    done = run_all(False, 1_000_000, number, int(sys.argv[2]) if len(sys.argv) > 2 else 2500)
    print(told(done, "light"))
    sys.exit(1 if done.broken else 0)
