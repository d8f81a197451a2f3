"""The service's queue and workers under a seeded scheduler: each work ends once, and the fenced change nothing.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_queue_simulation SCHEDULES`.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.servers.databases import needs_the_extra

needs_the_extra()

from tests.simulation.laws import Violation  # noqa: E402
from tests.simulation.queue_mistakes import MISTAKES, Plant  # noqa: E402
from tests.simulation.queue_universe import QueueUniverse  # noqa: E402
from tests.simulation.universe import shorter  # noqa: E402

SCHEDULES = 10
STEPS = 4000
SCHEDULES_FOR_A_MISTAKE = 20


def run_some(seeds: range, steps: int) -> tuple[list[str], Counter[str]]:
    """What was broken, and what happened how often."""
    broken, seen = [], Counter[str]()
    for seed in seeds:
        universe, fails = QueueUniverse(seed), False
        try:
            universe.run(steps)
        except Violation:
            fails = True
        finally:
            seen.update(universe.laws.seen)
            universe.close()
        if fails:
            faults, words = shorter(seed, steps, QueueUniverse)
            broken.append(f"seed {seed}: {words}; faults at steps {faults}")
    return broken, seen


def test_whatever_happens_each_work_ends_once_in_its_turn() -> None:
    broken, seen = run_some(range(SCHEDULES), STEPS)
    assert broken == []
    rare = {
        what: seen[what]
        for what in ("taken over", "retired", "cancelled", "succeeded", "failed", "ready", "hopeless")
        if seen[what] < 5
    }
    assert not rare, "each path is taken"


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_with_the_queue_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(SCHEDULES_FOR_A_MISTAKE):
        universe = QueueUniverse(seed)
        try:
            universe.run(STEPS)
        except Violation:
            return
        finally:
            universe.close()
    pytest.fail(f"{plant.__name__} was not found in {SCHEDULES_FOR_A_MISTAKE} schedules")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found, what = run_some(range(1_000_000, 1_000_000 + number), 8000)
    print(f"{number} schedules: {dict(what)}", *found, sep="\n")
    sys.exit(1 if found else 0)
