"""What happened to one job, for people: from its status, its pods and its events.  No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.amounts import counted
from pipeline.kube.model import Job, Pod, pod_of
from pipeline.kube.times import seconds_of, stamp

NEXT = {
    "Complete": "it is done; kubectl delete removes it and what is left of its pods",
    "Suspended": 'kubectl patch --type merge -p \'{"spec":{"suspend":false}}\' lets it go on from its last snapshot',
    "BackoffLimitExceeded": "mend the cause, make the job anew: with the same spec.runId it goes on from its snapshots",
    "PermanentFailure": "no restart mends that exit code (spec.recovery.permanentExitCodes): mend the cause",
    "InvalidTemplate": "no API server takes spec.template: the message says which field; make the job anew",
    "DeadlineExceeded": "spec.activeDeadlineSeconds is over: make the job anew with a longer one",
    "ImagePullBackOff": "the image's name or the registry's secret is wrong: kubectl describe pod says which",
    "ErrImagePull": "the image's name or the registry's secret is wrong: kubectl describe pod says which",
    "Unschedulable": "no node has room: the message says what is missing",
    "NameTaken": "something else has the name of its Service or of a pod: the message says what",
    "PodsRefused": "a quota or a policy of the namespace refuses the pods: the message says which",
}
"""What to do, by the state or its reason."""


def story(job: Job, pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines: the state, what ended last, what happened in order, which pods there are, what to do."""
    status = job.status
    lines = [f"{job.kind} {job.namespace}/{job.name}: {status.state or 'nobody has looked at it yet'}"]
    if not status.state:
        return [*lines, "what to do: is the operator installed? hathi kube check"]
    if status.message:
        lines.append(f"  {status.message}")
    failures = f"{counted(status.failures, 'failure')} of at most {job.spec.recovery.limit} in a row"
    lines.append(f"  attempt {status.attempt}, {counted(status.restarts, 'restart')}, {failures}")
    lines.append(f"  {status.ready} of {counted(job.spec.replicas, 'replica')} ready, run {status.run}")
    lines += _last(job)
    told = sorted(events, key=_time_of)
    if told:
        lines.append("what happened:")
        lines += [f"  {_when(each)}  {each.get('reason', '')}: {_words(each)}".rstrip(": ") for each in told]
    mine = [pod for pod in map(pod_of, pods) if pod is not None and job.uid in pod.owners]
    if mine:
        lines.append("pods:")
        lines += [f"  {_pod(pod)}" for pod in sorted(mine, key=lambda pod: (pod.attempt, pod.index))]
    hint = _hint(job)
    return [*lines, f"what to do: {hint}"] if hint else lines


def _last(job: Job) -> list[str]:
    failed = job.status.last_failure
    if failed is None:
        return []
    code = "" if failed.exit_code is None else f", exit code {failed.exit_code}"
    where = f" on {failed.node}" if failed.node else ""
    counts = "counts" if failed.counted else "does not count"
    said = [f"  last end: {failed.pod}{where}: {failed.reason}{code}; it {counts} ({stamp(failed.time)})"]
    return [*said, *(f"    {line}" for line in failed.message.splitlines()[-3:])]


def _hint(job: Job) -> str:
    state = job.status.state
    if state in NEXT:
        return NEXT[state]
    reason = next((each.reason for each in job.status.conditions if each.kind == "Failed" and each.true), "")
    waits = next((each.reason for each in job.status.conditions if each.kind == "Running" and not each.true), "")
    return NEXT.get(reason or waits, "")


def _pod(pod: Pod) -> str:
    said = [pod.phase, *([f"exit code {pod.exit_code}"] if pod.exit_code is not None else []), pod.reason, pod.message]
    if pod.gone_by is not None:
        said.append("it is being deleted")
    return f"{pod.name}{f' on {pod.node}' if pod.node else ''}: {', '.join(filter(None, said))}"


def _time_of(event: Mapping[str, Any]) -> float:
    text = event.get("eventTime") or event.get("deprecatedLastTimestamp") or event["metadata"].get("creationTimestamp")
    return seconds_of(text) or 0.0


def _when(event: Mapping[str, Any]) -> str:
    return stamp(_time_of(event))


def _words(event: Mapping[str, Any]) -> str:
    return str(event.get("note") or event.get("message") or "")
