"""A cluster with the operator installed: kinds, rights, nodes of the tests' kubelet, jobs, and what became of them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from pipeline.kube import manifests
from pipeline.kube.api import Api, ApiError
from pipeline.kube.names import ATTEMPT, JOB, OPERATOR
from tests.kube.kubelet import Kubelet
from tests.servers.demand import Server, until
from tests.servers.kube import ADMIN, Cluster

ROOT = Path(__file__).parents[2]
HOME = "hathi-system"
Body = dict[str, Any]


@dataclass
class Site:
    """A cluster.  api: as its admin.  bin: the folder of `hathi`, which pods find on their PATH."""

    cluster: Cluster
    folder: Path
    api: Api = field(init=False)
    nodes: dict[str, Kubelet] = field(default_factory=dict)
    operators: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.api = Api(self.cluster.credentials(), threads=16)

    # --- what is installed

    def install(self, *, caffe2: bool = True) -> None:
        """What `hathi kube manifests` prints; the operator itself is a process of the tests, as its service account."""
        wish = manifests.Wish(home=HOME, caffe2=caffe2)
        for text in manifests.kinds(wish):
            self.post_yaml("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", text)
        for body in manifests.objects(wish):
            self.post(body)
        for name in ("trainingjobs.hathi.dev", *(["caffe2jobs.kubeflow.org"] if caffe2 else [])):
            until(lambda name=name: self._established(name), f"{name} is established")  # type: ignore[misc]

    def post(self, body: Body, *, namespace: str = "", **query: str) -> Body:
        """Creates any object that the manifests hold, strictly."""
        path = path_of(body, namespace)
        return self.api.call("POST", path, body, fieldValidation="Strict", **query)

    def post_yaml(self, path: str, text: str, token: str = ADMIN) -> Body:
        """As kubectl sends it: the API server reads YAML itself.  Raises ApiError."""
        pool = urllib3.PoolManager(ca_certs=str(self.cluster.ca))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/yaml", "Accept": "application/json"}
        url = f"{self.cluster.url}{path}?fieldValidation=Strict"
        answer = pool.request("POST", url, body=text.encode(), headers=headers, timeout=30.0, retries=False)
        body: Body = json.loads(answer.data)
        if answer.status >= 400:
            raise ApiError(answer.status, str(body.get("reason")), str(body.get("message")), path)
        return body

    def _established(self, name: str) -> bool:
        body = self.api.call("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
        conditions = (body.get("status") or {}).get("conditions") or []
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    def account(self) -> str:
        """A token of the operator's service account."""
        path = f"/api/v1/namespaces/{HOME}/serviceaccounts/{OPERATOR}"
        until(lambda: self._there(path), "the operator's service account")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        token: str = self.api.call("POST", f"{path}/token", body)["status"]["token"]
        return token

    def _there(self, path: str) -> bool:
        try:
            self.api.call("GET", path)
        except ApiError:
            return False
        return True

    def operator(self, *more: str, dies: Sequence[str] = (), lease: bool = False) -> Server:
        """A process `hathi kube operator`, as its service account.  dies: at which point (dying_operator.py)."""
        config = self.cluster.kubeconfig(self.account())
        words = ["kube", "operator", "--kubeconfig", str(config), "--port", "0", "--caffe2jobs", *more]
        words += ["--lease", HOME] if lease else []
        module = ["tests.kube.dying_operator", *dies] if dies else ["pipeline.cli.main"]
        log = self.folder / f"operator-{len(self.operators)}.log"
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        server = Server.start([sys.executable, "-m", *module, *words], log=log, env=environ, cwd=self.folder)
        self.operators.append(server)
        return server

    @contextlib.contextmanager
    def operating(self, *more: str, lease: bool = False) -> Iterator[Server]:
        server = self.operator(*more, lease=lease)
        try:
            yield server
        finally:
            server.stop()

    def node(self, name: str, **how: Any) -> Kubelet:
        environ = {"HATHI_DEMAND_SERVERS": "", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        api = Api(self.cluster.credentials(), threads=16)
        node = Kubelet(api, name, self.folder / name, environ={**environ, "PATH": path}, **how)
        node.start()
        self.nodes[name] = node
        return node

    def leave(self, name: str) -> None:
        """A node's end, which the API server is told, so that nothing is bound there any more."""
        self.nodes.pop(name).stop()
        self.api.call("DELETE", f"/api/v1/nodes/{name}")

    def space(self, name: str) -> str:
        """A namespace, with the account that its pods have."""
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        until(lambda: self._there(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "the namespace's account")
        return name

    # --- jobs

    def job(self, space: str, name: str, kind: str = "trainingjobs") -> Body:
        return self.api.call("GET", _path(space, name, kind))

    def submit(self, space: str, name: str, spec: Body) -> Body:
        body = {"apiVersion": "hathi.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}
        return self.api.call("POST", _path(space, "", "trainingjobs"), body, fieldValidation="Strict")

    def change(self, space: str, name: str, spec: Body) -> None:
        self.api.call("PATCH", _path(space, name, "trainingjobs"), {"spec": spec})

    def status(self, space: str, name: str) -> Body:
        found: Body = self.job(space, name).get("status") or {}
        return found

    def until(self, space: str, name: str, ready: Callable[[Body], bool], what: str, seconds: float = 120.0) -> Body:
        """Waits for a status; what the job's story is where it does not come."""
        try:
            until(lambda: ready(self.status(space, name)), what, seconds)
        except TimeoutError as error:
            status = json.dumps(self.status(space, name), indent=1)
            said = "".join(each.last_words() for each in self.operators[-2:])
            logs = "".join(f"\n{pod['metadata']['name']}: {self.log(pod)[-800:]}" for pod in self.pods(space, name))
            raise AssertionError(f"{error}\n{status}\n{said}{logs}") from error
        return self.status(space, name)

    def ends(self, space: str, name: str, state: str = "Complete", seconds: float = 240.0) -> Body:
        def ended(status: Body) -> bool:
            return status.get("state") in ("Complete", "Failed")

        status = self.until(space, name, ended, f"{name} ends", seconds)
        assert status["state"] == state, f"{status}\n{self.logs(space, name)}"
        return status

    def runs(self, space: str, name: str, attempt: int, seconds: float = 120.0) -> Body:
        def running(status: Body) -> bool:
            assert status.get("state") != "Failed", status
            return status.get("state") == "Running" and status["attempt"] == attempt

        return self.until(space, name, running, f"attempt {attempt} of {name} runs", seconds)

    def pods(self, space: str, name: str) -> list[Body]:
        return self.api.list(f"/api/v1/namespaces/{space}/pods", labelSelector=f"{JOB}={name}")[0]

    def alive(self, space: str, name: str) -> list[Body]:
        phases = ("Pending", "Running")
        return [pod for pod in self.pods(space, name) if (pod.get("status") or {}).get("phase") in phases]

    def delete_pod(self, space: str, name: str) -> None:
        self.api.call("DELETE", f"/api/v1/namespaces/{space}/pods/{name}", {"gracePeriodSeconds": 5})

    def log(self, pod: Body) -> str:
        return "".join(node.log_of(pod["metadata"]["name"]) for node in self.nodes.values())

    def logs(self, space: str, name: str) -> str:
        return "\n".join(self.log(pod)[-1500:] for pod in self.pods(space, name))

    def overlaps(self) -> list[str]:
        """Attempts of one job whose processes ran at the same time, of all that has ended."""
        found = []
        ran = [each for node in self.nodes.values() for each in node.ran]
        for number, one in enumerate(ran):
            for other in ran[number + 1 :]:
                same = one.pod.rsplit("-", 2)[0] == other.pod.rsplit("-", 2)[0]
                if same and one.attempt != other.attempt and one.began < other.ended and other.began < one.ended:
                    times = [f"{each.began:.2f} to {each.ended:.2f}" for each in (one, other)]
                    found.append(f"{one.pod} {times[0]}, {other.pod} {times[1]}")
        return found

    def stop(self) -> None:
        for server in self.operators:
            if server.runs:
                server.stop()
        for node in self.nodes.values():
            node.stop()


def path_of(body: Body, namespace: str = "") -> str:
    """Where an object of the manifests is created."""
    meta = body["metadata"]
    version, kind = body["apiVersion"], body["kind"]
    plural = f"{kind.lower()}s" if not kind.endswith("y") else f"{kind.lower()[:-1]}ies"
    start = "/api/v1" if version == "v1" else f"/apis/{version}"
    space = meta.get("namespace") or namespace
    return f"{start}/namespaces/{space}/{plural}" if space else f"{start}/{plural}"


def _path(space: str, name: str, kind: str) -> str:
    group = "kubeflow.org" if kind == "caffe2jobs" else "hathi.dev"
    return f"/apis/{group}/v1alpha1/namespaces/{space}/{kind}" + (f"/{name}" if name else "")


def attempt_of(pod: Body) -> int:
    return int(pod["metadata"]["labels"][ATTEMPT])


def seconds() -> float:
    return time.monotonic()
