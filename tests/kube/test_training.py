"""Two workers of `hathi train` on the real servers: whatever ends them, the job ends with the undisturbed bits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.kube import training
from tests.kube.site import Site
from tests.servers.demand import until


@pytest.fixture(scope="module")
def here(site: Site) -> Iterator[Site]:
    """With two nodes that run processes, and an operator as its own service account."""
    for name in ("n1", "n2"):
        site.node(name)
    with site.operating("--threads", "2"):
        yield site
    for name in ("n1", "n2"):
        site.leave(name)


@pytest.fixture(scope="module")
def undisturbed(here: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The final weights of a job of two workers that nobody disturbs."""
    folder = training.folder_of(tmp_path_factory.mktemp("kube-training") / "calm")
    space = here.space("calm")
    here.submit(space, "calm", training.spec_of(folder))
    status = here.ends(space, "calm")
    assert (status["attempt"], status["restarts"], status["failures"]) == (0, 0, 0)
    conditions = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
    assert conditions == {"Running": ("False", "ChiefSucceeded"), "Complete": ("True", "ChiefSucceeded")}
    return training.weights(folder)


def test_a_job_of_two_workers_completes(undisturbed: str, here: Site) -> None:
    ran = sorted(each.pod for node in here.nodes.values() for each in node.ran)
    assert ran == ["calm-0-0", "calm-0-1"]
    assert here.alive("calm", "calm") == []


@pytest.mark.parametrize("harm", ["pod deleted", "worker killed", "evicted"])
def test_whatever_ends_a_worker_the_job_comes_back_with_the_same_bits(
    harm: str, undisturbed: str, here: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = harm.replace(" ", "-")
    folder = training.folder_of(tmp_path_factory.mktemp("kube-training") / name)
    space = here.space(name)
    here.submit(space, name, training.spec_of(folder))
    until(lambda: training.reached(folder) >= training.SNAPSHOT, "a snapshot is there", 240.0)
    victim = f"{name}-0-1"
    pid = next(filter(None, (node.pid_of(victim) for node in here.nodes.values())))
    if harm == "worker killed":
        os.killpg(pid, signal.SIGKILL)
    elif harm == "pod deleted":
        here.delete_pod(space, victim)
    else:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim, "namespace": space}}
        here.api.call("POST", f"/api/v1/namespaces/{space}/pods/{victim}/eviction", body)
    status = here.ends(space, name)
    assert status["attempt"] == 1
    assert status["failures"] == (1 if harm == "worker killed" else 0)
    failed = status["lastFailure"]
    assert (failed["pod"], failed["attempt"]) == (victim, 0)
    assert failed["reason"] == {"pod deleted": "PodDeleted", "worker killed": "Error", "evicted": "Disrupted"}[harm]
    if harm == "worker killed":
        assert failed["exitCode"] == 137
    assert "Resuming from" in here_log(here, f"{name}-1-0")
    assert training.weights(folder) == undisturbed
    assert here.overlaps() == []


def here_log(here: Site, pod: str) -> str:
    return "".join(node.log_of(pod) for node in here.nodes.values())


def test_a_job_is_scaled_suspended_and_survives_its_operator_and_the_api_server(
    undisturbed: str, here: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = training.folder_of(tmp_path_factory.mktemp("kube-training") / "scaled")
    space = here.space("scaled")
    here.submit(space, "scaled", training.spec_of(folder))

    def until_next() -> None:
        before = training.reached(folder)
        until(lambda: training.reached(folder) > before, f"a snapshot after {before}", 240.0)

    until_next()
    here.change(space, "scaled", {"replicas": 4})
    here.runs(space, "scaled", 1)
    assert len(here.alive(space, "scaled")) == 4
    until_next()
    here.change(space, "scaled", {"suspend": True})
    here.until(space, "scaled", lambda status: status["state"] == "Suspended", "it is suspended")
    until(lambda: not here.alive(space, "scaled"), "its pods are gone", 60.0)
    here.change(space, "scaled", {"suspend": False, "replicas": 1})
    here.runs(space, "scaled", 2)
    until_next()
    here.operators[-1].kill()
    here.cluster.kill("apiserver")
    here.cluster.start_api()
    with here.operating("--threads", "2"):
        status = here.ends(space, "scaled")
    assert (status["attempt"], status["failures"]) == (2, 0), "the API server's restart touches no pod"
    assert training.weights(folder) == undisturbed
    assert here.overlaps() == []
