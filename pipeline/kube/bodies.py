"""What the operator makes: a pod of an attempt, the job's Service, an event.  From values to bodies; no I/O."""

from __future__ import annotations

import copy
from typing import Any

from pipeline.kube import gang, rendezvous
from pipeline.kube.caffe2 import caffe2_labels
from pipeline.kube.model import Job
from pipeline.kube.names import (
    API_VERSION,
    ATTEMPT,
    CAFFE2_API_VERSION,
    CAFFE2_KIND,
    INDEX,
    JOB,
    OPERATOR,
    pod_name,
)
from pipeline.kube.plan import Event, Wanted
from pipeline.kube.times import micro_stamp

UNREACHABLE_SECONDS = 30
"""How long a pod stays on a node that does not answer, where its template says nothing; Kubernetes' default is 300."""

LONGEST_NOTE = 1024
"""Characters of an event's message, by the API."""


def owner_of(job: Job) -> dict[str, Any]:
    """Whoever deletes the job has the garbage collector delete all that was made for it."""
    version = CAFFE2_API_VERSION if job.kind == CAFFE2_KIND else API_VERSION
    return {
        "apiVersion": version, "kind": job.kind, "name": job.name, "uid": job.uid, "controller": True,
        "blockOwnerDeletion": True,
    }  # fmt: skip


def pod_body(job: Job, wanted: Wanted) -> dict[str, Any]:
    """A pod of an attempt: the template, with names, variables and labels.  What the template says itself wins."""
    template = copy.deepcopy(dict(job.spec.template))
    meta, spec = dict(template.get("metadata") or {}), dict(template["spec"])
    name = pod_name(job.name, wanted.attempt, wanted.index)
    labels = {JOB: job.name, ATTEMPT: str(wanted.attempt), INDEX: str(wanted.index)}
    seeds = caffe2_labels(job, wanted.index) if job.kind == CAFFE2_KIND else {}
    meta |= {
        "name": name,
        "namespace": job.namespace,
        "labels": {**(meta.get("labels") or {}), **seeds, **labels},
        "ownerReferences": [owner_of(job)],
    }
    spec["restartPolicy"] = "Never"
    spec["hostname"], spec["subdomain"] = name, job.name
    if spec.get("hostNetwork"):
        spec.setdefault("dnsPolicy", "ClusterFirstWithHostNet")
    _tolerate(spec)
    given = rendezvous.variables(job, wanted)
    for container in spec["containers"]:
        named = {each["name"] for each in container.get("env") or ()}
        ours = [{"name": key, "value": value} for key, value in given.items() if key not in named]
        container["env"] = [*ours, *(container.get("env") or [])]
        container.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")  # it becomes lastFailure.message
    rendezvous.mount(job, spec)
    gang.belong(job, wanted.attempt, wanted.size, meta, spec)
    if wanted.size > 1 and wanted.index == 0 and spec.get("hostNetwork"):
        _declare(spec["containers"][0], job.spec.rendezvous.port)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def service_body(job: Job) -> dict[str, Any]:
    """The headless Service by which the replicas have names, ready or not."""
    port = job.spec.rendezvous.port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job.name, "namespace": job.namespace, "labels": {JOB: job.name}, "ownerReferences": [owner_of(job)],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB: job.name},
            "ports": [{"name": "rendezvous", "port": port}],
        },
    }  # fmt: skip


def event_body(job: Job, event: Event, name: str, now: float) -> dict[str, Any]:
    """An event about the job (events.k8s.io/v1).  name: its own, which nobody else has."""
    owner = owner_of(job)
    regarding = {key: owner[key] for key in ("apiVersion", "kind", "name", "uid")}
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{job.name}.{name}", "namespace": job.namespace},
        "eventTime": micro_stamp(now),
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "action": event.reason,
        "note": event.message[:LONGEST_NOTE],
        "regarding": {**regarding, "namespace": job.namespace, "resourceVersion": job.version},
        "reportingController": f"hathi.dev/{OPERATOR}",
        "reportingInstance": OPERATOR,
    }


def _tolerate(spec: dict[str, Any]) -> None:
    """A pod leaves a node that does not answer after 30 s, unless its template says how long."""
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    there = {each.get("key") for each in spec.get("tolerations") or ()}
    ours = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": UNREACHABLE_SECONDS}
        for key in keys
        if key not in there
    ]
    spec["tolerations"] = [*(spec.get("tolerations") or []), *ours]


def _declare(container: dict[str, Any], port: int) -> None:
    """On the host's network the scheduler has to know the port, so that it puts no two on one node."""
    ports = container.get("ports") or []
    if all(each.get("containerPort") != port for each in ports):
        container["ports"] = [*ports, {"name": "rendezvous", "containerPort": port}]
