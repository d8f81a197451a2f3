"""How the replicas of an attempt are told where the others are: variables, volumes and ports.

| backend | what the trainer does with it |
|---|---|
| service | `MASTER_ADDR` is the chief's name by the job's headless Service |
| redis | the chief writes its address under `hathi/RUN_ID`, the others read it |
| nfs | a file `NFS_PATH/RUN_ID` on a folder that all mount |
| none | one replica, alone |
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.kube.model import Job
from pipeline.kube.names import host_name, run_of_attempt
from pipeline.kube.plan import Wanted

VOLUME = "hathi-rendezvous"
"""The volume that `rendezvous.nfs.claimName` is mounted by."""


def variables(job: Job, wanted: Wanted) -> dict[str, str]:
    """The environment of one pod: the seed's names, torch's and Hathi's."""
    rendezvous, run = job.spec.rendezvous, job.status.run or job.spec.run or job.uid
    port = str(rendezvous.port)
    hosts = [host_name(job.name, job.namespace, wanted.attempt, each) for each in range(wanted.size)]
    chief = hosts[0] if wanted.size > 1 else "127.0.0.1"
    cluster = {"worker": [f"{host}:{port}" for host in hosts]}
    task = {"type": "worker", "index": wanted.index}
    found = {
        "SHARD_ID": str(wanted.index),
        "NUM_SHARDS": str(wanted.size),
        "RUN_ID": run_of_attempt(run, wanted.attempt),
        "CAFFE2_CONFIG": json.dumps({"cluster": cluster, "task": task}, separators=(",", ":")),
        "RANK": str(wanted.index),
        "WORLD_SIZE": str(wanted.size),
        "MASTER_ADDR": chief,
        "MASTER_PORT": port,
        "PET_NNODES": str(wanted.size),
        "PET_NODE_RANK": str(wanted.index),
        "PET_MASTER_ADDR": chief,
        "PET_MASTER_PORT": port,
        "HATHI_JOB": job.name,
        "HATHI_RUN": run,
        "HATHI_ATTEMPT": str(wanted.attempt),
    }
    if rendezvous.backend == "redis":
        found |= {"REDIS_HOST": rendezvous.redis_host, "REDIS_PORT": str(rendezvous.redis_port)}
    if rendezvous.backend == "nfs":
        found["NFS_PATH"] = rendezvous.nfs_path
    return found


def mount(job: Job, spec: dict[str, Any]) -> None:
    """Mount the claim of `rendezvous.nfs` into each container of a pod's spec, where one is named."""
    rendezvous = job.spec.rendezvous
    if rendezvous.backend != "nfs" or not rendezvous.nfs_claim:
        return
    claim = {"name": VOLUME, "persistentVolumeClaim": {"claimName": rendezvous.nfs_claim}}
    spec["volumes"] = [*(spec.get("volumes") or []), claim]
    for container in spec["containers"]:
        mounts = container.get("volumeMounts") or []
        container["volumeMounts"] = [*mounts, {"name": VOLUME, "mountPath": rendezvous.nfs_path}]
