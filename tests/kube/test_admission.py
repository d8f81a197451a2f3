"""What the API server itself takes and refuses: each rule of the kinds has an object that it alone refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.kube.api import ApiError
from tests.kube.site import ROOT, Site

CONTAINER = {"name": "trainer", "image": "trainer"}
TEMPLATE: dict[str, Any] = {"spec": {"containers": [CONTAINER]}}


@pytest.fixture(scope="module")
def space(site: Site) -> str:
    return site.space("admission")


@pytest.mark.parametrize(
    ("name", "spec", "words"),
    [
        ("x" * 49, {}, "48 characters at the most"),
        ("9lives", {}, "begins with a letter"),
        ("a", {"replicas": 0}, "greater than or equal to 1"),
        ("a", {"replicas": 2, "rendezvous": {"backend": "none"}}, "more than one replica needs a rendezvous"),
        ("a", {"rendezvous": {"backend": "redis"}}, "rendezvous.redis stands with backend redis"),
        ("a", {"rendezvous": {"backend": "nfs", "redis": {"host": "h"}, "nfs": {"path": "/x"}}}, "rendezvous.redis"),
        ("a", {"rendezvous": {"backend": "nfs"}}, "rendezvous.nfs stands with backend nfs"),
        ("a", {"rendezvous": {"backend": "carrier pigeon"}}, "Unsupported value"),
        ("a", {"success": {"chiefIndex": 1}}, "chiefIndex is one of the replicas"),
        ("a", {"scheduling": {"gang": "PodGroup"}, "recovery": {"scope": "Replica"}}, "a gang is restarted as a whole"),
        ("a", {"scheduling": {"gang": "Kueue"}}, "spec.scheduling.queue names it"),
        ("a", {"recovery": {"permanentExitCodes": [0]}}, "greater than or equal to 1"),
        ("a", {"recovery": {"permanentExitCodes": [2, 2]}}, "Duplicate value"),
        ("a", {"template": {"spec": {"containers": []}}}, "at least 1 items"),
        ("a", {"template": {"spec": {"containers": [{"name": "x"}]}}}, "image: Required value"),
        ("a", {"template": {"spec": {"containers": [CONTAINER], "restartPolicy": "Always"}}}, "left out or Never"),
        ("a", {"runId": "a/b"}, "should match"),
        ("a", {"replica": 3}, "unknown field"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_refused_with_what_is_allowed(
    site: Site, space: str, name: str, spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(ApiError) as caught:
        site.submit(space, name, {"template": TEMPLATE, **spec})
    assert caught.value.code in (400, 422)
    assert words in caught.value.words


def test_defaults_are_filled_in_and_what_is_not_declared_of_a_pod_is_kept(site: Site, space: str) -> None:
    template = {"spec": {"containers": [{**CONTAINER, "fieldOfTomorrow": 1}], "schedulerName": "mine"}}
    made = site.submit(space, "defaults", {"template": template})["spec"]
    assert made["template"] == template
    assert (made["replicas"], made["suspend"], made["cleanPodPolicy"]) == (1, False, "Running")
    assert made["rendezvous"] == {"backend": "service", "port": 29500}
    assert made["recovery"]["permanentExitCodes"] == [2, 126, 127]
    assert made["success"] == {"policy": "Chief", "chiefIndex": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runId": "other"}, "spec.runId is immutable"),
        ({"rendezvous": {"port": 3000}}, "spec.rendezvous is immutable"),
        ({"template": {"spec": {"schedulerName": "other"}}}, "only while spec.suspend is true"),
    ],
)
def test_a_running_job_may_be_scaled_and_suspended_and_nothing_else(
    site: Site, space: str, change: dict[str, Any], words: str
) -> None:
    name = "changed-" + words.split()[0].replace("spec.", "").lower()[:8] + str(len(words))
    site.submit(space, name, {"template": TEMPLATE, "runId": "mine"})
    with pytest.raises(ApiError) as caught:
        site.change(space, name, change)
    assert words in caught.value.words
    site.change(space, name, {"replicas": 3, "suspend": True})
    if "template" in change:
        site.change(space, name, change)


def condition(kind: str, status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": "R", "lastTransitionTime": "2026-11-20T18:59:07Z"}


def test_an_end_is_final_for_whoever_writes_the_status(site: Site, space: str) -> None:
    body = site.submit(space, "ended", {"template": TEMPLATE})
    path = f"/apis/hathi.dev/v1alpha1/namespaces/{space}/trainingjobs/ended/status"

    def write(*conditions: dict[str, str]) -> None:
        nonlocal body
        body = site.api.call("PUT", path, {**body, "status": {"conditions": list(conditions)}})

    with pytest.raises(ApiError, match="Invalid") as caught:
        write(condition("Complete"), condition("Failed"))
    assert "a job ends once" in caught.value.words
    with pytest.raises(ApiError) as caught:
        write(condition("Complete"), condition("Running"))
    assert "neither runs nor restarts" in caught.value.words
    write(condition("Complete"), condition("Running", "False"))
    with pytest.raises(ApiError) as caught:
        write(condition("Running", "False"))
    assert "the end of a job is final" in caught.value.words


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"replicaSpecs": {"replicas": 2, "template": {}}}, "invalid backend for multiple pods"),
        ({"backendSpecs": {"backendType": "nfs"}, "replicaSpecs": {"template": {}}}, "NFS backend"),
        ({"backendSpecs": {"backendType": "redis"}, "replicaSpecs": {"template": {}}}, "redis backend"),
        ({"backendSpecs": {"backendType": "mpi"}, "replicaSpecs": {"template": {}}}, "Unsupported value"),
        ({}, "Required value"),
    ],
)
def test_a_caffe2job_is_validated_as_the_seed_meant_it(site: Site, space: str, spec: Any, words: str) -> None:
    body = {"apiVersion": "kubeflow.org/v1alpha1", "kind": "Caffe2Job", "metadata": {"name": "a"}, "spec": spec}
    with pytest.raises(ApiError) as caught:
        site.post(body, namespace=space)
    assert words in caught.value.words


def test_the_seeds_sample_is_taken_as_it_stands(site: Site, space: str) -> None:
    text = (Path(__file__).parent / "samples" / "caffe2job.yaml").read_text()
    made = site.post_yaml(f"/apis/kubeflow.org/v1alpha1/namespaces/{space}/caffe2jobs", text)
    assert made["spec"]["replicaSpecs"]["template"]["spec"]["hostNetwork"] is True


def test_the_yaml_of_the_page_is_taken_as_it_stands(site: Site, space: str) -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert blocks
    for block in blocks:
        site.post_yaml(f"/apis/hathi.dev/v1alpha1/namespaces/{space}/trainingjobs", block)


def test_the_commands_of_the_page_answer(site: Site, space: str, capsys: pytest.CaptureFixture[str]) -> None:
    site.submit(space, "asked", {"template": TEMPLATE})
    config = ["--kubeconfig", str(site.cluster.kubeconfig())]
    assert main(["kube", "status", "--namespace", space, *config]) == 0
    assert "asked" in capsys.readouterr().out
    assert main(["kube", "why", "asked", "--namespace", space, *config]) == 0
    assert "is the operator installed? hathi kube check" in capsys.readouterr().out
    assert main(["kube", "why", "absent", "--namespace", space, *config]) == 2
    assert "there is no TrainingJob absent" in capsys.readouterr().err
    assert main(["kube", "check", "--json", *config]) == 1, "no operator works"
    found = {each["what"]: each["ok"] for each in json.loads(capsys.readouterr().out)}
    assert found == {
        "the API server": True, "the kind trainingjobs.hathi.dev": True, "the operator's Deployment": False,
        "the lease": False, "the operator's rights": True,
    }  # fmt: skip
