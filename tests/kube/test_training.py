"""Two workers of `hathi train` on the real servers: whatever ends them, the job ends with the undisturbed bits."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.kube.names import JOB
from tests.kube import training
from tests.kube.kubelet import local
from tests.kube.site import Site, attempt_of
from tests.servers import redis
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


def test_a_node_is_lost_and_the_job_goes_on_elsewhere_with_the_same_bits(
    undisturbed: str, here: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its pods are never heard of again: they are given up after their grace, and are gone with the node's object."""
    folder = training.folder_of(tmp_path_factory.mktemp("kube-training") / "lost")
    space = here.space("lost")
    spec = training.spec_of(folder, recovery={"lostAfterSeconds": 20})  # the cluster knows it sooner, after 10 s
    spec["template"]["spec"] |= {"terminationGracePeriodSeconds": 3, "affinity": apart("lost")}
    here.submit(space, "lost", spec)
    until(lambda: training.reached(folder) >= training.SNAPSHOT, "a snapshot is there", 240.0)
    (name,) = [name for name, node in here.nodes.items() if node.pid_of("lost-0-1")]
    here.nodes[name].lose()
    status = here.ends(space, "lost")
    assert (status["attempt"], status["failures"]) == (1, 0), status
    assert {pod["spec"]["nodeName"] for pod in here.pods(space, "lost") if attempt_of(pod) == 1} == {*here.nodes} - {
        name
    }
    assert "Resuming from" in here_log(here, "lost-1-0")
    assert training.weights(folder) == undisturbed
    assert here.overlaps() == []
    here.leave(name)
    until(lambda: all(pod["spec"]["nodeName"] != name for pod in here.pods(space, "lost")), "its pods are gone", 90.0)
    here.node(name)


def test_workers_that_meet_by_a_shared_folder_meet_nobody_of_a_dead_attempt(
    undisturbed: str, here: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("kube-nfs")
    folder, space = training.folder_of(top / "training"), here.space("nfs")
    rendezvous = {"backend": "nfs", "nfs": {"path": str(top / "meeting")}}
    here.submit(space, "nfs", training.spec_of(folder, rendezvous=rendezvous))
    until(lambda: training.reached(folder) >= training.SNAPSHOT, "a snapshot is there", 240.0)
    pid = next(filter(None, (node.pid_of("nfs-0-0") for node in here.nodes.values())))
    os.killpg(pid, signal.SIGKILL)
    status = here.ends(space, "nfs")
    assert (status["attempt"], status["failures"]) == (1, 1)
    said = sorted(path.name for path in (top / "meeting/hathi").iterdir())
    assert said == [status["runId"], f"{status['runId']}.1"], "each attempt has its own"
    assert here.api.list(f"/api/v1/namespaces/{space}/services")[0] == [], "a folder needs no Service"
    assert training.weights(folder) == undisturbed


def apart(name: str) -> dict[str, Any]:
    """Pods of a job go to different nodes, where there are."""
    term = {"labelSelector": {"matchLabels": {JOB: name}}, "topologyKey": "kubernetes.io/hostname"}
    return {
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 9, "podAffinityTerm": term}]}
    }


REDIS = "10.64.200.1"


def test_the_seeds_sample_runs_to_its_end_as_it_stands(
    undisturbed: str, here: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its Redis is a real one behind a Service of its name, its image has a program of its name that trains."""
    top = tmp_path_factory.mktemp("kube-seed")
    folder, space = training.folder_of(top / "training"), here.space("seed")
    text = (Path(__file__).parent / "samples" / "caffe2job.yaml").read_text()
    (image,), (where,), (script,) = (
        re.findall(pattern, text) for pattern in (r"image: (\S+)", r"workingDir: (\S+)", r'"(\w+\.py)"')
    )
    inside = top / "image" / where.lstrip("/")
    inside.mkdir(parents=True)
    command = ["hathi", "train", "solver.prototxt", "--on", "replicas", "--patience", training.PATIENCE]
    (inside / script).write_text(f"import os\nos.chdir({str(folder)!r})\nos.execvp('hathi', {command!r})\n")
    meta = {"name": "redis-service", "namespace": space}
    here.post({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": redis.PORT}]}})
    labels = {"kubernetes.io/service-name": "redis-service"}
    ports: list[dict[str, Any]] = [{"port": redis.PORT}]
    behind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {**meta, "labels": labels}}
    here.post({**behind, "addressType": "IPv4", "endpoints": [{"addresses": [REDIS]}], "ports": ports})
    for name in ("g1", "g2"):
        here.node(name, images=frozenset({image}), roots={image: top / "image"}, devices={"nvidia.com/gpu": "2"})
    path = f"/apis/kubeflow.org/v1alpha1/namespaces/{space}/caffe2jobs"

    def conditions() -> dict[str, str]:
        status = here.api.call("GET", f"{path}/example-job").get("status") or {}
        return {each["type"]: each["status"] for each in status.get("conditions") or ()}

    try:
        with redis.running(top / "redis", local(REDIS)):
            here.post_yaml(path, text)
            until(lambda: "True" in (conditions().get("Succeeded"), conditions().get("Failed")), "it ends", 240.0)
        assert conditions()["Succeeded"] == "True", here.logs(space, "example-job")
        body = here.api.call("GET", f"{path}/example-job")
        (told,) = body["status"]["replicaStatuses"]
        assert (told["type"], told["state"], told["replicasStates"]) == ("worker", "Succeeded", {"Succeeded": 2})
        assert training.weights(folder) == undisturbed
        for pod in here.pods(space, "example-job"):
            assert pod["spec"]["hostNetwork"] is True
            assert pod["metadata"]["labels"]["caffe2_job_key"] == f"{space}-example-job"
    finally:
        for name in ("g1", "g2"):
            here.leave(name)


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
