"""What is open, waiting, held and running, and how fresh each partner is: what `hathi status` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.ledger.protocol import Context
from pipeline.operations.health.facts import Facts, StoreFacts
from pipeline.operations.health.judge import lasts
from pipeline.operations.health.look import Look, said
from pipeline.operations.open_shipments import OpenShipments, open_shipments
from pipeline.operations.report.standing import Standing, standing
from pipeline.stage_names import STAGES


@dataclass(frozen=True)
class Status:
    """One look.  programs: by stage, who runs it on this host; None for nobody.  held: the hints of held batches."""

    facts: Facts
    lakes: tuple[Standing, ...]
    programs: Mapping[str, str | None]
    held: tuple[str, ...]
    belong: frozenset[str] = frozenset()
    """The stages that have ever run on this host: of the others nobody wants to hear that they do not run."""


def status(
    contexts: Sequence[Context],
    look: Look,
    first_seen: Callable[[str], float],
    programs: Mapping[str, str | None],
    belong: frozenset[str] = frozenset(),
) -> Status:
    """One look; each open shipment is listed once.  first_seen: as of Look; belong: as of Status.

    What a store does not answer is a fact: `not_seen` says what is missing, and why.
    """
    opened: dict[str, OpenShipments] = {}
    lakes: list[Standing] = []
    held: list[str] = []
    failed: dict[str, PipelineError] = {}
    for context in contexts:
        try:
            opened[context.lake_name] = open_shipments(context)
        except (TemporaryError, PermanentError) as error:
            failed[context.lake_name] = error
    facts = look(first_seen, opened)
    known = {one.lake: one for one in facts.lakes}
    for context in contexts:
        name = context.lake_name
        if name not in known or name not in opened:
            continue
        try:
            lakes.append(standing(context, known[name], opened[name]))
            held += (entry.key for entry in context.bucket.list(context.keys.held_hints))
        except (TemporaryError, PermanentError) as error:
            failed[name] = error
    if any(one.trouble for one in facts.stores if one.name.startswith("bucket")):
        failed = {}  # the look met it as well, and says it
    stores = [StoreFacts(f"bucket for lake {name}", said(error), error.hint) for name, error in failed.items()]
    return Status(replace(facts, stores=(*facts.stores, *stores)), tuple(lakes), programs, tuple(held), belong)


def not_seen(facts: Facts) -> dict[str, str]:
    """What could not be looked at from this host, and why."""
    silent = {one.name: one.trouble for one in facts.stores if one.trouble}
    return {**silent, **facts.unseen}


def in_vain(facts: Facts, stage: str) -> tuple[str, ...]:
    """Why a stage of this host fails, each cause once; what `not_seen` says of a store already is left out."""
    unseen = " ".join(not_seen(facts).values())
    causes: dict[str, str] = {}
    for one in facts.troubles:
        if one.stage == stage and lasts(one) and one.message not in unseen:
            causes.setdefault(one.message, f"{one.message} ({one.detail})" if one.detail else one.message)
    return tuple(causes.values())


def as_tree(found: Status) -> dict[str, Any]:
    """A look for programs.  Keys are only ever added."""
    facts, lakes = found.facts, found.lakes
    return {
        "at": facts.at,
        "host": facts.host,
        "estop": facts.estop is not None,
        "estop_remote": [lake.facts.lake for lake in lakes if lake.facts.estop is not None],
        "programs": dict(found.programs),
        "open": [asdict(row) for lake in lakes for row in lake.open],
        "open_more": sum(lake.facts.not_looked_at for lake in lakes),
        "waiting": sum(lake.facts.retries for lake in lakes),
        "next_due": min((due.at for lake in lakes for due in lake.retries), default=""),
        "retries": [asdict(due) for lake in lakes for due in lake.retries],
        "held": list(found.held),
        "held_unanswered": [f"{lake.facts.lake} {name}" for lake in lakes for name in lake.facts.held],
        "forget": [
            {"lake": lake.facts.lake, "number": number, "since": since}
            for lake in lakes
            for number, since in lake.facts.forgets.items()
        ],
        "stages": [asdict(row) for lake in lakes for row in lake.stages],
        "reused": {
            lake.facts.lake: {
                "features": lake.last_hour.features,
                "not_modified": lake.last_hour.not_modified,
                "equal_bytes": lake.last_hour.equal_bytes,
            }
            for lake in lakes
        },
        "backfills": [asdict(one) for lake in lakes for one in lake.backfills],
        "running": [asdict(row) for lake in lakes for row in lake.running],
        "alive": sorted({name for lake in lakes for name in lake.facts.alive}),
        "partners": [{"lake": lake.facts.lake, **asdict(one)} for lake in lakes for one in lake.facts.freshness],
        "failing": [{"lake": lake.facts.lake, **asdict(one)} for lake in lakes for one in lake.facts.failing],
        "unseen": not_seen(facts),
        "in_vain": {stage: list(causes) for stage in STAGES if (causes := in_vain(facts, stage))},
        "refused": {
            lake.facts.lake: {**lake.facts.refused, **lake.facts.troubles}
            for lake in lakes
            if lake.facts.refused or lake.facts.troubles
        },
        "left_out": {lake.facts.lake: asdict(lake.facts.left) for lake in lakes if lake.facts.left.number},
        "later": {lake.facts.lake: asdict(lake.facts.later) for lake in lakes if lake.facts.later.number},
    }
