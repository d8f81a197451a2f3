"""Conditions as the API's conventions have them (metav1.Condition): by type, with times that move with the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.kube.times import seconds_of, stamp

KINDS = ("Running", "Restarting", "Suspended", "Complete", "Failed")


@dataclass(frozen=True)
class Condition:
    """One condition.  since: when it got its status, seconds since 1970; observed: the generation that it speaks of."""

    kind: str
    true: bool
    reason: str
    message: str
    since: float
    observed: int


def with_condition(conditions: Sequence[Condition], new: Condition) -> tuple[Condition, ...]:
    """The list with the new one in its place.  One that never was is not written as False."""
    old = next((each for each in conditions if each.kind == new.kind), None)
    if old is None and not new.true:
        return tuple(conditions)
    if old is not None and old.true == new.true:
        new = Condition(new.kind, new.true, new.reason, new.message, old.since, new.observed)
    return (*(each for each in conditions if each.kind != new.kind), new)


def conditions_of(bodies: Sequence[Mapping[str, Any]]) -> tuple[Condition, ...]:
    """From the API's list."""
    return tuple(
        Condition(
            each["type"],
            each["status"] == "True",
            each["reason"],
            each.get("message") or "",
            seconds_of(each["lastTransitionTime"]) or 0.0,
            each.get("observedGeneration") or 0,
        )
        for each in bodies
    )


def bodies_of(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """As the API takes them."""
    return [
        {
            "type": each.kind,
            "status": str(each.true),
            "reason": each.reason,
            "message": each.message,
            "lastTransitionTime": stamp(each.since),
            "observedGeneration": each.observed,
        }
        for each in conditions
    ]
