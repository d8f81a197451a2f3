"""One context for each lake, with the lake itself where this host can open it: for commands that look at both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.cli.wiring.assembly import contexts
from pipeline.errors import ConfigError, PipelineError
from pipeline.ledger.protocol import Context, silent_progress
from pipeline.settings import Settings
from pipeline.stores.opening import open_lake


def sighted(
    settings: Settings,
    program: str,
    lakes: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = silent_progress,
) -> list[Context]:
    """lakes: only these.  Raises ConfigError for a lake that is not configured."""
    for lake in lakes:
        if lake not in settings.lakes:
            raise ConfigError(f"no lake {lake}", "", f"lakes are: {', '.join(sorted(settings.lakes)) or 'none'}")
    found = []
    for context in contexts(settings, ["compute"], lambda: False, program, progress):
        if lakes and context.lake_name not in lakes:
            continue
        try:
            found.append(replace(context, lake=open_lake(settings, context.lake_name)))
        except PipelineError:  # a compute box knows the lake's name only
            found.append(context)
    return found
