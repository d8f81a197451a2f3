"""The report of a day, a shipment or a training: what `hathi report` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.app.trainings import Training
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.protocol import Context
from pipeline.operations.report.facts import Report
from pipeline.operations.report.gather import gather
from pipeline.operations.report.page import meaning, page
from pipeline.operations.report.scope import Scope
from pipeline.operations.report.training import folder, job
from pipeline.operations.report.training.page import page as training_page


def report(contexts: Sequence[Context], scope: Scope, *, redact_queries: bool) -> bytes:
    """The page, HTML in UTF-8.  Raises ConfigError without a lake, PermanentError for a shipment that is not known."""
    if not contexts:
        raise ConfigError("no lake is configured", "", "add a table [lakes.NAME] to the configuration")
    found = gather(contexts, scope, redact_queries)
    if scope.shipment is not None and not found.shipments:
        raise PermanentError(f"Hathi knows no shipment {scope.shipment}", "", "`hathi status` names open ones")
    return _encoded(page(found))


def as_tree(found: Report) -> dict[str, Any]:
    """A day or a shipment for programs, without its pictures.  Keys are only ever added."""
    return {
        "title": found.title,
        "made": found.made,
        "begin": found.begin,
        "end": found.end,
        "first": asdict(found.first),
        "again": asdict(found.again),
        "reasons": [{**asdict(one), "meaning": meaning(one.reason)} for one in found.reasons],
        "hosts": [{**asdict(one), "reasons": dict(one.reasons)} for one in found.hosts],
        "hours": [asdict(one) for one in found.hours],
        "partners": [asdict(one) for one in found.partners],
        "shipments": [asdict(one) for one in found.shipments],
        "notes": list(found.notes),
        "more": dict(found.more),
    }


def of_job(one: Training) -> bytes:
    """The page of a training of the bucket, HTML in UTF-8.  one: with its whole chain."""
    return _encoded(training_page(job.gather(one.context, one.job, one.word, one.why)))


def of_folder(where: Path, now: float) -> tuple[str, bytes]:
    """What a training in a folder is called, and its page.  where: a solver, a snapshot_prefix or a child's folder.

    Raises ConfigError where no training is there, SolverError and NetError for a solver that is refused, FormatError
    for metrics that cannot be read.
    """
    found = folder.find(where)
    return found.name, _encoded(training_page(folder.gather(found, now)))


def _encoded(content: str) -> bytes:
    return content.encode("utf-8", "backslashreplace")
