"""Stories: what happened to an item, and why."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.app.contexts import sighted
from pipeline.app.installation import default_config
from pipeline.app.own_folder import config_of
from pipeline.app.stories import Asked, stories
from pipeline.operations.why import Story
from pipeline.settings import load


def why(
    partner: int,
    item: int | str,
    *,
    features: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
) -> list[Story]:
    """What happened to an item: when it was shipped, what was tried, what was delivered, what comes next.

    partner: 0 in a list that names no partners.  item: an item id, or an external id; digits are tried as both.
    features: the folder of a list of your own (`hathi run --features DIR`).
    config: the configuration of an installation; default: that of the commands (`hathi why --help`).
    Returns a `Story` for each lake: `chapters` (one for each shipment that had the item, the oldest first), `rejected`
    rows, and `consumers_see()`: what counts today, in each set.
    Raises `Error` where nothing can be asked; an item that is not known has a story without chapters.

    >>> import hathi
    >>> (story,) = hathi.why(12, "SKU-1", features="out")
    >>> [(seen.outcome.kind, seen.outcome.reason) for seen in story.consumers_see()]
    [('feature', '')]
    """
    place = (
        config_of(Path(features)) if features is not None else Path(config) if config is not None else default_config()
    )
    return stories(sighted(load(place, os.environ), "why"), Asked(partner, str(item)))
