"""What the last looks saw and told: a small file in the state folder, so that a restart tells nothing twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pipeline.errors import PermanentError
from pipeline.operations.health.facts import Facts, Heard
from pipeline.operations.health.gateways import remembered
from pipeline.operations.health.judge import Finding
from pipeline.operations.health.rhythm import joined

FILE = "health.json"


@dataclass(frozen=True)
class Memory:
    """Times are seconds since 1970, by this host's clock."""

    looked: float = 0.0
    since: Mapping[str, float] = field(default_factory=dict)
    """By a finding's key: when it was first seen, at whatever level."""
    unplanned: Mapping[str, float] = field(default_factory=dict)
    """By a snapshot that no shipment covers: when it was first seen."""
    renewals: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    """By lake and partner: the times of the versions that its source had."""
    gateways: Mapping[str, Mapping[str, Heard]] = field(default_factory=dict)
    """By lake and stage: the daemons of its gateway."""
    told: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By channel: the signs of the findings that it was last told of."""

    def after(self, findings: Iterable[Finding], unplanned: Iterable[str], now: float) -> Memory:
        """What is remembered after a look at `now`."""
        return replace(
            self,
            looked=now,
            since={one.key: self.since.get(one.key, now) for one in findings},
            unplanned={key: self.unplanned.get(key, now) for key in unplanned},
        )

    def joined(self, facts: Facts, alive_seconds: float, *, notes: bool = True) -> Facts:
        """The facts, with what is remembered of each partner's rhythm and of each gateway.

        alive_seconds: a daemon whose last beat is older does not run any more.  notes: this look is remembered, so a
        daemon that it misses first may come yet: hosts start one after the other; else the last beat alone counts.
        """
        lakes = []
        for lake in facts.lakes:
            before = self.renewals.get(lake.lake, {})
            partners = {*before, *lake.renewals} if lake.sees_lake else set()
            seen = {one: joined(before.get(one, ()), lake.renewals.get(one, ())) for one in sorted(partners)}
            gateway = remembered(
                self.gateways.get(lake.lake, {}), lake, alive_seconds, first_look=lake.now if notes else 0.0
            )
            lakes.append(replace(lake, renewals=seen, gateway=gateway))
        return replace(facts, lakes=tuple(lakes))

    def knowing(self, facts: Facts) -> Memory:
        """With the rhythms and the gateways that the facts tell."""
        return replace(
            self,
            renewals={**self.renewals, **{one.lake: one.renewals for one in facts.lakes if one.sees_lake}},
            gateways={**self.gateways, **{one.lake: one.gateway for one in facts.lakes}},
        )

    def dated(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """The findings, each with the time since which it is known to hold."""
        return tuple(one if one.since is not None else replace(one, since=self.since.get(one.key)) for one in findings)


def read_memory(state: Path) -> Memory:
    """What the file in the state folder says; nothing where there is none, or none that can be read."""
    try:
        fields = json.loads((state / FILE).read_text())
        return Memory(
            float(fields["looked"]),
            {str(key): float(when) for key, when in fields["since"].items()},
            {str(key): float(when) for key, when in fields["unplanned"].items()},
            {
                str(lake): {str(one): tuple(map(float, times)) for one, times in partners.items()}
                for lake, partners in fields.get("renewals", {}).items()
            },
            {
                str(lake): {str(stage): _heard(one) for stage, one in stages.items()}
                for lake, stages in fields.get("gateways", {}).items()
            },
            {str(key): tuple(str(sign) for sign in signs) for key, signs in fields["told"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Memory()


def _heard(fields: Mapping[str, float | None]) -> Heard:
    last, missed = fields["last"], fields["missed"]
    return Heard(float(last or 0.0), None if missed is None else float(missed))


def write_memory(state: Path, memory: Memory) -> None:
    """In one instant; the lock `health` keeps others away.

    Raises PermanentError when the state folder cannot be written.
    """
    path, temporary = state / FILE, state / f".{FILE}"
    try:
        temporary.write_text(json.dumps(asdict(memory), sort_keys=True) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise PermanentError(
            f"{path} cannot be written: after a restart health may tell the same news again",
            str(error),
            "free space on the disk, or give this user the right to write there",
        ) from error
