"""A job and its pods as values: what the plan looks at, of either kind of job.  No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.kube.conditions import Condition
from pipeline.kube.names import ATTEMPT, INDEX
from pipeline.kube.times import seconds_of

LONGEST_MESSAGE = 4096
"""Characters that a job's status keeps of what a container said at its end; Kubernetes keeps as many."""


@dataclass(frozen=True)
class Rendezvous:
    """How the replicas of an attempt find each other.  backend: service, redis, nfs or none; port: the chief's."""

    backend: str = "service"
    port: int = 29500
    redis_host: str = ""
    redis_port: int = 6379
    nfs_path: str = ""
    nfs_claim: str = ""


@dataclass(frozen=True)
class Recovery:
    """What follows from a replica's end.  Lengths of time in seconds.

    scope: Gang (all replicas begin again together) or Replica (the one that ended, alone).
    """

    scope: Literal["Gang", "Replica"] = "Gang"
    restart: Literal["OnFailure", "Never"] = "OnFailure"
    permanent_codes: frozenset[int] = frozenset({2, 126, 127})
    limit: int = 6
    backoff: float = 10.0
    longest_backoff: float = 300.0
    forget_after: float = 600.0
    pending_deadline: float | None = None
    lost_after: float = 60.0


@dataclass(frozen=True)
class Spec:
    """What is wanted.  template: the pod's, as it was written; chief: None where all replicas have to succeed."""

    replicas: int
    template: Mapping[str, Any]
    suspend: bool = False
    run: str = ""
    rendezvous: Rendezvous = Rendezvous()
    recovery: Recovery = Recovery()
    chief: int | None = 0
    clean: Literal["All", "Running", "None"] = "Running"
    ttl: float | None = None
    deadline: float | None = None
    gang: Literal["None", "PodGroup", "Volcano", "Kueue"] = "None"
    queue: str = ""

    @property
    def cohorts(self) -> int:
        """How many groups of replicas begin again by themselves: one, or each replica."""
        return 1 if self.recovery.scope == "Gang" else self.replicas


@dataclass(frozen=True)
class Cohort:
    """Replicas that begin again together, and the attempt that they are at.

    launched: all its pods were seen once; only from then on is a pod that is missing a lost one.
    """

    attempt: int = 0
    launched: bool = False
    size: int = 1
    not_before: float | None = None
    began: float | None = None


@dataclass(frozen=True)
class Failure:
    """The last replica that ended as it should not have.  counted: against the limit."""

    attempt: int
    index: int
    pod: str
    reason: str
    time: float
    counted: bool
    node: str = ""
    exit_code: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Status:
    """What is known of a job, and nowhere else: the operator keeps nothing in memory."""

    cohorts: tuple[Cohort, ...] = ()
    run: str = ""
    failures: int = 0
    restarts: int = 0
    succeeded: frozenset[int] = frozenset()
    started: float | None = None
    completed: float | None = None
    ready: int = 0
    last_failure: Failure | None = None
    conditions: tuple[Condition, ...] = ()
    observed: int = 0
    state: str = ""
    message: str = ""

    @property
    def attempt(self) -> int:
        """The greatest attempt of its cohorts."""
        return max((cohort.attempt for cohort in self.cohorts), default=0)

    def holds(self, kind: str) -> bool:
        """Whether a condition of that kind is True."""
        return any(each.kind == kind and each.true for each in self.conditions)

    @property
    def ended(self) -> bool:
        return self.holds("Complete") or self.holds("Failed")


@dataclass(frozen=True)
class Job:
    """A job as the API server holds it.  version: its resourceVersion; deleted: it is going away."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    version: str
    spec: Spec
    status: Status
    deleted: bool = False
    problem: str = ""
    """Why its spec cannot be read; it is left alone then."""


@dataclass(frozen=True)
class Pod:
    """A pod, as far as the plan looks at it: by its main container, not by its sidecars.

    phase: Pending, Running, Succeeded or Failed.  gone_by: when the grace of its deletion ends, seconds since 1970.
    """

    name: str
    uid: str
    attempt: int
    index: int
    phase: str
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    disrupted: bool = False
    ready: bool = False
    node: str = ""
    gone_by: float | None = None
    owners: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.phase in ("Pending", "Running")

    def going(self, now: float, lost_after: float) -> bool:
        """Whether its process may still run: a node that does not answer is believed for `lost_after` seconds."""
        return self.alive and not (self.gone_by is not None and now > self.gone_by + lost_after)


def pod_of(body: Mapping[str, Any]) -> Pod | None:
    """A pod from the API's body; None where it does not carry our labels."""
    meta, status = body["metadata"], body.get("status") or {}
    labels = meta.get("labels") or {}
    attempt, index = labels.get(ATTEMPT, ""), labels.get(INDEX, "")
    if not (attempt.isdecimal() and index.isdecimal()):
        return None
    main = body["spec"]["containers"][0]["name"]
    state: Mapping[str, Any] = next(
        (each.get("state") or {} for each in status.get("containerStatuses") or () if each["name"] == main), {}
    )
    ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    phase = status.get("phase") or "Pending"
    if ended and phase in ("Running", "Pending"):  # sidecars may live on
        phase = "Succeeded" if ended.get("exitCode") == 0 else "Failed"
    conditions = status.get("conditions") or ()
    unscheduled = _reason_of(conditions, "PodScheduled") if phase == "Pending" and not waiting else ("", "")
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        attempt=int(attempt),
        index=int(index),
        phase=phase,
        exit_code=ended.get("exitCode"),
        reason=ended.get("reason") or waiting.get("reason") or status.get("reason") or unscheduled[0],
        message=str(ended.get("message") or waiting.get("message") or status.get("message") or unscheduled[1])[
            :LONGEST_MESSAGE
        ],
        disrupted=_is_true(conditions, "DisruptionTarget"),
        ready=_is_true(conditions, "Ready"),
        node=body["spec"].get("nodeName") or "",
        gone_by=seconds_of(meta.get("deletionTimestamp")),
        owners=frozenset(each["uid"] for each in meta.get("ownerReferences") or ()),
    )


def _is_true(conditions: Sequence[Mapping[str, Any]], kind: str) -> bool:
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


def _reason_of(conditions: Sequence[Mapping[str, Any]], kind: str) -> tuple[str, str]:
    """Reason and message of a condition that is False."""
    for each in conditions:
        if each["type"] == kind and each["status"] == "False":
            return each.get("reason") or "", each.get("message") or ""
    return "", ""
