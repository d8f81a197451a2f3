"""The operator of training jobs under a seeded scheduler: two operators, stale caches, lost answers, kills.

In CI a bounded number of worlds; the long form is `python -m tests.simulation.test_kube_simulation WORLDS`.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.simulation.kube_cluster import Broken, run
from tests.simulation.kube_mistakes import MISTAKES, Plant

WORLDS = 120
WORLDS_FOR_A_MISTAKE = 400


def run_some(seeds: range) -> tuple[list[str], Counter[str]]:
    """What was broken, and how the jobs ended."""
    broken, ends = [], Counter[str]()
    for seed in seeds:
        try:
            found = run(seed)
        except Broken as error:
            broken.append(f"seed {seed}: {error}")
        else:
            ends[found.state] += 1
            ends["attempts"] += found.attempts
            ends["requests"] += found.requests
    return broken, ends


def test_whatever_happens_a_job_ends_once_and_its_attempts_never_run_at_once() -> None:
    broken, ends = run_some(range(WORLDS))
    assert broken == []
    assert min(ends["Complete"], ends["Failed"]) >= 5, "both ends are reached"
    assert ends["attempts"] > WORLDS, "attempts are ended"


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_of_an_operator_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for seed in range(WORLDS_FOR_A_MISTAKE):
        try:
            run(seed)
        except Broken:
            return
    pytest.fail(f"{plant.__name__} was not found in {WORLDS_FOR_A_MISTAKE} worlds")


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    found, what = run_some(range(1_000_000, 1_000_000 + number))
    print(f"{number} worlds: {dict(what)}", *found, sep="\n")
    sys.exit(1 if found else 0)
