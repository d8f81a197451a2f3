"""The seed's Caffe2Job (kubeflow.org/v1alpha1) as the same model, and its own status beside ours.

Source of the names: kubeflow/caffe2-operator, pkg/apis/caffe2/v1alpha1/types.go, and its README.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.kube.model import Job, Pod, Rendezvous, Spec, Status
from pipeline.kube.names import CAFFE2_GROUP
from pipeline.kube.statuses import body_of
from pipeline.kube.times import stamp

WORKER = "worker"
"""The only type of replica that a Caffe2Job has."""


def caffe2_spec(body: Mapping[str, Any]) -> Spec:
    """What a Caffe2Job wants.  Without a chief all replicas have to succeed, as the seed's operator did it.

    Its pods find each other by what `backendSpecs` says; ports are those of the template's containers.
    """
    backend, replicas = body.get("backendSpecs") or {}, body["replicaSpecs"]
    chief = (body.get("terminationPolicy") or {}).get("chief")
    count = replicas.get("replicas", 1)
    kind = backend.get("backendType", "none" if not backend else "redis")
    return Spec(
        replicas=count,
        template=replicas["template"],
        run=body.get("runtimeID") or "",
        rendezvous=Rendezvous(
            backend=kind,
            redis_host=backend.get("redisHost") or "",
            redis_port=backend.get("redisPort") or 6379,
            nfs_path=backend.get("nfsPath") or "",
        ),
        chief=None if chief is None else chief.get("replicaIndex") or 0,
    )


def caffe2_labels(job: Job, index: int) -> dict[str, str]:
    """The labels of the seed's README, word for word."""
    return {
        "group_name": CAFFE2_GROUP,
        "caffe2_job_key": f"{job.namespace}-{job.name}",
        "caffe2_replica_type": WORKER,
        "caffe2_replica_index": str(index),
        "runtime_id": job.status.run or job.spec.run or job.uid,
    }


_KINDS = {"Running": "Running", "Complete": "Succeeded", "Failed": "Failed", "Restarting": "Recovering"}


def caffe2_status(job: Job, status: Status, pods: Sequence[Pod]) -> dict[str, Any]:
    """The seed's status: conditions, replicaStatuses, startTime, completionTime; ours stands below `hathi`."""
    counts: dict[str, int] = {}
    for pod in pods:
        if pod.attempt == status.attempt and pod.gone_by is None:
            word = {"Pending": "Waiting"}.get(pod.phase, pod.phase)
            counts[word] = counts.get(word, 0) + 1
    state = next((word for word in ("Failed", "Succeeded", "Running") if counts.get(word)), "Waiting")
    body: dict[str, Any] = {
        "conditions": [
            {
                "type": _KINDS[each.kind],
                "status": str(each.true),
                "reason": each.reason,
                "message": each.message,
                "lastUpdateTime": stamp(each.since),
                "lastTransitionTime": stamp(each.since),
            }
            for each in status.conditions
            if each.kind in _KINDS
        ],
        "replicaStatuses": [{"type": WORKER, "state": state, "replicasStates": counts}],
        "hathi": body_of(job, status),
    }
    for name, time in (("startTime", status.started), ("completionTime", status.completed)):
        if time is not None:
            body[name] = stamp(time)
    return body
