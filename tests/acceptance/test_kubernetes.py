"""config/kubernetes/ as far as it can be tried without a cluster: each kustomization is built by kubectl itself, each
object judged by Kubernetes' own schema, and each container's words, configuration and probes by the product; then box
and gateway run as the Deployments begin them, until ESTOP stands in the bucket.

tests/kube/test_admission.py has the real API server take the same objects.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.cli.main import _parser
from pipeline.kube import manifests
from pipeline.operations.metrics import port_of
from pipeline.process.stop import DRAIN_SECONDS
from pipeline.settings import Settings, load
from tests.acceptance.conftest import ROOT
from tests.environment import environ
from tests.servers.databases import needs_the_extra
from tests.servers.demand import Server, free_port, until

needs_the_extra()

from pipeline.service.http.server import GRACE_SECONDS  # noqa: E402
from pipeline.service.work.attempt import PARTING_SECONDS  # noqa: E402

FOLDER = ROOT / "config/kubernetes"
FOLDERS = ("operator", "compute", "gateway", "service")
VERSIONS = ("1.31", "1.37")
"""The oldest Kubernetes that the page names, and that of the tests' servers."""
METRICS_PORT = 9464
DATABASE = "postgresql://u:p@h.invalid/d"
KUBECTL = Path(sys.executable).parent / "kubectl"
Body = dict[str, Any]


@cache
def built(folder: str) -> list[Body]:
    """The objects of a kustomization."""
    done = subprocess.run([KUBECTL, "kustomize", FOLDER / folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(folder: str) -> Iterator[tuple[Body, Body]]:
    """Each object that makes pods, with their spec."""
    for body in built(folder):
        if body["kind"] == "Deployment":
            yield body, body["spec"]["template"]["spec"]
        elif body["kind"] == "CronJob":
            yield body, body["spec"]["jobTemplate"]["spec"]["template"]["spec"]


ALL = [(folder, body["metadata"]["name"], spec) for folder in FOLDERS for body, spec in pods(folder)]
each_pod = pytest.mark.parametrize(("folder", "name", "spec"), ALL, ids=lambda one: one if isinstance(one, str) else "")


def settings_of(folder: str, spec: Body, more: Mapping[str, str]) -> Settings:
    """As a container of it reads them.  more: what Secrets bring."""
    variables = {one["name"]: one["value"] for one in spec["containers"][0]["env"]}
    (mounted,) = [one for one in spec["volumes"] if one["name"] == "configuration"]
    (made,) = [one for one in built(folder) if one["kind"] == "ConfigMap"]
    assert mounted["configMap"]["name"] == made["metadata"]["name"]
    place = Path(variables.pop("HATHI_CONFIG"))
    assert {"name": "configuration", "mountPath": str(place.parent), "readOnly": True} in mounts(spec)
    assert list(made["data"]) == [place.name]
    assert tomllib.loads(made["data"][place.name])
    return load(FOLDER / folder / place.name, {**variables, **more})


def mounts(spec: Body) -> list[Body]:
    return list(spec["containers"][0]["volumeMounts"])


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_object_is_one_that_kubernetes_knows_without_a_field_too_many(folder: str, version: str) -> None:
    judged = [body for body in built(folder) if "k8s.io" in body["apiVersion"] or "." not in body["apiVersion"]]
    assert len(judged) == len(built(folder))
    for body in judged:
        kubernetes_validate.validate(body, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_seen() -> None:
    body = built("compute")[1] | {"spec": {**built("compute")[1]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(body, VERSIONS[-1], strict=True)


def test_the_operators_file_is_what_the_command_prints() -> None:
    text = (FOLDER / "operator/operator.yaml").read_text()
    wish = manifests.Wish(image="hathi")
    assert text == manifests.printed(wish), (
        "hathi kube manifests --image hathi > config/kubernetes/operator/operator.yaml"
    )


@each_pod
def test_each_container_says_what_the_command_line_takes_and_reads_its_configuration(
    folder: str, name: str, spec: Body
) -> None:
    (container,) = spec["containers"]
    assert "command" not in container, "the image's entry point is hathi"
    args = _parser(container["args"][0]).parse_args(container["args"])
    assert args.command is not None
    if folder == "operator":
        return
    settings = settings_of(folder, spec, {"HATHI_SERVICE__DATABASE": DATABASE})
    listens = {settings.service.listen, settings.service.metrics_listen} - {None}
    if container["args"][0] == "serve":
        assert settings.metrics.port is not None
        listens = {f"{settings.metrics.address}:{port_of(settings.metrics.port, args.stages)}"}
    ports = {one["name"]: one["containerPort"] for one in container.get("ports", ())}
    assert {f"0.0.0.0:{port}" for port in ports.values()} <= listens, "a pod is reached by its own address"
    for probe in (container.get("livenessProbe"), container.get("readinessProbe")):
        assert probe is None or probe["httpGet"]["port"] in ports


@each_pod
def test_each_pod_is_of_the_restricted_standard_and_has_time_to_end_in_good_order(
    folder: str, name: str, spec: Body
) -> None:
    around, inside = spec["securityContext"], spec["containers"][0]["securityContext"]
    (user,) = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert (around["runAsNonRoot"], around["runAsUser"]) == (True, int(user))
    assert around["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert (spec.get("automountServiceAccountToken", True) is True) == (folder == "operator")
    if folder != "operator":
        assert {one["mountPath"] for one in mounts(spec)} == {"/etc/hathi", "/var/lib/hathi", "/tmp"}
    needs = {"hathi-train": PARTING_SECONDS, "hathi-light": PARTING_SECONDS, "hathi-service": GRACE_SECONDS}
    assert spec.get("terminationGracePeriodSeconds", 30) > needs.get(name, DRAIN_SECONDS)


def test_each_box_has_its_part_of_what_a_host_is_asked_for_by_as_many_as_there_may_be() -> None:
    (scaling,) = [one for one in built("compute") if one["kind"] == "HorizontalPodAutoscaler"]
    (spec,) = [spec for _, spec in pods("compute")]
    most = scaling["spec"]["maxReplicas"]
    assert most > 1
    assert settings_of("compute", spec, {}).fetch.share == 1 / most
    metric = scaling["spec"]["metrics"][0]["external"]["metric"]
    assert f"`{metric['name']}{{lake, stage}}`" in (ROOT / "docs/metrics.md").read_text()
    assert metric["selector"]["matchLabels"]["stage"] == "compute"


def test_who_changes_the_largest_number_of_boxes_changes_the_part_of_each(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "compute", tmp_path / "compute")
    scaling = tmp_path / "compute/scaling.yaml"
    scaling.write_text(re.sub(r"maxReplicas: \d+", "maxReplicas: 10", scaling.read_text()))
    done = subprocess.run([KUBECTL, "kustomize", tmp_path / "compute"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bodies = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert bodies["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 10
    variables = bodies["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "HATHI_FETCH__SHARE", "value": "1/10"} in variables


def test_the_service_wants_no_more_workers_than_kubernetes_makes() -> None:
    (spec, *_) = [spec for body, spec in pods("service") if body["metadata"]["name"] == "hathi-service"]
    workers = settings_of("service", spec, {"HATHI_SERVICE__DATABASE": DATABASE}).service.workers
    scaled = {
        one["metadata"]["name"]: one["spec"] for one in built("service") if one["kind"] == "HorizontalPodAutoscaler"
    }
    assert {name: (one["minReplicas"], one["maxReplicas"]) for name, one in scaled.items()} == {
        "hathi-train": (workers.train_min, workers.train_max),
        "hathi-light": (workers.light_min, workers.light_max),
    }
    deployed = {body["metadata"]["name"] for body, _ in pods("service")}
    for name, one in scaled.items():
        assert one["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert name in deployed
        metric = one["metrics"][0]["external"]["metric"]
        assert f"`{metric['name']}{{kind}}`" in (ROOT / "docs/service.md").read_text()
        assert f"hathi-{metric['selector']['matchLabels']['kind']}" == name


@dataclass(frozen=True)
class Node:
    """Runs a container as a process: the state in a folder of its own, the bucket and the lake in folders beside it."""

    folder: Path
    ports: Mapping[str, int]
    """metrics.port of each; a node of Kubernetes gives each pod an address of its own in place of that."""

    def is_ready(self, folder: str) -> bool:
        """By the container's own probe."""
        (container,) = [one for _, spec in pods(folder) for one in spec["containers"] if "readinessProbe" in one]
        probe = container["readinessProbe"]["httpGet"]
        (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == probe["port"]]
        here = port - METRICS_PORT + self.ports[folder]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{here}{probe['path']}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def variables(self, folder: str, spec: Body) -> dict[str, str]:
        given = {one["name"]: one["value"] for one in spec["containers"][0]["env"]}
        own = {
            "HATHI_CONFIG": str(FOLDER / folder / Path(given["HATHI_CONFIG"]).name),
            "HATHI_STATE": str(self.folder / folder / "state"),
            "HATHI_LOGS__FOLDER": str(self.folder / folder / "logs"),
            "HATHI_BUCKET__URL": str(self.folder / "bucket"),
            "HATHI_DAEMON__POLL_SECONDS": "0.2",
            "HATHI_METRICS__PORT": str(self.ports.get(folder, METRICS_PORT)),
        }
        if folder == "service":
            own["HATHI_SERVICE__DATABASE"] = DATABASE
        if folder == "gateway":
            own["HATHI_LAKES__MAIN__URL"] = str(self.folder / "lake")
        return environ(**{**given, **own})

    def start(self, folder: str) -> Server:
        """The Deployment's container."""
        (spec,) = [spec for body, spec in pods(folder) if body["kind"] == "Deployment"]
        words = [*entry_point(), *spec["containers"][0]["args"]]
        (self.folder / folder).mkdir(exist_ok=True)
        log = self.folder / folder / "container.log"
        return Server.start(words, log=log, env=self.variables(folder, spec), cwd=self.folder)

    def runs(self, folder: str, name: str) -> None:
        """A job of a CronJob, to its end."""
        (spec,) = [spec for body, spec in pods(folder) if body["metadata"]["name"] == name]
        words = [*entry_point(), *spec["containers"][0]["args"]]
        own = {"HATHI_STATE": str(self.folder / name / "state"), "HATHI_LOGS__FOLDER": str(self.folder / name / "logs")}
        variables = {**self.variables(folder, spec), **own}
        done = subprocess.run(words, env=variables, capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stdout + done.stderr


def entry_point() -> list[str]:
    """The image's, as the Dockerfile has it."""
    (words,) = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', (ROOT / "Dockerfile").read_text(), re.M)
    return [str(Path(sys.executable).parent / words)]


def test_an_object_in_the_bucket_stops_each_pod_and_none_works_again_until_it_is_gone(tmp_path: Path) -> None:
    node = Node(tmp_path, {"compute": free_port() - 2, "gateway": free_port()})
    for name in ("bucket", "lake/refs"):
        (tmp_path / name).mkdir(parents=True)
    node.runs("service", "hathi-service-stop")
    assert [path.name for path in (tmp_path / "bucket").rglob("*") if path.is_file()] == ["ESTOP"], "of the service"
    running = {name: node.start(name) for name in ("compute", "gateway")}
    try:
        for name, server in running.items():
            server.until(lambda name=name: node.is_ready(name), f"{name} is ready")  # type: ignore[misc]
        node.runs("gateway", "hathi-stop")
        for name, server in running.items():
            until(lambda server=server: not server.runs, f"{name} ends")  # type: ignore[misc]
            assert server.process.returncode == 4, server.last_words()
        again = node.start("compute")
        assert again.process.wait(60) == 4, "a kubelet that begins it again changes nothing"
        node.runs("gateway", "hathi-start")
        again = running["compute"] = node.start("compute")
        again.until(lambda: node.is_ready("compute"), "it works again")
        again.process.send_signal(signal.SIGTERM)
        assert again.process.wait(DRAIN_SECONDS + 10) == 0
    finally:
        for server in running.values():
            if server.runs:
                server.kill()
