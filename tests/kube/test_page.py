"""docs/kubernetes.md, typed: each of its commands, by kubectl and `hathi`, against the real servers.

Pods pretend: those of a Deployment run, all others succeed after a second.  Images are built elsewhere, so `docker` is
not typed (tests/acceptance/test_dockerfile.py types what it would do).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kube.site import HOME, ROOT, Site
from tests.servers.demand import until

Body = dict[str, Any]
PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
PULLED = frozenset(re.findall(r"registry\.example/[\w-]+:1", PAGE))
NOT_TYPED = ("docker ",)
SECONDS = 1.0


def seconds(body: Body) -> float:
    """How long a pod pretends to run."""
    (owner,) = body["metadata"]["ownerReferences"]
    return 3600.0 if owner["kind"] == "ReplicaSet" else SECONDS


class Shell:
    """A person's: kubectl and `hathi` on the PATH, both told by KUBECONFIG where the cluster is."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.folder = folder
        (folder / "config").mkdir()
        shutil.copytree(ROOT / "config/kubernetes", folder / "config/kubernetes")
        self.environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder),
            "KUBECONFIG": str(site.cluster.kubeconfig()),
        }  # fmt: skip

    def type(self, text: str) -> str:
        """What it prints; each command has to succeed."""
        script = f"set -eo pipefail\n{text}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environ, text=True, timeout=240,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        return done.stdout


def block(heading: str, language: str = "sh", number: int = 0) -> str:
    """A code block under a heading, without what is not typed."""
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M)
    text = re.findall(rf"^```{language}\n(.*?)^```", part, re.S | re.M)[number]
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(NOT_TYPED))


TYPED = [("Install", 0), ("A job", 0), ("Boxes, gateways and the service", 0), ("Boxes, gateways and the service", 1)]
"""Each block by its heading: all that the page has."""


@pytest.fixture(scope="module")
def shell(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """With a node and an operator that leads; what the page installs is put back to what the other tests have."""
    site.node("page", pretend=seconds, images=PULLED)
    made = Shell(site, tmp_path_factory.mktemp("page"))
    with site.operating(lease=True):
        yield made
    made.type("hathi kube manifests --caffe2jobs | kubectl apply -f -")
    made.type(f"kubectl delete namespace hathi; kubectl -n {HOME} delete deployment hathi-operator")
    site.leave("page")


def claimed(site: Site, space: str, name: str) -> None:
    """A volume that is bound, as a cluster's provisioner would make it."""
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": modes, "resources": {"requests": size}, "volumeName": name, "storageClassName": "",
    }}  # fmt: skip
    made = site.api.call("POST", f"/api/v1/namespaces/{space}/persistentvolumeclaims", claim)
    ref = {"kind": "PersistentVolumeClaim", "namespace": space, "name": name, "uid": made["metadata"]["uid"]}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "accessModes": modes, "capacity": size, "hostPath": {"path": "/tmp"}, "claimRef": ref, "storageClassName": "",
    }}  # fmt: skip
    site.api.call("POST", "/api/v1/persistentvolumes", volume)
    path = f"/api/v1/namespaces/{space}/persistentvolumeclaims/{name}"
    site.api.call("PATCH", path, {"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}})
    site.api.call("PATCH", f"{path}/status", {"status": {"phase": "Bound", "accessModes": modes, "capacity": size}})


def test_each_block_of_the_page_is_typed_here() -> None:
    headings = re.findall(r"^(?:## (.*)|```sh)$", PAGE, re.M)
    found, heading = [], ""
    for each in headings:
        if each:
            heading, number = each, 0
        else:
            found.append((heading, number))
            number += 1
    assert found == TYPED


def test_the_operator_is_installed_and_a_job_runs_to_its_end(shell: Shell, site: Site) -> None:
    install, check = block(*TYPED[0][:1]).splitlines()
    shell.type(install)
    shell.type(f"kubectl -n {HOME} rollout status --timeout=60s deployment/hathi-operator")
    shown = shell.type(check)
    assert "NOT" not in shown
    assert "2 of 2 replicas ready" in shown
    claimed(site, "default", "shared")
    (shell.folder / "digits.yaml").write_text(block("A job", "yaml"))
    shown = shell.type(block("A job"))
    assert "trainingjob.hathi.dev/digits condition met" in shown
    assert re.search(r"default +digits +Complete", shown)
    assert "ChiefSucceeded" in shown or "Complete" in shown


def test_boxes_gateways_and_the_service_are_applied_and_their_pods_run(shell: Shell, site: Site) -> None:
    (shell.folder / "bucket.env").write_text("HATHI_BUCKET__ACCESS_KEY=a\nHATHI_BUCKET__SECRET_KEY=b\n")
    (shell.folder / "service.env").write_text("HATHI_SERVICE__DATABASE=postgresql://u:p@h/d\n")
    shell.type(block(*TYPED[2][:1]))
    wanted = {"hathi-compute": 1, "hathi-gateway": 1, "hathi-light": 1, "hathi-service": 2, "hathi-train": 1}
    for name in wanted:
        shell.type(f"kubectl -n hathi rollout status --timeout=60s deployment/{name}")
    bodies, _ = site.api.list("/apis/apps/v1/namespaces/hathi/deployments")
    assert {body["metadata"]["name"]: body["status"]["readyReplicas"] for body in bodies} == wanted
    found = {one["what"]: one["words"] for one in json.loads(shell.type("hathi kube check --json")) if one["ok"]}
    assert found["fetch.share of hathi/hathi-compute"] == "it is 1/4, and there may be 4 boxes"
    shell.type('kubectl -n hathi patch hpa hathi-compute -p \'{"spec": {"maxReplicas": 5}}\'')
    found = {one["what"]: one["hint"] for one in json.loads(shell.type("hathi kube check --json || true"))}
    assert "1/5" in found["fetch.share of hathi/hathi-compute"]


def test_estop_is_put_into_the_bucket_by_a_job_of_its_own(shell: Shell, site: Site) -> None:
    shell.type(block(TYPED[3][0], number=TYPED[3][1]))
    for name in ("stop", "start", "service-stop", "service-start", "migrate"):
        shell.type(f"kubectl -n hathi wait --for=condition=Complete --timeout=60s job/{name}")
        (pod,) = site.api.list("/api/v1/namespaces/hathi/pods", labelSelector=f"job-name={name}")[0]
        words = [name.removeprefix("service-"), "--remote"] if name != "migrate" else ["service", "migrate"]
        assert pod["spec"]["containers"][0]["args"] == words


def test_pods_of_the_page_are_of_the_restricted_standard(shell: Shell, site: Site) -> None:
    """Where the namespace enforces it, all pods are made again, and one that is not of it is refused."""
    shell.type("kubectl label --overwrite namespace hathi pod-security.kubernetes.io/enforce=restricted")
    shell.type("kubectl -n hathi delete pods --all --grace-period=0 --force")

    def ready() -> bool:
        bodies, _ = site.api.list("/apis/apps/v1/namespaces/hathi/deployments")
        return all(body["status"].get("readyReplicas") == body["spec"]["replicas"] for body in bodies)

    until(ready, "all Deployments are ready again", 60.0)
    refused = shell.type("kubectl -n hathi run root --image=hathi --dry-run=server 2>&1 || true")
    assert 'violates PodSecurity "restricted' in refused
