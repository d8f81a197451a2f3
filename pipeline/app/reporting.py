"""The report of a day or a shipment: what `hathi report` writes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.protocol import Context
from pipeline.operations.report.gather import gather
from pipeline.operations.report.page import page
from pipeline.operations.report.scope import Scope


def report(contexts: Sequence[Context], scope: Scope, *, redact_queries: bool) -> bytes:
    """The page, HTML in UTF-8.  Raises ConfigError without a lake, PermanentError for a shipment that is not known."""
    if not contexts:
        raise ConfigError("no lake is configured", "", "add a table [lakes.NAME] to the configuration")
    found = gather(contexts, scope, redact_queries)
    if scope.shipment is not None and not found.shipments:
        raise PermanentError(f"Hathi knows no shipment {scope.shipment}", "", "`hathi status` names open ones")
    return page(found).encode("utf-8", "backslashreplace")
