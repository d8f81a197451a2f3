"""Where a lake's image refs are: sources as they are seen now, poll after poll."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.errors import PermanentError, TemporaryError
from pipeline.ledger.protocol import Context
from pipeline.settings import Source
from pipeline.sources.each_file import WatchedFiles
from pipeline.sources.found import Found, Left, Named
from pipeline.sources.index import WatchedIndex
from pipeline.sources.success_folders import WatchedFolders
from pipeline.stores.sight import seen
from pipeline.stores.store import Lake


class Watched(Protocol):
    """One source, whatever its convention."""

    def look(self, now: float, *, wide: bool = False) -> Named:
        """What it names now.  now: the store's time; wide: all that it may still name, late folders too."""

    def forget(self, source: str) -> None:
        """What was known of a snapshot's source was wrong: it is looked at anew."""


def named_by(context: Context) -> Named:
    """What the sources of a context's lake name now; nothing where the lake cannot be seen from here."""
    lake = seen(context.lake)
    if lake is None:
        return Named()
    mine = context.settings.lakes[context.lake_name]
    url = context.settings.url_of(context.lake_name)
    sources = Sources(lake, mine.sources, context.settings.delivered(context.lake_name), url)
    return sources.look(context.bucket.list(context.keys.alive_hints).now)


class Sources:
    """All sources of a lake.  One that cannot be seen is a trouble, and stops no other."""

    def __init__(self, lake: Lake, sources: Sequence[Source], ours: tuple[str, ...], url: str) -> None:
        """ours: prefixes of what Hathi delivers, never a source.  url: the lake's."""
        self._watched = [(source.path, _watch(lake, source, ours, url)) for source in sources]

    def look(self, now: float, *, wide: bool = False) -> Named:
        """What they name now, in the order of the settings.

        now: the store's time.  wide: all that they may still name, for one who wants to forget the rest.
        """
        found: list[Found] = []
        troubles: dict[str, str] = {}
        left = later = Left()
        blind = False
        for path, watched in self._watched:
            try:
                named = watched.look(now, wide=wide)
            except (PermanentError, TemporaryError) as error:
                troubles[path] = str(error)
                blind = True
                continue
            found += named.found
            troubles.update(named.troubles)
            blind = blind or named.blind
            left, later = left.plus(named.left), later.plus(named.later)
        return Named(tuple(found), troubles, blind, left, later)

    def forget(self, source: str) -> None:
        """A shipment of this source was void: what is there now is a new snapshot."""
        for _, watched in self._watched:
            watched.forget(source)


def _watch(lake: Lake, source: Source, ours: tuple[str, ...], url: str) -> Watched:
    if source.convention == "index":
        return WatchedIndex(lake, source, ours, url)
    if source.convention == "success":
        return WatchedFolders(lake, source, ours)
    return WatchedFiles(lake, source, ours)
