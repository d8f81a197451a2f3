"""The pipeline beside the service, as its operator looks at it.

What stands in lakes and their bucket is known above this room, so who looks is handed in by whoever begins the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Overview(Protocol):
    """Who looks at the lakes of the configuration.  It may be asked by several threads.  Raises PipelineError."""

    def look(self) -> Mapping[str, Any]:
        """What is open, waits, fails and runs, how fresh each partner is: as `app.overview_child.look` tells it."""

    def day(self, day: str) -> Mapping[str, Any]:
        """The report of a day, as `app.reporting.as_tree` tells it; `page`: its whole page, HTML.

        day: as 2026-11-20, UTC.
        """
