"""A job's status as the API server holds it, there and back.

The fields are those of `schema/trainingjobs.yaml`.  A gang has one cohort; with `recovery.scope: Replica` each replica
is one.  What the seed's own kind of job shows beside it stands in `caffe2.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.kube.conditions import bodies_of, conditions_of
from pipeline.kube.model import Cohort, Failure, Job, Status
from pipeline.kube.names import JOB
from pipeline.kube.times import seconds_of, stamp


def status_of(body: Mapping[str, Any]) -> Status:
    """From the API's body; an empty one where nobody wrote any.  Raises KeyError, TypeError, ValueError."""
    return Status(
        cohorts=tuple(
            Cohort(
                each["attempt"],
                each.get("launched", False),
                each["size"],
                seconds_of(each.get("notBefore")),
                seconds_of(each.get("began")),
            )
            for each in body.get("cohorts") or ()
        ),
        run=body.get("runId") or "",
        failures=body.get("failures") or 0,
        restarts=body.get("restarts") or 0,
        succeeded=indexes_of(body.get("succeededIndexes") or ""),
        started=seconds_of(body.get("startTime")),
        completed=seconds_of(body.get("completionTime")),
        ready=body.get("readyReplicas") or 0,
        last_failure=_failure_of(body.get("lastFailure")),
        conditions=conditions_of(body.get("conditions") or ()),
        observed=body.get("observedGeneration") or 0,
        state=body.get("state") or "",
        message=body.get("message") or "",
    )


def body_of(job: Job, status: Status) -> dict[str, Any]:
    """As the API server takes it."""
    body: dict[str, Any] = {
        "observedGeneration": status.observed,
        "state": status.state,
        "message": status.message,
        "runId": status.run,
        "attempt": status.attempt,
        "failures": status.failures,
        "restarts": status.restarts,
        "replicas": job.spec.replicas,
        "readyReplicas": status.ready,
        "selector": f"{JOB}={job.name}",
        "succeededIndexes": ranges_of(status.succeeded),
        "cohorts": [_cohort_body(each) for each in status.cohorts],
        "conditions": bodies_of(status.conditions),
    }
    for name, time in (("startTime", status.started), ("completionTime", status.completed)):
        if time is not None:
            body[name] = stamp(time)
    if status.last_failure is not None:
        body["lastFailure"] = _failure_body(status.last_failure)
    return body


def indexes_of(text: str) -> frozenset[int]:
    """`0,2-3` as numbers.  Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def ranges_of(numbers: frozenset[int]) -> str:
    """Numbers as `0,2-3`."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _cohort_body(cohort: Cohort) -> dict[str, Any]:
    times = {"notBefore": cohort.not_before, "began": cohort.began}
    known = {name: stamp(time) for name, time in times.items() if time is not None}
    return {"attempt": cohort.attempt, "launched": cohort.launched, "size": cohort.size, **known}


def _failure_of(body: Mapping[str, Any] | None) -> Failure | None:
    if not body:
        return None
    return Failure(
        attempt=body["attempt"],
        index=body["index"],
        pod=body.get("pod") or "",
        reason=body.get("reason") or "",
        time=seconds_of(body.get("time")) or 0.0,
        counted=bool(body.get("counted")),
        node=body.get("node") or "",
        exit_code=body.get("exitCode"),
        message=body.get("message") or "",
    )


def _failure_body(failure: Failure) -> dict[str, Any]:
    body: dict[str, Any] = {
        "attempt": failure.attempt,
        "index": failure.index,
        "pod": failure.pod,
        "reason": failure.reason,
        "time": stamp(failure.time),
        "counted": failure.counted,
        "node": failure.node,
        "message": failure.message,
    }
    return body if failure.exit_code is None else {**body, "exitCode": failure.exit_code}
