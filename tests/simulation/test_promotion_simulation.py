"""Promotions beside all that works: whatever happens, features are those of the promotion that was planned.

In CI a bounded number of schedules; the long form is `python -m tests.simulation.test_promotion_simulation SCHEDULES`.
"""

from __future__ import annotations

import sys

import pytest

from tests.simulation.laws import Violation
from tests.simulation.light import LIGHT
from tests.simulation.promotion_mistakes import MISTAKES, OF_REQUESTS, Plant
from tests.simulation.promotion_universe import PromotionUniverse
from tests.simulation.requests_universe import RequestsUniverse
from tests.simulation.universe import shorter

SCHEDULES = 24
STEPS = 900
SCHEDULES_FOR_A_MISTAKE = 40
REQUESTS = 12


def make(seed: int, only: frozenset[int] | None = None) -> PromotionUniverse:
    return PromotionUniverse(seed, forms=LIGHT, only=only)


def run_some(seeds: range, steps: int) -> tuple[list[str], int]:
    """What was broken, and how many promotions there were."""
    broken, promoted = [], 0
    for seed in seeds:
        universe = make(seed)
        try:
            universe.run(steps)
        except Violation:
            faults, words = shorter(seed, steps, make)
            broken.append(f"seed {seed}: {words}; faults at steps {faults}")
        finally:
            promoted += universe.laws.newest()  # type: ignore[attr-defined]
            universe.close()
    return broken, promoted


def test_whatever_happens_features_are_of_the_promotion_that_was_planned() -> None:
    broken, promoted = run_some(range(SCHEDULES), STEPS)
    assert broken == []
    assert promoted > 2 * SCHEDULES, "models change while work goes on"


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_with_promotions_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
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


def run_requests(seeds: range, steps: int) -> tuple[list[str], int]:
    """What was broken, and how many requests were told their number."""
    broken, told = [], 0
    for seed in seeds:
        universe = RequestsUniverse(seed, forms=LIGHT)
        try:
            universe.run(steps)
        except Violation as error:
            broken.append(f"seed {seed}: {error}")
        finally:
            told += len(universe.done)
            universe.close()
    return broken, told


def test_a_request_gets_one_number_whoever_does_it_again() -> None:
    broken, told = run_requests(range(REQUESTS), STEPS)
    assert broken == []
    assert told > REQUESTS, "requests are done while others promote"


@pytest.mark.parametrize("plant", OF_REQUESTS, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_with_requests_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(run_requests(range(seed, seed + 1), STEPS)[0] for seed in range(SCHEDULES_FOR_A_MISTAKE))


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    found, made = run_some(range(1_000_000, 1_000_000 + number), 2000)
    print(f"{number} schedules with {made} promotions", *found, sep="\n")
    wrong, requests = run_requests(range(1_000_000, 1_000_000 + number), 2000)
    print(f"{number} schedules with {requests} requests", *wrong, sep="\n")
    found += wrong
    sys.exit(1 if found else 0)
