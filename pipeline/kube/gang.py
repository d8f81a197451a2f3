"""How a cluster's scheduler is told that all pods of an attempt run, or none: labels, an object where one is needed.

| gang | what is made |
|---|---|
| PodGroup | Kubernetes' own (scheduling.k8s.io/v1beta1, 1.37, gate GenericWorkload): one for each attempt |
| Volcano | Volcano's PodGroup, and its scheduler's name |
| Kueue | a label with the queue's name; Kueue admits the pods as a group |
"""

from __future__ import annotations

from typing import Any

from pipeline.kube.model import Job
from pipeline.kube.names import resource_path

GROUPS = {"PodGroup": "scheduling.k8s.io/v1beta1", "Volcano": "scheduling.volcano.sh/v1beta1"}


def group_name(job: Job, attempt: int) -> str:
    """The group of one attempt: a new one has its own, since its pods must not wait for dead ones."""
    return f"{job.name}-{attempt}"


def group(job: Job, attempt: int, size: int, owner: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Where an attempt's group is made, and its body; None where the scheduler needs none."""
    kind = job.spec.gang
    if kind not in GROUPS:
        return None
    if kind == "PodGroup":
        spec: dict[str, Any] = {"schedulingPolicy": {"gang": {"minCount": size}}}
    else:
        spec = {"minMember": size, **({"queue": job.spec.queue} if job.spec.queue else {})}
    body = {
        "apiVersion": GROUPS[kind],
        "kind": "PodGroup",
        "metadata": {"name": group_name(job, attempt), "namespace": job.namespace, "ownerReferences": [owner]},
        "spec": spec,
    }
    return resource_path(GROUPS[kind], "podgroups", job.namespace), body


def belong(job: Job, attempt: int, size: int, meta: dict[str, Any], spec: dict[str, Any]) -> None:
    """Mark a pod as one of its attempt's group.  meta, spec: of the pod, changed in place."""
    name = group_name(job, attempt)
    labels, notes = meta.setdefault("labels", {}), meta.setdefault("annotations", {})
    if job.spec.gang == "PodGroup":
        spec["schedulingGroup"] = {"podGroupName": name}
    elif job.spec.gang == "Volcano":
        spec.setdefault("schedulerName", "volcano")
        notes["scheduling.k8s.io/group-name"] = name
    elif job.spec.gang == "Kueue":
        labels["kueue.x-k8s.io/queue-name"] = job.spec.queue
        labels["kueue.x-k8s.io/pod-group-name"] = name
        notes["kueue.x-k8s.io/pod-group-total-count"] = str(size)
    if not notes:
        del meta["annotations"]
