"""Gangs on the real scheduler (gate GenericWorkload): all pods of an attempt are bound, or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.kube.names import JOB
from tests.kube.site import Site
from tests.servers.demand import until

SIZE, ROOM, JOBS = 3, 8, 6
"""Room for two gangs and two pods more."""
SECONDS = 1.0


@pytest.fixture(scope="module")
def here(site: Site) -> Iterator[Site]:
    site.node("gangs", pretend=lambda body: SECONDS, room=ROOM)
    yield site
    site.leave("gangs")


def spec_of(gang: str) -> dict[str, Any]:
    container = {"name": "trainer", "image": "trainer", "resources": {"requests": {"cpu": "1"}}}
    template = {"spec": {"nodeSelector": {"kubernetes.io/hostname": "gangs"}, "containers": [container]}}
    return {"replicas": SIZE, "template": template, "success": {"policy": "All"}, "scheduling": {"gang": gang}}


def test_no_gang_holds_room_that_is_not_enough_for_it_and_all_end(here: Site) -> None:
    space = here.space("gangs")
    most = 0
    with here.operating("--namespace", space):
        for number in range(JOBS):
            here.submit(space, f"g{number}", spec_of("PodGroup"))

        def ended() -> bool:
            nonlocal most
            pods = here.api.list(f"/api/v1/namespaces/{space}/pods")[0]
            bound = {
                pod["metadata"]["labels"][JOB]
                for pod in pods
                if pod["spec"].get("nodeName") and pod["status"].get("phase") in ("Pending", "Running")
            }
            most = max(most, len(bound))
            return all(here.status(space, f"g{number}").get("state") == "Complete" for number in range(JOBS))

        until(ended, f"{JOBS} gangs have ended", 120.0)
    assert 1 <= most <= ROOM // SIZE, "a gang of which some pods are bound keeps others out"
    for number in range(JOBS):
        status = here.status(space, f"g{number}")
        assert (status["attempt"], status["failures"]) == (0, 0)
    groups, _ = here.api.list(f"/apis/scheduling.k8s.io/v1beta1/namespaces/{space}/podgroups")
    assert sorted(one["metadata"]["name"] for one in groups) == [f"g{number}-0" for number in range(JOBS)]
    here.api.call("DELETE", f"/apis/hathi.dev/v1alpha1/namespaces/{space}/trainingjobs", {})
    path = f"/apis/scheduling.k8s.io/v1beta1/namespaces/{space}/podgroups"
    until(lambda: not here.api.list(path)[0], "the groups go with their jobs", 60.0)
