"""An archive and forgetting beside all that works: who is forgotten is gone, and nobody else's row or image is lost.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_forget_simulation SCHEDULES`.
"""

from __future__ import annotations

import sys

import pytest

from tests.simulation.forget_laws import ForgetLaws
from tests.simulation.forget_mistakes import MISTAKES, Plant
from tests.simulation.forget_universe import ForgetUniverse
from tests.simulation.laws import Violation
from tests.simulation.light import LIGHT
from tests.simulation.universe import shorter

SCHEDULES = 6
STEPS = 900
SCHEDULES_FOR_A_MISTAKE = 60


def make(seed: int, only: frozenset[int] | None = None) -> ForgetUniverse:
    return ForgetUniverse(seed, forms=LIGHT, only=only)


def run_some(seeds: range, steps: int) -> tuple[list[str], int, int]:
    """What was broken, how many requests there were, and how many packs."""
    broken, asked, packs = [], 0, 0
    for seed in seeds:
        universe = make(seed)
        assert isinstance(universe.laws, ForgetLaws)
        try:
            universe.run(steps)
        except Violation:
            faults, words = shorter(seed, steps, make)
            broken.append(f"seed {seed}: {words}; faults at steps {faults}")
        finally:
            asked += len(universe.laws.asked)
            packs += sum(key.startswith("shop/a/") for key in universe.laws.history)
            universe.close()
    return broken, asked, packs


def test_whatever_happens_who_is_forgotten_is_gone_and_nobody_else_is() -> None:
    broken, asked, packs = run_some(range(SCHEDULES), STEPS)
    assert broken == []
    assert asked > SCHEDULES, "persons ask while work goes on"
    assert packs > 5 * SCHEDULES


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_with_the_archive_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
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
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    found, some, made = run_some(range(1_000_000, 1_000_000 + number), 2000)
    print(f"{number} schedules with {some} requests and {made} packs", *found, sep="\n")
    sys.exit(1 if found else 0)
