"""Many schedules of one universe: what they broke, and in how many a planted mistake is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.simulation.laws import Violation
from tests.simulation.universe import shorter


def run_some(make: Callable[..., Any], seeds: range, steps: int) -> tuple[list[str], Counter[str]]:
    """What was broken, each with the fewest faults that break it, and what happened how often.

    make: a universe of a seed, with `laws` that count what they have seen.
    """
    broken, seen = [], Counter[str]()
    for seed in seeds:
        universe, fails = make(seed), False
        try:
            universe.run(steps)
        except Violation:
            fails = True
        finally:
            seen.update(universe.laws.seen)
            universe.close()
        if fails:
            faults, words = shorter(seed, steps, make)
            broken.append(f"seed {seed}: {words}; faults at steps {faults}")
    return broken, seen


def is_found(make: Callable[..., Any], seeds: range, steps: int) -> bool:
    """Whether one of these schedules breaks a law."""
    for seed in seeds:
        universe = make(seed)
        try:
            universe.run(steps)
        except Violation:
            return True
        finally:
            universe.close()
    return False
