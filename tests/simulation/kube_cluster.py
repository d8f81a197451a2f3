"""A cluster in memory: an API server that loses answers, a world that ends pods, operators that die between requests.

Between any two requests of an operator's step the world moves on, and another operator may take whole steps: so one
that stood still in the middle of its own is there as well.  Every law is looked at after each change.
"""

from __future__ import annotations

import marshal
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.kube.api import ApiError, Unreachable
from pipeline.kube.model import Pod, pod_of
from pipeline.kube.names import KIND
from pipeline.kube.perform import Performer, Seen
from pipeline.kube.reading import job_of
from pipeline.kube.times import stamp

GRACE = 30.0
"""Seconds between the deletion of a pod and the end of its process."""
SURE = 10.0
"""Seconds for which an operator that leads may go on without renewing its lease (lease.py)."""
BODY = dict[str, Any]


class Killed(Exception):
    """The operator died before its next request."""


class Broken(AssertionError):
    """A law does not hold."""


def copied(body: Any) -> Any:
    """A body with nothing in common: ten times as fast as copy.deepcopy, which was most of a world's time."""
    return marshal.loads(marshal.dumps(body))


def law(holds: bool, words: str) -> None:
    if not holds:
        raise Broken(words)


@dataclass
class Cluster:
    """One namespace with one job's name; `chance` decides everything."""

    chance: random.Random
    now: float = 1e9
    job: BODY | None = None
    pods: dict[str, BODY] = field(default_factory=dict)
    services: dict[str, BODY] = field(default_factory=dict)
    version: int = 1
    uids: int = 0
    counted: int = 0
    """Failures of pods that count, as the world made them."""
    doomed: set[str] = field(default_factory=set)
    """Uids of pods that ended, or were sent away, by the world's own will."""
    depth: int = 0
    requests: int = 0
    earliest: dict[tuple[int, int], float] = field(default_factory=dict)
    """When an attempt of a cohort may begin at the earliest, after the failures before it."""
    launched: dict[tuple[int, int], float] = field(default_factory=dict)
    """When it was first written that all pods of a cohort's attempt were there."""
    over: dict[tuple[int, int], float] = field(default_factory=dict)
    """When it was first written that a cohort's attempt is over."""
    late: set[str] = field(default_factory=set)
    """Uids of pods whose request was sent before their attempt was over and served after it."""
    history: list[Seen] = field(default_factory=list)
    others: list[Operator] = field(default_factory=list)

    # --- the API server

    def call(self, method: str, path: str, body: BODY | None = None, **query: str) -> BODY:
        """One request; it may be lost before or after it is done."""
        self.requests += 1
        asked = self.now
        self._meanwhile()
        if self.chance.random() < 0.02:
            raise Unreachable("lost before it was done")
        done = self._serve(method, path, body or {}, asked)
        self.look()
        if self.chance.random() < 0.02:
            raise Unreachable("done, and its answer lost")
        return copied(done)

    def list(self, path: str, **query: str) -> tuple[list[BODY], str]:
        self._meanwhile()
        return copied(list(self.pods.values())), str(self.version)

    def _meanwhile(self) -> None:
        if self.depth < 2:
            self.depth += 1
            try:
                if self.chance.random() < 0.15:
                    self.move()
                if self.others and self.chance.random() < 0.08:
                    self.chance.choice(self.others).step()
                if self.depth == 1 and self.chance.random() < 0.01:
                    self._stand_still()
            finally:
                self.depth -= 1
        if self.chance.random() < 0.03:
            raise Killed

    def _stand_still(self) -> None:
        """The operator that asks is frozen for a while; the world and the other one go on, perhaps with another job."""
        if self.job is not None and self.chance.random() < 0.3:
            spec = self.job["spec"]
            self.job = None
            self.move()
            self.submit(spec)
        for _ in range(40):
            self.move()
            self.chance.choice(self.others).step()

    def _serve(self, method: str, path: str, body: BODY, asked: float) -> BODY:
        """asked: when the request was sent; it may have been long on its way."""
        words = path.strip("/").split("/")
        if "events.k8s.io" in path:
            return {}
        kind = "jobs" if "trainingjobs" in words else words[words.index("namespaces") + 2]
        if kind == "jobs":
            return self._serve_job(method, words, body)
        there = self.pods if kind == "pods" else self.services
        if method == "POST":
            name = body["metadata"]["name"]
            if name in there:
                raise ApiError(409, "AlreadyExists", name, path)
            there[name] = self._made(body)
            if kind == "pods":
                self._judge_creation(there[name], asked)
            return there[name]
        name = words[-1]
        if name not in there:
            raise ApiError(404, "NotFound", name, path)
        if method == "DELETE":
            wanted = (body.get("preconditions") or {}).get("uid")
            if wanted is not None and wanted != there[name]["metadata"]["uid"]:
                raise ApiError(409, "Conflict", name, path)
            self._judge_deletion(there[name])
            there[name]["metadata"].setdefault("deletionTimestamp", stamp(self.now + GRACE))
        return there[name]

    def _serve_job(self, method: str, words: Sequence[str], body: BODY) -> BODY:
        name = "/".join(words)
        if self.job is None:
            raise ApiError(404, "NotFound", "the job", name)
        if method == "DELETE":
            self.job = None
            return {}
        if method == "PUT":
            known = body["metadata"].get("resourceVersion")
            same = body["metadata"]["uid"] == self.job["metadata"]["uid"]
            if not same or (known is not None and known != self.job["metadata"]["resourceVersion"]):
                raise ApiError(409, "Conflict", "the job", name)
            self._judge_status(self.job.get("status") or {}, body["status"], known)
            self.job["status"] = copied(body["status"])
            self._touch(self.job)
        return self.job

    def _made(self, body: BODY) -> BODY:
        made = copied(body)
        self.uids += 1
        made["metadata"]["uid"] = f"p{self.uids}"
        made.setdefault("status", {"phase": "Pending"})
        self._touch(made)
        return made

    def _touch(self, body: BODY) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)

    # --- the world

    def submit(self, spec: BODY) -> None:
        """A job, perhaps with the name of one that was just deleted."""
        self.uids += 1
        meta = {"name": "j", "namespace": "n", "uid": f"j{self.uids}", "generation": 1}
        self.job = {"metadata": meta, "spec": spec, "status": {}}
        self._touch(self.job)
        self.counted = 0
        self.earliest, self.launched, self.over = {}, {}, {}

    def move(self) -> None:
        """Time passes; each pod may get on, end, be sent away, or vanish."""
        self.now += self.chance.choice([0.1, 1, 1, 5, 30])
        ended = self.job is not None and job_of(self.job).status.ended
        for name, body in list(self.pods.items()):
            pod = _known(body)
            chance = self.chance.random()
            if pod.gone_by is not None:
                if self.now > pod.gone_by or chance < 0.5:
                    del self.pods[name]
            elif self.job is None or self.job["metadata"]["uid"] not in pod.owners:
                body["metadata"]["deletionTimestamp"] = stamp(self.now + GRACE)  # the garbage collector
            elif pod.phase == "Pending" and chance < 0.5:
                body["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            elif pod.phase == "Running" and not ended:  # a peer of a chief that is gone hangs
                self._end(name, body, pod, chance)
        for name, body in list(self.services.items()):
            owners = [each["uid"] for each in body["metadata"]["ownerReferences"]]
            if self.job is None or self.job["metadata"]["uid"] not in owners:
                del self.services[name]
        if self.job is not None and self.chance.random() < 0.004:
            self.job["spec"]["suspend"] = not self.job["spec"]["suspend"]
            self.job["metadata"]["generation"] += 1
            self._touch(self.job)
        self.look()
        self._remember()

    def _end(self, name: str, body: BODY, pod: Pod, chance: float) -> None:
        uid = body["metadata"]["uid"]
        if chance < 0.04:
            code = self.chance.choice([1, 1, 137, 75, 4, 2] if self.chance.random() < 0.3 else [1, 137])
            self._finished(body, "Failed", code)
            self.counted += code not in (75, 4)
            self.doomed.add(uid)
        elif chance < 0.06:
            body["metadata"]["deletionTimestamp"] = stamp(self.now + GRACE)
            if self.chance.random() < 0.5:
                body["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
            self.doomed.add(uid)
        elif chance < 0.07:
            del self.pods[name]
            self.doomed.add(uid)
        elif chance < 0.14:
            self._finished(body, "Succeeded", 0)

    def _finished(self, body: BODY, phase: str, code: int) -> None:
        main = body["spec"]["containers"][0]["name"]
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        body["status"] = {"phase": phase, "containerStatuses": [{"name": main, "state": state}]}

    def _remember(self) -> None:
        if self.job is not None and self.chance.random() < 0.3:
            self.history.append(self._now())
            del self.history[:-5]

    def _now(self) -> Seen:
        assert self.job is not None
        return Seen(copied(self.job), copied(list(self.pods.values())))

    def seen(self) -> Seen | None:
        """What a cache holds: often now, sometimes some moves ago."""
        if self.job is None:
            return None
        if not self.history or self.chance.random() < 0.6:
            return self._now()
        old = self.chance.choice(self.history)
        return Seen(copied(old.job), copied(old.pods))

    # --- the laws

    def look(self) -> None:
        """No two attempts run at once.

        A request that was on its way for minutes, from an operator that stood still since, may still make a pod of an
        attempt that is over: no server can refuse it.  The next look deletes that pod; a training's fence (claim) keeps
        it from writing.
        """
        if self.job is None:
            return
        uid = self.job["metadata"]["uid"]
        running = {
            pod.attempt
            for pod in map(_known, self.pods.values())
            if uid in pod.owners
            and pod.phase == "Running"
            and pod.uid not in self.late
            and self.job["spec"]["recovery"]["scope"] == "Gang"
        }
        law(len(running) <= 1, f"attempts {sorted(running)} run at once")

    def _judge_creation(self, body: BODY, asked: float) -> None:
        assert self.job is not None
        pod = _known(body)
        if self.job["metadata"]["uid"] in pod.owners:
            number = 0 if self._is_gang else pod.index
            if asked <= self.over.get((number, pod.attempt), -1.0):
                self.late.add(pod.uid)
            since = self.launched.get((number, pod.attempt), asked)  # a step that began before may end after it
            law(asked - since <= SURE, f"{pod.name} was made again: its peers hang")
            law(self.now >= self.earliest.get((number, pod.attempt), 0.0) - 1.0, f"{pod.name} did not wait")

    def _judge_deletion(self, body: BODY) -> None:
        """A pod of the present attempt is deleted only at the end, or while the job is suspended."""
        if self.job is None or self.job["metadata"]["uid"] not in _known(body).owners:
            law(self.job is None, "a pod of another job was deleted")
            return
        job, pod = job_of(self.job), _known(body)
        number = 0 if self._is_gang else pod.index
        current = number < len(job.status.cohorts) and job.status.cohorts[number].attempt == pod.attempt
        busy = current and pod.alive and not job.status.ended
        law(not busy or job.spec.suspend or job.status.holds("Suspended") or pod.index >= job.spec.replicas,
            f"{pod.name} was deleted while it worked")  # fmt: skip

    def _judge_status(self, old: BODY, new: BODY, known: str | None) -> None:
        assert self.job is not None
        law(known is not None, "a status was written without a version")
        was, becomes = (job_of({**self.job, "status": each}).status for each in (old, new))
        for kind in ("Complete", "Failed"):
            law(not was.holds(kind) or becomes.holds(kind), f"{kind} was undone")
        law(not (becomes.holds("Complete") and becomes.holds("Failed")), "two ends")
        law(becomes.attempt >= was.attempt, "the attempt went back")
        law(becomes.failures <= self.counted, f"{becomes.failures} failures are counted, {self.counted} happened")
        chief = self.job["spec"]["success"]["policy"] == "Chief"
        if becomes.holds("Complete") and not was.holds("Complete"):
            wanted = {0} if chief else set(range(self.job["spec"]["replicas"]))
            law(wanted <= becomes.succeeded, "Complete without the successes that it wants")
        if not becomes.ended and not was.ended:
            law(not chief or 0 not in becomes.succeeded, "the chief succeeded and the job goes on")
        for number, (before, after) in enumerate(zip(was.cohorts, becomes.cohorts, strict=False)):
            if after.attempt > before.attempt and not becomes.holds("Suspended"):
                self._judge_attempt(number, before.attempt)
            if after.attempt > before.attempt:
                self.over.setdefault((number, before.attempt), self.now)
        for number, each in enumerate(becomes.cohorts):
            if each.launched:
                self.launched.setdefault((number, each.attempt), self.now)
        failed = becomes.last_failure
        if failed is not None and failed.counted and failed != was.last_failure:
            recovery = self.job["spec"]["recovery"]
            wait = min(recovery["maxBackoffSeconds"], recovery["backoffSeconds"] * 2.0 ** (becomes.failures - 1))
            cohort = 0 if self._is_gang else failed.index
            self.earliest[cohort, failed.attempt + 1] = failed.time + 0.9 * wait

    @property
    def _is_gang(self) -> bool:
        return self.job is not None and self.job["spec"]["recovery"]["scope"] == "Gang"

    def _judge_attempt(self, number: int, old: int) -> None:
        """An attempt ends for a cause: a pod of it failed, is going away or is not there."""
        assert self.job is not None
        uid = self.job["metadata"]["uid"]
        mine = [
            pod
            for pod in map(_known, self.pods.values())
            if uid in pod.owners and pod.attempt == old and (self._is_gang or pod.index == number)
        ]
        size = self.job["spec"]["replicas"] if self._is_gang else 1
        whole = len(mine) >= size and all(pod.phase != "Failed" and pod.gone_by is None for pod in mine)
        law(not whole, f"attempt {old} was ended for nothing")


def _known(body: BODY) -> Pod:
    pod = pod_of(body)
    assert pod is not None
    return pod


@dataclass
class Operator:
    """One operator's process; it is begun anew when it died."""

    cluster: Cluster
    performer: Performer = field(init=False)
    at_work: bool = False
    began: float = 0.0

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        clock = Clock(now=lambda: self.cluster.now)
        self.performer = Performer(self.cluster, clock, nonce=lambda: "0", may=self._may)

    def _may(self) -> bool:
        """As the lease says it: not once we stood still for long."""
        return self.cluster.now - self.began < SURE

    def step(self) -> None:
        """One step from what its cache holds; it may die in it."""
        seen = self.cluster.seen()
        if seen is None or self.at_work:
            return
        self.at_work, self.began = True, self.cluster.now
        try:
            self.performer.step(KIND, seen)
        except Killed:
            self._begin()
        except PipelineError:
            pass
        finally:
            self.at_work = False


SPEC: BODY = {
    "replicas": 2,
    "suspend": False,
    "recovery": {
        "scope": "Gang", "restartPolicy": "OnFailure", "permanentExitCodes": [2, 126, 127], "backoffLimit": 6,
        "backoffSeconds": 10, "maxBackoffSeconds": 300, "forgetAfterSeconds": 600, "lostAfterSeconds": 60,
    },
    "success": {"policy": "Chief", "chiefIndex": 0},
    "cleanPodPolicy": "Running",
    "rendezvous": {"backend": "service", "port": 29500},
    "scheduling": {"gang": "None"},
    "template": {"spec": {"containers": [{"name": "trainer", "image": "trainer"}]}},
}  # fmt: skip
LONGEST = 2_000
"""Moves after which a job that has not ended is stuck."""


@dataclass(frozen=True)
class Outcome:
    """How a world ended."""

    state: str
    attempts: int
    requests: int


def run(seed: int) -> Outcome:
    """One world from a job's beginning to its end, and until nothing of it runs.  Raises Broken."""
    chance = random.Random(seed)
    cluster = Cluster(chance)
    spec = copied(SPEC)
    spec["replicas"] = chance.choice([1, 2, 3])
    spec["success"]["policy"] = chance.choice(["Chief", "All"])
    spec["recovery"]["scope"] = chance.choice(["Gang", "Gang", "Replica"])
    cluster.submit(spec)
    operators = [Operator(cluster) for _ in range(2)]
    cluster.others = operators
    for move in range(LONGEST):
        cluster.move()
        operators[chance.random() < 0.2].step()
        if cluster.job is not None:
            if move > LONGEST // 2:
                cluster.job["spec"]["suspend"] = False
            status = job_of(cluster.job).status
            alive = [pod for pod in map(_known, cluster.pods.values()) if pod.alive and pod.gone_by is None]
            if status.ended and not alive:
                return Outcome(status.state, status.attempt + 1, cluster.requests)
    raise Broken(f"it never ended: {cluster.job and cluster.job.get('status')}")
