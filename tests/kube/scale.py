"""Many jobs of two pretended pods: `python -m tests.kube.scale JOBS`; time, requests a job, the operator's memory.

It ends with 1 where a job does not end, a pod is made twice, the operator takes more than 80 MiB, or an idle one asks.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.kube.kubelet import seconds_of_seed
from tests.kube.site import Site
from tests.servers.demand import Server, until
from tests.servers.kube import running

MOST_MIB = 80.0
IDLE_SECONDS = 20.0
RUN_SECONDS = 5.0


def scraped(operator: Server) -> dict[str, float]:
    """Sums of the operator's figures by name."""
    found = re.search(r"http://\S+/metrics", operator.log.read_text())
    assert found is not None
    totals: dict[str, float] = {}
    with urllib.request.urlopen(found[0], timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                totals[name] = totals.get(name, 0.0) + float(value)
    return totals


def resident(operator: Server) -> float:
    """MiB that the operator has ever taken at once."""
    text = Path(f"/proc/{operator.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text) or re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


def seconds_of(operator: Server) -> float:
    """Processor seconds of it."""
    fields = Path(f"/proc/{operator.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main(jobs: int) -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory(prefix="hathi-kube-scale-") as folder, running() as cluster:
        site = Site(cluster, Path(folder))
        try:
            site.install()
            site.node("pretends", pretend=seconds_of_seed(1, RUN_SECONDS), room=100_000)
            space = site.space("scale")
            operator = site.operator("--namespace", space)
            template = {"spec": {"containers": [{"name": "trainer", "image": "trainer"}]}}
            spec: dict[str, Any] = {"replicas": 2, "template": template, "success": {"policy": "All"}}
            began = time.monotonic()
            for number in range(jobs):
                site.submit(space, f"j{number}", spec)

            def states() -> list[str]:
                bodies, _ = site.api.list(f"/apis/hathi.dev/v1alpha1/namespaces/{space}/trainingjobs")
                return [(each.get("status") or {}).get("state", "") for each in bodies]

            def ended() -> bool:
                time.sleep(1.0)
                return all(state in ("Complete", "Failed") for state in states())

            until(ended, f"{jobs} jobs have ended", 1800.0)
            took = time.monotonic() - began
            pods, _ = site.api.list(f"/api/v1/namespaces/{space}/pods")
            asked = scraped(operator)["hathi_kube_requests_total"]
            time.sleep(IDLE_SECONDS)
            idle = scraped(operator)["hathi_kube_requests_total"] - asked
            complete, memory = states().count("Complete"), resident(operator)
            print(
                f"{jobs} jobs: {complete} Complete after {took:.0f} s; {len(pods)} pods; "
                f"{asked / jobs:.1f} requests a job; "
                f"{seconds_of(operator):.1f} processor seconds and {memory:.0f} MiB of the operator; "
                f"{idle:.0f} requests in {IDLE_SECONDS:.0f} s at rest",
                flush=True,
            )
            return int(complete != jobs or len(pods) != 2 * jobs or memory > MOST_MIB or idle > 1)
        finally:
            site.stop()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
