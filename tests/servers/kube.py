"""A real Kubernetes without nodes: etcd, kube-apiserver, controller-manager and scheduler, as processes on loopback.

No registry has a kube-apiserver to download, so one Go program is compiled that holds all four (`kube_program`): about
11 minutes of one core, once for each machine; it is kept in the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.kube.credentials import Credentials
from tests.servers.demand import Server, Uninstalled, free_port, installed, missing

VERSION = "v1.37.2"
SOURCES = Path(__file__).parent / "kube_program"
ADMIN = "the-tests-admin"
"""A token of system:masters."""
CONTROLLERS = (
    "garbage-collector-controller", "namespace-controller", "pod-garbage-collector-controller",
    "node-lifecycle-controller", "taint-eviction-controller", "endpointslice-controller", "serviceaccount-controller",
    "serviceaccount-token-controller", "deployment-controller", "replicaset-controller", "job-controller",
    "podgroup-protection-controller",
)  # fmt: skip

GATES = "--feature-gates=GenericWorkload=true"
"""Kubernetes' own gangs, which 1.37 has behind a gate."""
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}

__all__ = ["Cluster", "Uninstalled", "install", "running"]


def install() -> Path:
    """The program, from the cache or compiled.  Raises Uninstalled."""

    def make(folder: Path) -> None:
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
        if go is None:
            raise Uninstalled("Kubernetes' servers are compiled with Go, which is not here: https://go.dev/dl")
        words = "k8s.io/component-base/version"
        said = f"-s -w -X {words}.gitVersion={VERSION} -X {words}.gitMajor=1 -X {words}.gitMinor=37"
        with tempfile.TemporaryDirectory(prefix="hathi-go-") as built:  # it grows to 4 GB
            environ = {**os.environ, "GOCACHE": built, "GOGC": "400", "CGO_ENABLED": "0"}
            command = [go, "build", "-trimpath", "-ldflags", said, "-o", str(folder / "kube"), "."]
            done = subprocess.run(command, cwd=SOURCES, env=environ, capture_output=True, text=True)
        if done.returncode != 0:
            raise Uninstalled(f"go build of Kubernetes {VERSION} failed: {done.stderr.strip()[-500:]}")

    return installed(f"kube-{VERSION}", make) / "kube"


@dataclass
class Cluster:
    """Four processes over one folder; each keeps its port when it is started again."""

    folder: Path
    program: Path
    port: int = field(default_factory=free_port)
    etcd_port: int = field(default_factory=free_port)
    servers: dict[str, Server] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The API server signs itself: its certificate is its authority."""
        return self.folder / "pki" / "apiserver.crt"

    def credentials(self, token: str = ADMIN, namespace: str = "default") -> Credentials:
        return Credentials(self.url, namespace, lambda: token, str(self.ca))

    def kubeconfig(self, token: str = ADMIN) -> Path:
        """A kubeconfig in JSON, which kubectl reads as well."""
        path = self.folder / f"kubeconfig-{abs(hash(token))}.json"
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        body = {
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        }  # fmt: skip
        path.write_text(json.dumps(body))
        return path

    def start(self) -> None:
        self.start_etcd()
        self.start_api()
        config = str(self.kubeconfig())
        key = str(self.folder / "service-accounts.key")
        self._begin("controllers", [
            "--kubeconfig", config, "--service-account-private-key-file", key, "--leader-elect=false",
            f"--controllers={','.join(CONTROLLERS)}", "--node-monitor-grace-period=10s", "--node-monitor-period=1s",
            "--secure-port=0", "--use-service-account-credentials=false", GATES,
        ])  # fmt: skip
        self._begin("scheduler", ["--kubeconfig", config, "--leader-elect=false", "--secure-port=0", GATES])

    def start_etcd(self) -> None:
        url = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{free_port()}"
        self._begin("etcd", [
            "--data-dir", str(self.folder / "etcd"), "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
            "--unsafe-no-fsync", "--log-level", "error",
        ])  # fmt: skip

    def start_api(self) -> None:
        key = self.folder / "service-accounts.key"
        if not key.exists():
            subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
            (self.folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        policy = self.folder / "audit.json"
        policy.write_text(json.dumps(_AUDIT))
        server = self._begin("apiserver", [
            "--etcd-servers", f"http://127.0.0.1:{self.etcd_port}", "--bind-address", "127.0.0.1",
            "--secure-port", str(self.port), "--cert-dir", str(self.folder / "pki"),
            "--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", str(key),
            "--service-account-signing-key-file", str(key), "--token-auth-file", str(self.folder / "tokens.csv"),
            "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
            "--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none",
            "--audit-policy-file", str(policy), "--audit-log-path", str(self.audit),
            "--enable-admission-plugins", "OwnerReferencesPermissionEnforcement",
            GATES, "--runtime-config", "scheduling.k8s.io/v1beta1=true",
        ])  # fmt: skip
        server.until(self.is_ready, "kube-apiserver is ready", 120.0)

    def is_ready(self) -> bool:
        import ssl

        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN}"})
            with urllib.request.urlopen(request, timeout=2.0, context=context) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def audit(self) -> Path:
        return self.folder / "audit.log"

    def audited(self) -> list[dict[str, Any]]:
        """What service accounts have asked, as the API server wrote it down."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()] if self.audit.exists() else []

    def kill(self, name: str) -> None:
        """As kill -9: etcd, apiserver, controllers or scheduler."""
        self.servers[name].kill()

    def stop(self) -> None:
        for server in reversed(self.servers.values()):
            server.stop()

    def _begin(self, name: str, words: Sequence[str]) -> Server:
        server = Server.start([self.program, name, *words], log=self.folder / f"{name}.log", cwd=self.folder)
        self.servers[name] = server
        return server


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster that ends with the block; a test that cannot have it fails where servers are demanded."""
    try:
        program = install()
    except Uninstalled as error:
        missing(str(error))
    with tempfile.TemporaryDirectory(prefix="hathi-kube-") as folder:
        cluster = Cluster(Path(folder), program)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
