"""Features that are used again beside all that works: whatever happens, each is of the image as the host has it.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_reuse_simulation SCHEDULES`.
"""

from __future__ import annotations

import sys

import pytest

from tests.simulation.laws import Violation
from tests.simulation.light import LIGHT
from tests.simulation.reuse_laws import ReuseLaws
from tests.simulation.reuse_mistakes import MISTAKES, Plant
from tests.simulation.reuse_universe import ReuseUniverse
from tests.simulation.universe import shorter

SCHEDULES = 24
STEPS = 900
SCHEDULES_FOR_A_MISTAKE = 120


def make(seed: int, only: frozenset[int] | None = None) -> ReuseUniverse:
    return ReuseUniverse(seed, forms=LIGHT, only=only)


def run_some(seeds: range, steps: int) -> tuple[list[str], int]:
    """What was broken, and how many features were used again."""
    broken, reused = [], 0
    for seed in seeds:
        universe = make(seed)
        try:
            universe.run(steps)
        except Violation:
            faults, words = shorter(seed, steps, make)
            broken.append(f"seed {seed}: {words}; faults at steps {faults}")
        finally:
            assert isinstance(universe.laws, ReuseLaws)
            reused += universe.laws.reused
            universe.close()
    return broken, reused


def test_whatever_happens_a_feature_is_of_the_image_that_the_host_has() -> None:
    broken, reused = run_some(range(SCHEDULES), STEPS)
    assert broken == []
    assert reused > 10 * SCHEDULES, "features are used again while work goes on"


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_in_reuse_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
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
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found, again = run_some(range(1_000_000, 1_000_000 + number), 2000)
    print(f"{number} schedules with {again} features used again", *found, sep="\n")
    sys.exit(1 if found else 0)
