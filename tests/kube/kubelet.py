"""The tests' kubelet: one node, whose pods are processes, or nothing at all.

It uses the product's own client and cache.  A pod's process has a mount namespace of its own, whose /etc/hosts holds
what the cluster's EndpointSlices say, so that a wrong subdomain, hostname or selector breaks the rendezvous here as it
would in a cluster.  The API refuses loopback addresses: a pod is told to have 10.64.x.y, and has 127.64.x.y.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.kube.api import Api, ApiError
from pipeline.kube.informer import Informer
from pipeline.kube.times import micro_stamp, stamp

Body = dict[str, Any]
BEAT_SECONDS = 2.0
TAIL = 2048
"""Bytes of a container's log that become its last message, as a kubelet takes them."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Ran:
    """A process that was a pod: between which times it ran."""

    pod: str
    uid: str
    attempt: int
    pid: int
    began: float
    ended: float


@dataclass
class _Pod:
    """What the kubelet knows of a pod."""

    body: Body
    address: str = ""
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    ended: bool = False
    going: bool = False
    started: str = ""


@dataclass
class Kubelet:
    """A node.  folder: of logs and hosts; images: what can be pulled; pretend: seconds, None: pods are processes."""

    api: Api
    node: str
    folder: Path
    images: frozenset[str] = frozenset({"trainer"})
    environ: Mapping[str, str] = field(default_factory=dict)
    pretend: Callable[[Body], float] | None = None
    room: int = 1000
    """CPUs that it says it has."""
    devices: Mapping[str, str] = field(default_factory=dict)
    """What else it says it has, by the names of resources."""
    roots: Mapping[str, Path] = field(default_factory=dict)
    """Of images with files of their own: the folder below which a pod's workingDir lies."""
    ran: list[Ran] = field(default_factory=list)
    frozen: bool = False
    _pods: dict[str, _Pod] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _due: threading.Condition = field(default_factory=threading.Condition)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _slices: Informer | None = None

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts"

    def start(self) -> None:
        """Registers the node, and begins to watch for its pods."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hosts.write_text("127.0.0.1 localhost\n")
        body = {"metadata": {"name": self.node, "labels": {"kubernetes.io/hostname": self.node}}}
        with contextlib.suppress(ApiError):
            self.api.call("POST", "/api/v1/nodes", body)
        now = stamp(time.time())
        size = {"cpu": str(self.room), "memory": "1000Gi", "pods": "20000", **self.devices}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now,
                 "lastTransitionTime": now}  # fmt: skip
        status = {"capacity": size, "allocatable": size, "conditions": [ready]}
        self.api.call("PATCH", f"/api/v1/nodes/{self.node}/status", {"status": status})
        for name, work in (("beat", self._beat), *(("timers", self._work) for _ in range(4))):
            thread = threading.Thread(target=work, name=f"{self.node} {name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        if self.pretend is None:
            path = "/apis/discovery.k8s.io/v1/endpointslices"
            self._slices = Informer(self.api, path, lambda body: self._write_hosts(), _whole, Clock())
            self._slices.start()
        mine = {"fieldSelector": f"spec.nodeName={self.node}"}
        self._watch = Informer(self.api, "/api/v1/pods", self._changed, _whole, Clock(), **mine)
        self._watch.start()
        assert self._watch.synced.wait(30.0), self._watch.trouble

    def stop(self) -> None:
        """The node's end, and that of all its processes."""
        self._ending.set()
        for informer in (self._watch, self._slices):
            if informer is not None:
                informer.stop()
        with self._lock:
            for pod in self._pods.values():
                _signal(pod, signal.SIGKILL)
        for pod in list(self._pods.values()):
            if pod.process is not None:
                pod.process.wait()

    def freeze(self) -> None:
        """The node is cut off: it hears and says nothing, and its processes go on."""
        self.frozen = True

    def lose(self) -> None:
        """The node loses its power: it is cut off, and its processes are gone."""
        self.freeze()
        with self._lock:
            for pod in self._pods.values():
                _signal(pod, signal.SIGKILL)

    def pid_of(self, name: str) -> int | None:
        """The process of a pod that runs; None: it does not."""
        with self._lock:
            for pod in self._pods.values():
                if pod.body["metadata"]["name"] == name and pod.process is not None and not pod.ended:
                    return pod.process.pid
        return None

    def running(self, space: str) -> list[str]:
        """The pods of a namespace whose processes run here."""
        with self._lock:
            here = [pod for pod in self._pods.values() if pod.body["metadata"]["namespace"] == space]
            alive = [pod for pod in here if pod.process is not None and pod.process.poll() is None]
            return [pod.body["metadata"]["name"] for pod in alive]

    def kill(self, name: str) -> None:
        """As kill -9 of all that a pod runs."""
        with self._lock:
            for pod in self._pods.values():
                if pod.body["metadata"]["name"] == name:
                    _signal(pod, signal.SIGKILL)

    def log_of(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- the node

    def _beat(self) -> None:
        base = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while not self._ending.wait(BEAT_SECONDS):
            if self.frozen:
                continue
            spec = {"holderIdentity": self.node, "leaseDurationSeconds": 10, "renewTime": micro_stamp(time.time())}
            try:
                self.api.call("PATCH", f"{base}/{self.node}", {"spec": spec})
            except ApiError as error:
                if error.code == 404:
                    with contextlib.suppress(PipelineError):
                        self.api.call("POST", base, {"metadata": {"name": self.node}, "spec": spec})
            except PipelineError:
                continue

    def _later(self, wait: float, do: Callable[[], None]) -> None:
        with self._due:
            heapq.heappush(self._timers, (time.monotonic() + wait, next(_numbers), do))
            self._due.notify()

    def _work(self) -> None:
        while not self._ending.is_set():
            with self._due:
                if not self._timers or self._timers[0][0] > time.monotonic():
                    left = self._timers[0][0] - time.monotonic() if self._timers else 1.0
                    self._due.wait(min(1.0, max(left, 0.0)))
                    continue
                do = heapq.heappop(self._timers)[2]
            do()

    def _write_hosts(self) -> None:
        """In place: the pods' namespaces have this very file."""
        if self.frozen or self._slices is None:
            return
        with self._lock:
            mine = [pod for pod in self._pods.values() if pod.address and not pod.ended]
            lines = [f"127.0.0.1 localhost {os.uname().nodename}"]
            lines += [f"{local(pod.address)} {self._name_of(pod)}" for pod in mine if not _is_of_host(pod)]
            for each in self._slices.all():
                meta = each["metadata"]
                service = (meta.get("labels") or {}).get("kubernetes.io/service-name", "")
                for end in each.get("endpoints") or ():
                    # Of a pod that has a name; else of the Service, where its addresses are written down by hand.
                    name = f"{service}.{meta['namespace']}.svc {service}"
                    if end.get("hostname"):
                        name = f"{end['hostname']}.{service}.{meta['namespace']}.svc"
                    elif end.get("targetRef"):
                        continue
                    lines += [f"{local(address)} {name}" for address in end["addresses"]]
            self.hosts.write_text("\n".join(lines) + "\n")

    # --- pods

    def _changed(self, body: Body) -> None:
        if self.frozen or self._ending.is_set():
            return
        meta = body["metadata"]
        with self._lock:
            pod = self._pods.get(meta["uid"])
            if pod is None:
                pod = self._pods[meta["uid"]] = _Pod(body)
                pod.ended = (body.get("status") or {}).get("phase") in ("Succeeded", "Failed")
                if not pod.ended:
                    self._later(0.0, lambda: self._begin(pod))
            if meta.get("deletionTimestamp") and not pod.going:
                pod.going = True
                grace = float(meta.get("deletionGracePeriodSeconds", 30))
                self._later(0.0, lambda: self._end(pod, grace))

    def _begin(self, pod: _Pod) -> None:
        number = next(_numbers)
        pod.address, pod.started = f"10.64.{number // 250 % 250}.{number % 250 + 1}", stamp(time.time())
        main = pod.body["spec"]["containers"][0]
        if main["image"] not in self.images:
            self._tell(pod, "Pending", _waiting("ErrImagePull", f"{main['image']}: not found"))
            self._later(0.3, lambda: self._tell(pod, "Pending", _waiting("ImagePullBackOff", "it backs off")))
            return
        if self.pretend is not None:
            self._tell(pod, "Running", _running())
            self._later(self.pretend(pod.body), lambda: self._finish(pod, 0, ""))
            return
        try:
            environ = self._environ(pod, main)
            words = [_expanded(word, environ) for word in (*main.get("command", ()), *main.get("args", ()))]
        except KeyError as error:
            self._tell(pod, "Pending", _waiting("CreateContainerConfigError", f"{error} is missing"))
            return
        self._write_hosts()
        begin = f'hostname "$0" && mount --bind {self.hosts} /etc/hosts && exec "$@"'
        inside = ["unshare", "-m", "-u", "sh", "-c", begin, self._name_of(pod), *words]
        with self._lock, self._log(pod).open("ab") as log:
            if pod.going or self._ending.is_set():
                return
            pod.process = subprocess.Popen(
                inside, env=environ, cwd=self._place(main), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
            pod.began = time.time()
        threading.Thread(target=self._wait, args=(pod, pod.process), daemon=True).start()
        self._tell(pod, "Running", _running())

    def _name_of(self, pod: _Pod) -> str:
        """What its process calls its host: that of the node where it has the node's network."""
        own = pod.body["spec"].get("hostname") or pod.body["metadata"]["name"]
        return os.uname().nodename if _is_of_host(pod) else own

    def _place(self, container: Body) -> Path:
        where, root = container.get("workingDir"), self.roots.get(container["image"])
        if root is not None:
            return root / where.lstrip("/") if where else root
        return Path(where) if where else self.folder

    def _log(self, pod: _Pod) -> Path:
        return self.folder / f"{pod.body['metadata']['name']}.log"

    def _environ(self, pod: _Pod, container: Body) -> dict[str, str]:
        """Raises KeyError for a Secret or a ConfigMap that is not there."""
        found = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environ}
        for each in container.get("env") or ():
            found[each["name"]] = _expanded(self._value(pod, each), found)
        return found

    def _value(self, pod: _Pod, each: Body) -> str:
        source = each.get("valueFrom") or {}
        meta = pod.body["metadata"]
        if "fieldRef" in source:
            known = {"metadata.name": meta["name"], "metadata.namespace": meta["namespace"],
                     "metadata.uid": meta["uid"], "status.podIP": pod.address, "spec.nodeName": self.node}  # fmt: skip
            return known[source["fieldRef"]["fieldPath"]]
        for word, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if word in source:
                ref = source[word]
                body = self.api.call("GET", f"/api/v1/namespaces/{meta['namespace']}/{plural}/{ref['name']}")
                return str(body["data"][ref["key"]])
        return str(each.get("value") or "")

    def _wait(self, pod: _Pod, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        meta = pod.body["metadata"]
        attempt = int((meta.get("labels") or {}).get("hathi.dev/attempt", "0"))
        self.ran.append(Ran(meta["name"], meta["uid"], attempt, process.pid, pod.began, time.time()))
        main = pod.body["spec"]["containers"][0]
        says = main.get("terminationMessagePolicy") == "FallbackToLogsOnError" and code != 0
        message = self._log(pod).read_bytes()[-TAIL:].decode(errors="replace") if says else ""
        self._finish(pod, code if code >= 0 else 128 - code, message)

    def _finish(self, pod: _Pod, code: int, message: str) -> None:
        if pod.ended:
            return
        pod.ended = True
        reason = "Error" if code else "Completed"
        state = {"exitCode": code, "reason": reason, "message": message, "finishedAt": stamp(time.time())}
        self._tell(pod, "Failed" if code else "Succeeded", {"terminated": state})

    def _tell(self, pod: _Pod, phase: str, state: Body) -> None:
        """As a kubelet does: it tells until it is heard."""
        meta, now = pod.body["metadata"], stamp(time.time())
        ready = str("running" in state)
        conditions = {"PodScheduled": "True", "Initialized": "True", "ContainersReady": ready, "Ready": ready}
        status = {
            "phase": phase, "podIP": pod.address, "podIPs": [{"ip": pod.address}], "hostIP": "10.63.0.1",
            "startTime": pod.started,
            "containerStatuses": [
                {"name": each["name"], "image": each["image"], "imageID": "x", "ready": "running" in state,
                 "started": "running" in state, "restartCount": 0, "state": state, "lastState": {}}
                for each in pod.body["spec"]["containers"]
            ],
            "conditions": [{"type": kind, "status": word, "lastTransitionTime": now}
                           for kind, word in conditions.items()],
        }  # fmt: skip
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        self._until_heard("PATCH", path, {"metadata": {"uid": meta["uid"]}, "status": status})

    def _until_heard(self, method: str, path: str, body: Body) -> None:
        while not self.frozen and not self._ending.is_set():
            try:
                self.api.call(method, path, body)
                return
            except ApiError as error:
                if error.code in (404, 409, 422):  # it is gone, or is another one
                    return
            except PipelineError:
                pass
            time.sleep(0.2)

    def _end(self, pod: _Pod, grace: float) -> None:
        """SIGTERM, a wait, SIGKILL; then the object goes."""
        with self._lock:
            _signal(pod, signal.SIGTERM)
        if pod.process is None or pod.process.poll() is not None:
            self._remove(pod)
            return
        threading.Thread(target=self._outlive, args=(pod, pod.process, grace), daemon=True).start()

    def _outlive(self, pod: _Pod, process: subprocess.Popen[bytes], grace: float) -> None:
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            _signal(pod, signal.SIGKILL)
            process.wait()
        self._remove(pod)

    def _remove(self, pod: _Pod) -> None:
        meta = pod.body["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": meta["uid"]}}
        self._until_heard("DELETE", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", body)


def seconds_of_seed(seed: int, most: float) -> Callable[[Body], float]:
    """How long pretended pods run."""
    chance = random.Random(seed)
    return lambda body: most * (0.5 + chance.random() / 2)


def _whole(body: Body) -> Body:
    return body


def local(address: str) -> str:
    """Where an address of a pod is on this host."""
    return address.replace("10.64.", "127.64.")


def _is_of_host(pod: _Pod) -> bool:
    """Whether it has the node's network, and so its name."""
    return bool(pod.body["spec"].get("hostNetwork"))


def _running() -> Body:
    return {"running": {"startedAt": stamp(time.time())}}


def _waiting(reason: str, message: str) -> Body:
    return {"waiting": {"reason": reason, "message": message}}


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    """`$(NAME)` as the value of a variable that is known, else as it stands."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda found: environ.get(found[1], found[0]), text)


def _signal(pod: _Pod, number: int) -> None:
    if pod.process is not None and pod.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pod.process.pid, number)
