"""Who looks at the pipeline for the service, which lies below what knows of lakes."""

from __future__ import annotations

from pathlib import Path

from pipeline.clock import Clock
from pipeline.service.overview import Overview
from pipeline.settings import Settings


def overview_of(settings: Settings, config: Path) -> Overview | None:
    """None where the configuration has no lake.  config: its file, which children read anew."""
    if not settings.lakes:
        return None
    from pipeline.app.overview import Overviews

    return Overviews(config, Clock())
