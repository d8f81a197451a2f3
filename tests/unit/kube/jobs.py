"""Jobs and pods as the API server gives them, for tests."""

from __future__ import annotations

from typing import Any

from pipeline.kube.model import Job, Pod
from pipeline.kube.names import ATTEMPT, INDEX, JOB, KIND
from pipeline.kube.reading import job_of
from pipeline.kube.times import stamp

NOW = 1_800_000_000.0
Body = dict[str, Any]


def job_body(*, name: str = "digits", status: Body | None = None, **spec: Any) -> Body:
    """A TrainingJob; spec: what differs from one worker of the image `trainer`."""
    template = {"spec": {"containers": [{"name": "trainer", "image": "trainer"}]}}
    return {
        "metadata": {"name": name, "namespace": "team", "uid": "u1", "generation": 3, "resourceVersion": "7"},
        "spec": {"template": template, **spec},
        "status": status or {},
    }


def job(kind: str = KIND, **words: Any) -> Job:
    return job_of(job_body(**words), kind)


def pod_body(index: int, attempt: int = 0, phase: str = "Running", **more: Any) -> Body:
    """A pod of the job `digits`.  more: code, reason, going (its grace ends so many seconds after NOW), node, owner."""
    labels = {JOB: "digits", ATTEMPT: str(attempt), INDEX: str(index)}
    state: Body = {}
    if "code" in more:
        state = {"terminated": {"exitCode": more["code"], "reason": more.get("reason", "Error")}}
    elif "reason" in more:
        state = {"waiting": {"reason": more["reason"], "message": "words"}}
    meta: Body = {
        "name": f"digits-{attempt}-{index}", "uid": f"p{attempt}-{index}", "labels": labels, "namespace": "team",
        "ownerReferences": [{"uid": more.get("owner", "u1")}],
    }  # fmt: skip
    if "going" in more:
        meta["deletionTimestamp"] = stamp(NOW + more["going"])
    conditions = [{"type": "Ready", "status": "True"}] if phase == "Running" else []
    if more.get("disrupted"):
        conditions.append({"type": "DisruptionTarget", "status": "True"})
    return {
        "metadata": meta,
        "spec": {"containers": [{"name": "trainer"}], "nodeName": more.get("node", "")},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": [{"name": "trainer", "state": state}],
        },
    }


def pod(index: int, attempt: int = 0, phase: str = "Running", **more: Any) -> Pod:
    from pipeline.kube.model import pod_of

    found = pod_of(pod_body(index, attempt, phase, **more))
    assert found is not None
    return found
