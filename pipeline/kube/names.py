"""What things are called in the cluster: group, labels, variables, pods and hosts.  No I/O."""

from __future__ import annotations

GROUP = "hathi.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TrainingJob"
PLURAL = "trainingjobs"

CAFFE2_GROUP = "kubeflow.org"
CAFFE2_API_VERSION = f"{CAFFE2_GROUP}/v1alpha1"
CAFFE2_KIND = "Caffe2Job"
CAFFE2_PLURAL = "caffe2jobs"

JOB = f"{GROUP}/job"
ATTEMPT = f"{GROUP}/attempt"
INDEX = f"{GROUP}/index"
"""Labels of a pod: its job's name, the attempt that it belongs to, its place in it."""

OPERATOR = "hathi-operator"
"""The operator's service account, its lease, and who it says it is in events."""

LONGEST = 48
"""Characters of a job's name: `NAME-ATTEMPT-INDEX` is a host's name, and has 63 at most."""


def pod_name(job: str, attempt: int, index: int) -> str:
    """`NAME-ATTEMPT-INDEX`: it is the pod's idempotency, so no two operators make one pod twice."""
    return f"{job}-{attempt}-{index}"


def host_name(job: str, namespace: str, attempt: int, index: int) -> str:
    """The pod's name in the cluster's DNS, by the job's headless Service."""
    return f"{pod_name(job, attempt, index)}.{job}.{namespace}.svc"


def run_of_attempt(run: str, attempt: int) -> str:
    """The run as one attempt names it in Redis or in a folder: nothing of a dead attempt is met there."""
    return run if attempt == 0 else f"{run}.{attempt}"


def resource_path(api_version: str, plural: str, namespace: str = "", name: str = "", part: str = "") -> str:
    """The path of a resource, `/apis/GROUP/VERSION/namespaces/NS/PLURAL/NAME/PART`; core's begins with `/api/v1`."""
    start = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{start}{inside}/{plural}" + (f"/{name}" if name else "") + (f"/{part}" if part else "")
