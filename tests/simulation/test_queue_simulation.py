"""The service's queue and workers under a seeded scheduler: each work ends once, and the fenced change nothing.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_queue_simulation SCHEDULES`.
"""

from __future__ import annotations

import sys

import pytest

from tests.servers.databases import needs_the_extra

needs_the_extra()

from tests.simulation.queue_mistakes import MISTAKES, Plant  # noqa: E402
from tests.simulation.queue_universe import QueueUniverse  # noqa: E402
from tests.simulation.schedules import is_found, run_some  # noqa: E402

SCHEDULES = 10
STEPS = 4000
SCHEDULES_FOR_A_MISTAKE = 20


def test_whatever_happens_each_work_ends_once_in_its_turn() -> None:
    broken, seen = run_some(QueueUniverse, range(SCHEDULES), STEPS)
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
    assert is_found(QueueUniverse, range(SCHEDULES_FOR_A_MISTAKE), STEPS), (
        f"{plant.__name__} was not found in {SCHEDULES_FOR_A_MISTAKE} schedules"
    )


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found, what = run_some(QueueUniverse, range(1_000_000, 1_000_000 + number), 8000)
    print(f"{number} schedules: {dict(what)}", *found, sep="\n")
    sys.exit(1 if found else 0)
