"""pytest plugin of scripts/test.sh: how the processes of pytest-xdist, the lanes, share the tests.

There is one lane more than CI has cores: a test often waits, for a server, a lease or a child.
A lane gets the tests of one file together, so that what a module shares is made once.  The longest begin: at the end
all lanes have short files left, and none waits for another.
"""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

TOGETHER = {
    "Spark": (
        "tests/spark/test_spark.py",
        "tests/spark/test_data.py",
        "tests/spark/test_frames.py",
        "tests/spark/test_job.py",
        "tests/spark/test_promoted.py",
        "tests/spark/test_servers.py",
        "tests/spark/test_shards.py",
        "tests/spark/test_training.py",
    ),
    "HDFS": ("tests/contract/test_store", "tests/integration/test_hdfs", "tests/integration/test_compact_on_hdfs"),
    "the service": ("tests/contract/test_service",),
}
"""Tests that share a server which is heavy to start, by how their names begin: one lane runs them all."""

APART = ("tests/simulation/", "tests/crash/test_commit_points.py", "tests/crash/test_training_points.py")
"""Files whose tests share nothing and take long: each test goes to the next free lane."""

FIRST = (
    "tests/simulation/test_simulation.py::test_whatever_happens_what_is_delivered_is_right[False",
    "Spark",
    "HDFS",
    "tests/spark/",
    "tests/acceptance/test_day.py",
    "tests/acceptance/test_readme.py",
    "tests/acceptance/test_runbook.py",
    "tests/acceptance/test_night.py",
    "tests/integration/test_strangers.py",
    "tests/simulation/test_promotion_simulation.py::test_whatever",
    "tests/crash/test_commit_points.py::test_whoever_is_cut_at_a_commit_point_the_result_is_the_same[whole",
    "the service",
    "tests/acceptance/",
    "tests/simulation/",
    "tests/crash/",
    "tests/integration/",
    "tests/fuzz/",
    "tests/unit/training/",
)
"""What takes longest, in this order: a unit by its name, or tests by how their names begin.  All else follows."""


def unit_of(nodeid: str) -> str:
    """What one lane runs together: a test, a file, or files that share servers."""
    for name, beginnings in TOGETHER.items():
        if nodeid.startswith(beginnings):
            return name
    return nodeid if nodeid.startswith(APART) else nodeid.split("::", 1)[0]


def rank(nodeid: str) -> int:
    """Its place in FIRST, of itself or of what it goes together with."""
    for place, beginning in enumerate(FIRST):
        if nodeid.startswith(beginning) or unit_of(nodeid) == beginning:
            return place
    return len(FIRST)


class Lanes(LoadScopeScheduling):
    """Deals out units in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def remove_node(self, node: WorkerController) -> str | None:
        """A lane has ended.  Of one that died: the test that killed it has failed; what is left goes to its heir."""
        work = self.assigned_work.pop(node)
        left = [nodeid for unit in work.values() for nodeid, done in unit.items() if not done]
        for name, unit in work.items():
            kept = {nodeid: False for nodeid in unit if nodeid in left[1:]}
            if kept:
                self.workqueue[name] = kept
        for other in self.assigned_work:
            self._reschedule(other)
        return left[0] if left else None

    def _reschedule(self, node: WorkerController) -> None:
        """Give it units until it has enough to go on: it begins a test only when it knows the next one, or the end."""
        if node.shutting_down:
            return
        while self.workqueue and self._pending_of(self.assigned_work[node]) < 2:
            self._assign_work_unit(node)
        if not self.workqueue:
            node.shutdown()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Lanes:
    config.option.loadscopereorder = False
    return Lanes(config, log)  # type: ignore[arg-type]
