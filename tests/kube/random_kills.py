"""Kills at random instants: `python -m tests.kube.random_kills --kills 100 [--seed N]`.

Jobs of two workers run on two nodes while pods are deleted, evicted and killed, and the operator, the API server and
etcd are killed and started again.  In the end each job has the state that its program decides, no process ran beside
one of the same place, whatever their attempts, and nothing is left over.  A worker is a few lines of shell, so that a
kill costs what Kubernetes and the operator cost; tests/kube/test_training.py kills real trainings.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from tests.kube.site import Site
from tests.servers.demand import Server, until
from tests.servers.kube import running

JOBS = {"long": 6, "wrong": 2, "weak": 2}
"""How many of each sort."""
ENDS = {"long": ("Complete", "ChiefSucceeded"), "wrong": ("Failed", "PermanentFailure"),
        "weak": ("Failed", "BackoffLimitExceeded")}  # fmt: skip
"""What becomes of each, whatever is killed."""
WORKER = """
exec 9>>"$DIR/place-$SHARD_ID"
flock -n 9 || { echo "$HATHI_ATTEMPT-$SHARD_ID beside another" >> "$DIR/twice"; exit 1; }
trap 'exit 75' TERM
echo "$HATHI_ATTEMPT" >> "$DIR/place-$SHARD_ID"
while :; do
    sleep 0.3
    if [ "$SHARD_ID" = "${FAILS:-none}" ]; then exit "$CODE"; fi
    if [ "$SHARD_ID" = 0 ] && [ -e "$DIR/finish" ]; then exit 0; fi
done
"""
"""It holds its place in the job alone, and ends as told.  FAILS: the worker that ends with CODE."""
WEIGHTS = {"worker": 9, "pod": 5, "evicted": 2, "operator": 3, "API server": 1, "etcd": 1}
"""What is killed, and how often of their sum."""
PAUSE = 0.8
"""Seconds between two kills at the most."""


@dataclass
class Storm:
    """One seeded storm over a site that has its nodes.  counted: kills by what was killed."""

    site: Site
    folder: Path
    seed: int
    counted: Counter[str] = field(default_factory=Counter)
    operator: Server = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.space = self.site.space(f"storm-{self.seed}")
        self.jobs = {f"{sort}-{number}": sort for sort, many in JOBS.items() for number in range(many)}
        self.operator = self._begin()

    def run(self, kills: int) -> str:
        """So many kills, then rest; what happened, in a sentence.  Raises AssertionError for what must not be."""
        for name, sort in self.jobs.items():
            self.site.submit(self.space, name, self._spec(name, sort))
        for name, sort in self.jobs.items():
            if sort == "long":
                self.site.runs(self.space, name, 0)
        first = list(WEIGHTS)  # each at least once
        self.chance.shuffle(first)
        while self.counted.total() < kills:
            time.sleep(PAUSE * self.chance.random())
            what = first.pop() if first else self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            self.counted[what] += self._kill(what)
        for name in self.jobs:
            (self.folder / name / "finish").touch()
        told = self._rest()
        self.operator.stop()
        return told

    # --- what is killed

    def _kill(self, what: str) -> bool:
        """Whether there was something to kill."""
        if what == "operator":
            self.operator.kill()
            self.operator = self._begin()
        elif what == "API server":
            self.site.cluster.kill("apiserver")
            self.site.cluster.start_api()
        elif what == "etcd":
            self.site.cluster.kill("etcd")
            self.site.cluster.start_etcd()
            until(self.site.cluster.is_ready, "the API server has its etcd again", 60.0)
        elif what == "worker":
            pods = [(node, name) for node in self.site.nodes.values() for name in node.running(self.space)]
            if not pods:
                return False
            node, name = self.chance.choice(sorted(pods, key=lambda one: one[1]))
            node.kill(name)
        else:
            return self._end_pod(what)
        return True

    def _end_pod(self, what: str) -> bool:
        pods = sorted(each["metadata"]["name"] for each in self._pods() if not _ended(each))
        if not pods:
            return False
        name = self.chance.choice(pods)
        path = f"/api/v1/namespaces/{self.space}/pods/{name}"
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.space}}
        try:
            if what == "evicted":
                self.site.api.call("POST", f"{path}/eviction", body)
            else:
                self.site.api.call("DELETE", path, {})
        except PipelineError as error:
            return getattr(error, "code", 0) not in (404, 409)  # it has just ended by itself
        return True

    def _begin(self) -> Server:
        return self.site.operator("--namespace", self.space)

    # --- the jobs

    def _spec(self, name: str, sort: str) -> dict[str, Any]:
        (self.folder / name).mkdir(parents=True)
        environ = {"DIR": str(self.folder / name)}
        environ |= {"wrong": {"FAILS": "1", "CODE": "2"}, "weak": {"FAILS": "0", "CODE": "1"}}.get(sort, {})
        variables = [{"name": key, "value": value} for key, value in environ.items()]
        container = {"name": "trainer", "image": "trainer", "command": ["bash", "-c", WORKER], "env": variables}
        recovery = {"backoffSeconds": 0, "backoffLimit": 2 if sort == "weak" else 100_000}
        return {
            "replicas": 2, "recovery": recovery,
            "template": {"spec": {"terminationGracePeriodSeconds": 5, "containers": [container]}},
        }  # fmt: skip

    def _pods(self) -> list[dict[str, Any]]:
        return _patiently(lambda: self.site.api.list(f"/api/v1/namespaces/{self.space}/pods")[0])

    def _states(self) -> dict[str, dict[str, Any]]:
        path = f"/apis/hathi.dev/v1alpha1/namespaces/{self.space}/trainingjobs"
        bodies = _patiently(lambda: self.site.api.list(path)[0])
        return {each["metadata"]["name"]: each.get("status") or {} for each in bodies}

    def _rest(self) -> str:
        def ended() -> bool:
            return all(one.get("state") in ("Complete", "Failed") for one in self._states().values())

        until(ended, f"all jobs have ended (seed {self.seed})", 240.0)
        states = self._states()
        wrong = []
        for name, sort in self.jobs.items():
            found = {(one["type"], one["reason"]) for one in states[name]["conditions"] if one["status"] == "True"}
            if found != {ENDS[sort]}:
                wrong.append(f"{name} is {sorted(found)}, and not {ENDS[sort]}")
        assert wrong == [], f"seed {self.seed}: {wrong}"
        until(lambda: all(map(_ended, self._pods())), "no pod runs any more", 60.0)
        twice = [path.read_text() for path in self.folder.glob("*/twice")]
        assert twice == [], f"seed {self.seed}: {twice}"
        assert self.site.overlaps() == []
        for name in self.jobs:
            path = f"/apis/hathi.dev/v1alpha1/namespaces/{self.space}/trainingjobs/{name}"
            self.site.api.call("DELETE", path, {"propagationPolicy": "Background"})
        until(lambda: not self._pods() and not self._services(), "nothing is left of the jobs", 60.0)
        attempts = sum(one["attempt"] + 1 for one in states.values())
        kills = ", ".join(f"{what} {number}" for what, number in sorted(self.counted.items()))
        return (
            f"seed {self.seed}: {self.counted.total()} kills ({kills}); {len(states)} jobs in {attempts} attempts, "
            "each with the end that it has to have; no two processes in one place; nothing left over"
        )

    def _services(self) -> list[dict[str, Any]]:
        return _patiently(lambda: self.site.api.list(f"/api/v1/namespaces/{self.space}/services")[0])


def _ended(pod: dict[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _patiently(ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What is asked while servers come back: an API server that was killed has watches to fill."""
    ends = time.monotonic() + 60.0
    while True:
        try:
            return ask()
        except PipelineError:
            if time.monotonic() > ends:
                raise
        time.sleep(0.2)


@contextlib.contextmanager
def two_nodes(site: Site) -> Iterator[None]:
    """Whose pods are processes."""
    for name in ("s1", "s2"):
        site.node(name)
    try:
        yield
    finally:
        for name in ("s1", "s2"):
            site.leave(name)


def main() -> int:
    """The exit code: 1 where something is not as it has to be, which is an AssertionError with the seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hathi-kube-kills-") as folder, running() as cluster:
        site = Site(cluster, Path(folder) / "site")
        site.folder.mkdir()
        try:
            site.install()
            with two_nodes(site):
                print(Storm(site, Path(folder) / "jobs", args.seed).run(args.kills))
        finally:
            site.stop()
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
