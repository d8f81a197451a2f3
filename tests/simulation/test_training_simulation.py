"""Trainings over a bucket whose every call may be the last: whatever happens, one chain comes of each.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_training_simulation SCHEDULES`.
A failure prints its seed and a shorter trace of faults.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

import pytest

from pipeline.ledger.trainings import JobOut
from tests.simulation.laws import Violation
from tests.simulation.training_mistakes import MISTAKES, Plant
from tests.simulation.training_universe import KEYS, TrainingUniverse
from tests.simulation.universe import shorter

SCHEDULES = 120
STEPS = 600
"""Under faults; coming to rest takes some hundred more."""
SCHEDULES_FOR_A_MISTAKE = 200


def make(seed: int, only: frozenset[int] | None = None) -> TrainingUniverse:
    return TrainingUniverse(seed, only=only)


def run_some(first: int, schedules: int) -> tuple[list[str], Counter[str]]:
    """Schedules one after the other: what broke, and what happened how often."""
    broken: list[str] = []
    counts: Counter[str] = Counter()
    for seed in range(first, first + schedules):
        universe = make(seed)
        try:
            universe.run(STEPS)
        except Violation:
            faults, words = shorter(seed, STEPS, make)
            broken.append(f"seed {seed}: {words}; faults at steps {faults}")
        finally:
            universe.close()
        counts["steps"] += universe.scheduler.steps
        for fault, number in universe.scheduler.counts.items():
            counts[fault.split()[0]] += number
        for name in universe.laws.names():
            out = universe.laws.body(JobOut, KEYS.job(name).out)
            counts[out.kind if out is not None else "stopped"] += 1
    return broken, counts


def test_whatever_happens_one_chain_comes_of_each_training(figures: Callable[[str], None]) -> None:
    broken, counts = run_some(0, SCHEDULES)
    figures(f"{SCHEDULES} schedules of trainings: {dict(counts)}")
    assert broken == []
    assert counts["model"] > counts["stopped"] > 0
    assert min(counts[fault] for fault in ("kill", "freeze", "late", "lost")) > SCHEDULES


def test_a_seed_says_everything_about_its_schedule() -> None:
    traces = []
    for _ in range(2):
        universe = make(7)
        universe.run(300)
        universe.close()
        traces.append((universe.scheduler.steps, universe.scheduler.struck, dict(universe.bucket.files)))
    assert traces[0] == traces[1]


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SCHEDULES_FOR_A_MISTAKE):
        universe = make(seed)
        try:
            universe.run(STEPS)
        except Violation:
            return
        finally:
            universe.close()
    pytest.fail(f"{plant.__name__} was not found in {SCHEDULES_FOR_A_MISTAKE} schedules")


if __name__ == "__main__":
    wrong, seen = run_some(1_000_000, int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)
    print(dict(seen), *wrong, sep="\n")
    sys.exit(1 if wrong else 0)
