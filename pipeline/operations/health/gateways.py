"""Whether a lake's gateway lives, as every host that sees the bucket can tell: by the beats of its daemons.

A daemon's beat says which stages it serves.  One that ends in good order takes its beat back, so each host that looks
remembers when it last saw one.  A gateway that was never seen is not missed; nor is one that runs from cron, whose
beats come and go.  Where ESTOP stands, silence is what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.amounts import length_of_time
from pipeline.errors import NotFound
from pipeline.ledger.protocol import Context
from pipeline.operations.health.facts import Facts, Heard, LakeFacts
from pipeline.process.installed import LAST_LINES, START_DAEMONS
from pipeline.settings import Health
from pipeline.stage_names import ON_THE_LAKE
from pipeline.times import DAY, HOUR

FORGOTTEN = 30 * DAY
"""A gateway that has been silent for so long has left: nobody is told of it any more."""
LONGEST = 200
"""Bytes of a beat; one that is longer is not a daemon's."""


def heard(context: Context, known: dict[str, frozenset[str]]) -> dict[str, float]:
    """By stage of a gateway: when a daemon that serves it last beat, seconds since 1970 by the store's clock.

    known: what each beat said, which never changes: kept from look to look.  A process that is known to be gone counts
    with its last beat.  Raises TemporaryError or PermanentError where the bucket does not answer.
    """
    keys = context.keys
    beats = [one for one in context.bucket.list(keys.alive_hints) if one.key != keys.estop and 0 < one.size <= LONGEST]
    for key in known.keys() - {one.key for one in beats}:
        del known[key]
    last: dict[str, float] = {}
    for one in beats:
        if one.key not in known:
            try:
                known[one.key] = frozenset(context.bucket.get(one.key).decode(errors="replace").split())
            except NotFound:  # its process has just ended
                continue
        for stage in known[one.key].intersection(ON_THE_LAKE):
            last[stage] = max(last.get(stage, 0.0), one.modified)
    return last


def remembered(
    before: Mapping[str, Heard], lake: LakeFacts, alive_seconds: float, *, first_look: float
) -> dict[str, Heard]:
    """By stage: what is known after a look at a lake, whose facts are what its beats say now.

    alive_seconds: a beat that is older is of a process that does not run any more.  first_look: what counts as the
    first look that misses a daemon, where none has missed it before.
    """
    found: dict[str, Heard] = {}
    for stage in ON_THE_LAKE:
        old, now = before.get(stage), lake.gateway.get(stage)
        last = max((one.last for one in (old, now) if one is not None), default=None)
        if last is None or lake.now - last >= FORGOTTEN:
            continue
        missed = old.missed if old is not None and old.missed is not None and old.missed > last else first_look
        alive = lake.now - last <= alive_seconds
        found[stage] = Heard(last, None if alive else lake.now if lake.estop is not None else missed)
    return found


def silent(lake: LakeFacts, facts: Facts, limits: Health) -> Iterator[tuple[bool, str, str, str, float]]:
    """(whether it lasts, key, text, hint, since) for each stage of the gateway that was not seen for long.

    What this host itself says of its own programs is not said twice.
    """
    if lake.estop is not None or facts.estop is not None:
        return
    for stage, one in sorted(lake.gateway.items()):
        quiet = lake.now - max(one.last, one.missed or 0.0)
        if stage in facts.died or quiet < limits.gateway_minutes * 60.0:
            continue
        text = (
            f"lake {lake.lake}: {stage} on the gateway is dead or stopped: no sign of life in the bucket for "
            f"{length_of_time(lake.now - one.last)}"
        )
        hint = (
            f"on the gateway, see why with {LAST_LINES}, then start it with {START_DAEMONS}; a gateway "
            "that was taken out of service is forgotten after 30 days"
        )
        lasting = lake.now - one.last >= limits.warning_hours * HOUR
        yield lasting, f"gateway {lake.lake} {stage}", text, hint, one.last
