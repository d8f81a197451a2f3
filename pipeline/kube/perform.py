"""One step for one job: plan, look again where it matters, write.

The order is the protocol: (1) a plan that does more than write what was seen is made anew from a live read; (2) the
status is written, with the version that was read: who comes too late gets 409 and begins again; (3) Service, group and
pods are made by name, where AlreadyExists means that they are there, and pods are deleted by uid.  Killed between two
of them, the next one sees an attempt without pods and makes them, or an end with pods and deletes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pipeline.clock import Clock, random_nonce
from pipeline.errors import PipelineError
from pipeline.kube import gang
from pipeline.kube.api import ApiError
from pipeline.kube.bodies import event_body, owner_of, pod_body, service_body
from pipeline.kube.caffe2 import caffe2_status
from pipeline.kube.model import Job, Pod, pod_of
from pipeline.kube.names import (
    API_VERSION,
    CAFFE2_API_VERSION,
    CAFFE2_KIND,
    CAFFE2_PLURAL,
    JOB,
    KIND,
    PLURAL,
    pod_name,
    resource_path,
)
from pipeline.kube.plan import Event, Plan, hindered, plan, refused
from pipeline.kube.reading import job_of
from pipeline.kube.statuses import body_of

CONFLICT_SECONDS = 0.05
TAKEN_SECONDS = 1.0
"""How soon to try again where a name belongs to something that is still going away."""
HINDERED_SECONDS = 10.0
INVALID = (400, 422)
RESOURCES = {KIND: (API_VERSION, PLURAL), CAFFE2_KIND: (CAFFE2_API_VERSION, CAFFE2_PLURAL)}


class NotLeading(PipelineError):
    """A step ends in its middle: another operator may have taken over."""


class NameTaken(PipelineError):
    """What a job needs has a name that belongs to something else."""


class Asking(Protocol):
    """What a step needs of the API server."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]: ...

    def list(self, path: str, **query: str) -> tuple[list[dict[str, Any]], str]: ...


@dataclass(frozen=True)
class Seen:
    """A job's body and the pods' bodies, from the caches or from a live read."""

    job: dict[str, Any]
    pods: Sequence[dict[str, Any]]


@dataclass
class Performer:
    """Does what plans say.  Threads may share it, each with another job.

    may: asked before each write, since a process can stand still in the middle of a step while others go on.
    wrote: told a job's new body; noted: told each event, for figures and the log.
    """

    api: Asking
    clock: Clock = field(default_factory=Clock)
    nonce: Callable[[], str] = random_nonce
    may: Callable[[], bool] = lambda: True
    wrote: Callable[[dict[str, Any]], None] = lambda body: None
    noted: Callable[[Job, Event], None] = lambda job, event: None
    say: Callable[[str], None] = lambda text: None
    services: set[str] = field(default_factory=set)
    """Uids of jobs whose Service is known to be there."""

    def step(self, kind: str, seen: Seen) -> float | None:
        """What the job needs now.  Returns the seconds until the next look at the latest; None: nothing is due.

        Raises PipelineError where the API server cannot be asked; the step is taken again then.
        """
        job = job_of(seen.job, kind)
        if job.deleted:
            self.services.discard(job.uid)
            return None
        if job.problem:
            self.say(f"{job.namespace}/{job.name} cannot be read and is left alone: {job.problem}")
            return None
        todo = self._planned(job, seen.pods)
        if todo.drastic:
            live = self._live(job)
            if live is None:
                return None
            seen = live
            job = job_of(seen.job, kind)
            todo = self._planned(job, seen.pods)
        try:
            return self._do(job, seen, todo)
        except ApiError as error:
            if error.code == 409:
                return CONFLICT_SECONDS
            raise

    def _ask(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A write.  Raises NotLeading where somebody else may do this work by now."""
        if not self.may():
            raise NotLeading("this operator does not lead any more", f"{method} {path} was left out")
        return self.api.call(method, path, body)

    def _planned(self, job: Job, bodies: Sequence[dict[str, Any]]) -> Plan:
        return plan(job, self._pods(job, bodies), self.clock.now(), has_service=job.uid in self.services)

    def _pods(self, job: Job, bodies: Sequence[dict[str, Any]]) -> list[Pod]:
        """Those that belong to this job, not to one before it with the same name."""
        return [pod for pod in map(pod_of, bodies) if pod is not None and job.uid in pod.owners]

    def _live(self, job: Job) -> Seen | None:
        """Job and pods as they are now; None where the job is not there any more, or is another one."""
        try:
            body = self.api.call("GET", self._path(job))
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        if body["metadata"]["uid"] != job.uid or "deletionTimestamp" in body["metadata"]:
            return None
        pods, _ = self.api.list(resource_path("v1", "pods", job.namespace), labelSelector=f"{JOB}={job.name}")
        return Seen(body, pods)

    def _path(self, job: Job, part: str = "") -> str:
        version, plural = RESOURCES[job.kind]
        return resource_path(version, plural, job.namespace, job.name, part)

    def _do(self, job: Job, seen: Seen, todo: Plan) -> float | None:
        if todo.remove:
            conditions = {"uid": job.uid, "resourceVersion": job.version}
            self._ask("DELETE", self._path(job), {"preconditions": conditions, "propagationPolicy": "Background"})
            return None
        job = self._write(job, seen, todo)
        soon = [] if todo.again is None else [todo.again]
        try:
            soon += self._make(job, todo)
        except NameTaken as error:
            self._write(job, seen, hindered(job, "NameTaken", error.message, self.clock.now()))
            soon.append(HINDERED_SECONDS)
        except ApiError as error:
            if error.code in INVALID and error.reason in ("Invalid", "BadRequest"):
                self._write(job, seen, refused(job, "InvalidTemplate", error.words, self.clock.now()))
                return 0.0
            if error.code != 403:
                raise
            self._write(job, seen, hindered(job, "PodsRefused", error.words, self.clock.now()))
            soon.append(HINDERED_SECONDS)
        for doomed in todo.delete:
            self._delete(job, doomed.name, doomed.uid)
        return min(soon, default=None)

    def _write(self, job: Job, seen: Seen, todo: Plan) -> Job:
        """The status, where it differs from what stands there; then the events that it tells of."""
        pods = self._pods(job, seen.pods)
        ours = body_of(job, todo.status) if job.kind == KIND else caffe2_status(job, todo.status, pods)
        if ours == (seen.job.get("status") or {}):
            return replace(job, status=todo.status)
        meta = {**seen.job["metadata"], "resourceVersion": job.version}
        body = self._ask("PUT", self._path(job, "status"), {**seen.job, "metadata": meta, "status": ours})
        self.wrote(body)
        for event in todo.events:
            self._tell(job, event)
        return replace(job, status=todo.status, version=body["metadata"]["resourceVersion"])

    def _tell(self, job: Job, event: Event) -> None:
        """An event that nobody could store is a line in the log: the status says the same."""
        self.noted(job, event)
        name = self.nonce()
        try:
            path = resource_path("events.k8s.io/v1", "events", job.namespace)
            self._ask("POST", path, event_body(job, event, name, self.clock.now()))
        except NotLeading:
            raise
        except PipelineError as error:
            self.say(f"an event of {job.namespace}/{job.name} was not stored ({event.reason}): {error}")

    def _make(self, job: Job, todo: Plan) -> list[float]:
        """Service, groups, pods: no pod without the name that it is found by.  Returns when to try again what waits.

        Raises NameTaken for a name that belongs to something else.
        """
        if todo.service:
            path = resource_path("v1", "services", job.namespace)
            if not self._made(job, path, job.name, service_body(job)):
                return [TAKEN_SECONDS]
            self.services.add(job.uid)
        for attempt, size in sorted({(each.attempt, each.size) for each in todo.create}):
            made = gang.group(job, attempt, size, owner_of(job))
            if made is not None and not self._made(job, made[0], gang.group_name(job, attempt), made[1]):
                return [TAKEN_SECONDS]
        path, waits = resource_path("v1", "pods", job.namespace), False
        for wanted in todo.create:
            name = pod_name(job.name, wanted.attempt, wanted.index)
            waits = not self._made(job, path, name, pod_body(job, wanted)) or waits
        return [TAKEN_SECONDS] if waits else []

    def _made(self, job: Job, path: str, name: str, body: dict[str, Any]) -> bool:
        """Whether it is there and ours: made now, or by somebody who planned the same.

        False: its name is of something that is going away.  Raises NameTaken where it is of something that stays.
        """
        try:
            self._ask("POST", path, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return self._is_ours(job, f"{path}/{name}", f"{body['kind']} {name}")
        return True

    def _is_ours(self, job: Job, path: str, what: str) -> bool:
        try:
            meta = self.api.call("GET", path)["metadata"]
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        owners = meta.get("ownerReferences") or ()
        if any(each["uid"] == job.uid for each in owners):
            return True
        before = any((each.get("kind"), each.get("name")) == (job.kind, job.name) for each in owners)
        if before or "deletionTimestamp" in meta:
            return False  # of a job of this name that was there before, and goes with it
        raise NameTaken(f"{what} is there already and is not this job's: delete it, or give the job another name")

    def _delete(self, job: Job, name: str, uid: str) -> None:
        """By uid: another pod may have the name by now."""
        try:
            path = resource_path("v1", "pods", job.namespace, name)
            self._ask("DELETE", path, {"preconditions": {"uid": uid}})
        except ApiError as error:
            if error.code not in (404, 409):
                raise
