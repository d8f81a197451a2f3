"""A TrainingJob's body as a `Job`; the API server has filled in the defaults of the schema already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.kube.caffe2 import caffe2_spec
from pipeline.kube.model import Job, Recovery, Rendezvous, Spec, Status
from pipeline.kube.names import CAFFE2_KIND, KIND
from pipeline.kube.statuses import status_of


def job_of(body: Mapping[str, Any], kind: str = KIND) -> Job:
    """Either kind of job.  One that cannot be read has its `problem`, an empty template, and is left alone.

    The schema refuses such a body; but a CRD of another version may stand in the cluster.
    """
    meta = body["metadata"]
    problem = ""
    try:
        spec = caffe2_spec(body["spec"]) if kind == CAFFE2_KIND else spec_of(body["spec"])
        kept = (body.get("status") or {}).get("hathi") if kind == CAFFE2_KIND else body.get("status")
        status = status_of(kept or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        spec, status = Spec(1, {}), Status()
        problem = f"{type(error).__name__}: {error}"
    return Job(
        kind=kind,
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation") or 1,
        version=meta["resourceVersion"],
        spec=spec,
        status=status,
        deleted="deletionTimestamp" in meta,
        problem=problem,
    )


def spec_of(body: Mapping[str, Any]) -> Spec:
    """Raises KeyError, TypeError, ValueError where it is not what the schema allows."""
    rendezvous, recovery = body.get("rendezvous") or {}, body.get("recovery") or {}
    success, scheduling = body.get("success") or {}, body.get("scheduling") or {}
    redis, nfs = rendezvous.get("redis") or {}, rendezvous.get("nfs") or {}
    return Spec(
        replicas=body.get("replicas", 1),
        template=body["template"],
        suspend=body.get("suspend", False),
        run=body.get("runId", ""),
        rendezvous=Rendezvous(
            backend=rendezvous.get("backend", "service"),
            port=rendezvous.get("port", 29500),
            redis_host=redis.get("host", ""),
            redis_port=redis.get("port", 6379),
            nfs_path=nfs.get("path", ""),
            nfs_claim=nfs.get("claimName", ""),
        ),
        recovery=_recovery_of(recovery),
        chief=success.get("chiefIndex", 0) if success.get("policy", "Chief") == "Chief" else None,
        clean=body.get("cleanPodPolicy", "Running"),
        ttl=body.get("ttlSecondsAfterFinished"),
        deadline=body.get("activeDeadlineSeconds"),
        gang=scheduling.get("gang", "None"),
        queue=scheduling.get("queue", ""),
    )


def _recovery_of(body: Mapping[str, Any]) -> Recovery:
    default = Recovery()
    return Recovery(
        scope=body.get("scope", default.scope),
        restart=body.get("restartPolicy", default.restart),
        permanent_codes=frozenset(body.get("permanentExitCodes", default.permanent_codes)),
        limit=body.get("backoffLimit", default.limit),
        backoff=body.get("backoffSeconds", default.backoff),
        longest_backoff=body.get("maxBackoffSeconds", default.longest_backoff),
        forget_after=body.get("forgetAfterSeconds", default.forget_after),
        pending_deadline=body.get("pendingDeadlineSeconds"),
        lost_after=body.get("lostAfterSeconds", default.lost_after),
    )
