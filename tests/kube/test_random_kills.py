"""A short storm of kills; the long one is `python -m tests.kube.random_kills --kills 100`."""

from __future__ import annotations

from pathlib import Path

from tests.kube.random_kills import WEIGHTS, Storm, two_nodes
from tests.kube.site import Site


def test_whatever_is_killed_each_job_has_its_end_and_nothing_is_left_over(site: Site, tmp_path: Path) -> None:
    with two_nodes(site):
        storm = Storm(site, tmp_path, seed=1)
        storm.run(12)
    assert set(storm.counted) == set(WEIGHTS), "each kind of kill was met"
