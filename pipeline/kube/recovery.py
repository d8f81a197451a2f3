"""What the end of a replica means: a success, a failure that counts, a pod that was sent away, the end of the job."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.kube.model import Pod, Recovery

SENT_AWAY = frozenset({"Evicted", "Preempted", "Preempting", "NodeShutdown", "NodeLost", "Terminated", "NodeAffinity"})
"""Reasons of a pod's end by which the cluster says that it, not the program, ended the pod."""

TAKEN_UP = 75
"""The exit code of a trainer that wrote a snapshot because it was asked to end, or that lost a peer."""
STOPPED = 4
"""The exit code of a program that ESTOP ended."""


@dataclass(frozen=True)
class End:
    """Why an attempt is over.  pod: None where it is not there any more, or where no replica is the cause."""

    index: int
    pod: Pod | None
    reason: str
    counted: bool

    @property
    def exit_code(self) -> int | None:
        return None if self.pod is None else self.pod.exit_code


def end_of(index: int, pod: Pod | None) -> End | None:
    """What a replica's pod says of its end; None while it goes on, or has succeeded."""
    if pod is None:
        return End(index, None, "PodLost", False)
    if pod.phase == "Failed" and pod.gone_by is None:
        if pod.disrupted or pod.reason in SENT_AWAY:
            return End(index, pod, "Disrupted" if pod.disrupted else pod.reason, False)
        if pod.exit_code in (TAKEN_UP, STOPPED):
            return End(index, pod, "TakenUp" if pod.exit_code == TAKEN_UP else "Stopped", False)
        return End(index, pod, pod.reason or "Error", True)
    if pod.gone_by is not None and pod.phase != "Succeeded":
        return End(index, pod, "Disrupted" if pod.disrupted else "PodDeleted", False)
    return None


def cause(ends: Sequence[End], recovery: Recovery) -> End:
    """Which of several ends is the cause.

    One that no restart would mend; else who was sent away, since his peers fail because they miss him; else a failure
    of its own before one that only lost its peers.
    """
    for wanted in (
        lambda end: end.counted and end.exit_code in recovery.permanent_codes,
        lambda end: not end.counted and end.reason not in ("TakenUp", "Stopped"),
        lambda end: end.counted,
    ):
        found = next(filter(wanted, ends), None)
        if found is not None:
            return found
    return ends[0]


def is_permanent(end: End, recovery: Recovery) -> bool:
    """Whether the job ends with it."""
    return end.counted and (recovery.restart == "Never" or end.exit_code in recovery.permanent_codes)


def wait_after(end: End, failures: int, ran: float, recovery: Recovery, uid: str) -> float:
    """Seconds until the next attempt.  failures: in a row, this one among them; ran: how long the attempt lived.

    A failure doubles the wait, up to the longest, and each job's differs by up to a tenth.  Who was sent away begins
    again at once.  A program that ended by itself without a failure (ESTOP, a lost peer) waits for what is left of the
    shortest wait: else a job under ESTOP would make pods without end.
    """
    if end.counted:
        longest = min(recovery.longest_backoff, recovery.backoff * 2.0 ** (min(failures, 64) - 1))
        return longest * (0.9 + 0.2 * (zlib.crc32(f"{uid}{failures}".encode()) % 1000) / 1000)
    if end.exit_code == STOPPED:
        return recovery.backoff
    return max(0.0, recovery.backoff - ran) if end.exit_code == TAKEN_UP else 0.0
