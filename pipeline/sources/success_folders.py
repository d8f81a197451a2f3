"""Convention `success`: a folder is a snapshot once it holds `_SUCCESS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from pipeline.codec.refs.rules import null_forms
from pipeline.errors import NotFound, PermanentError
from pipeline.ledger.layout import SUCCESS, version_of
from pipeline.ledger.manifest import Snapshot
from pipeline.settings import Source
from pipeline.sources import table_formats
from pipeline.sources.each_file import Seen, frozen, reading_of, tables_above, without_tables
from pipeline.sources.found import Found, Left, Named
from pipeline.sources.paths import (
    NO_VALUE,
    Folders,
    at_moment,
    fixed,
    is_dated,
    is_pattern,
    moments,
    partner_number,
    partner_text,
)
from pipeline.sources.table_formats import HIDDEN, refused
from pipeline.stores.store import Lake, Stat
from pipeline.times import DAY


@dataclass(frozen=True)
class _Known:
    """A folder as it was last looked at."""

    moment: str
    """The source's path with the day that the folder belongs to."""
    listed: bytes = b""
    """A digest of its listing; empty: nothing stands there."""
    found: Found | None = None
    troubles: Mapping[str, str] = field(default_factory=dict)
    """By the folder that they are with: this one, or one below it."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Below it, not read, and why."""
    waits: bool = False
    """`_SUCCESS` is not there yet."""
    stale: bool = False
    """What was found there turned out to be wrong."""


class WatchedFolders:
    """The folders of one source, poll after poll: one list each, and a walk only through those that changed.

    A dated path is looked at for the days of look_back_days.  Once a day all folders of sweep_days are walked anew,
    whatever is known of them: that finds what came late, or changed without a trace in the folder itself.
    """

    def __init__(self, lake: Lake, source: Source, ours: tuple[str, ...]) -> None:
        self._lake = lake
        self._source = source
        self._path = source.path.strip("/") if source.path != "." else ""
        self._ours = ours
        self._known: dict[str, _Known] = {}
        self._swept: float | None = None
        self._above: Mapping[str, str] | None = None

    def look(self, now: float, *, wide: bool = False) -> Named:
        """What stands there now.  now: the store's time; wide: sweep, though it is not a day since the last time."""
        if self._above is None:  # a table does not grow around a source
            self._above = tables_above(self._lake, fixed(self._path))
        if self._above:
            return Named((), self._above)
        sweep = wide or self._swept is None or now >= self._swept + DAY
        days = self._source.look_back_days
        spans = moments(self._path, now, max(days, self._source.sweep_days) if sweep else days)
        before = {} if sweep else self._known
        seen: dict[str, _Known] = {}
        folders = Folders(self._lake)
        for words in spans:
            moment = at_moment(self._path, words)
            for folder, whose in folders.of(self._path, words):
                if not f"{folder}/".startswith(self._ours):
                    seen[folder] = self._look_at(folder, whose, moment, before.get(folder))
        current = {at_moment(self._path, words) for words in spans}
        kept = {folder: known for folder, known in before.items() if known.moment not in current}
        for folder, known in kept.items():
            if known.stale:  # void since: what is there now is a new snapshot
                whose = known.found.snapshot.group if known.found else folder
                kept[folder] = self._look_at(folder, whose, known.moment, None)
        self._known = kept | seen
        if sweep:
            self._swept = now
        marks = table_formats.tables(self._lake, (), folders.marks())
        return self._named(folders.left, {folder: refused(folder, kind) for folder, kind in marks.items()})

    def forget(self, source: str) -> None:
        """What was known of a folder was wrong: it is walked anew in the next look."""
        if source in self._known:
            self._known[source] = replace(self._known[source], stale=True)

    def _named(self, left: Mapping[str, str], tables: Mapping[str, str]) -> Named:
        inside = tuple(f"{folder}/" if folder else "" for folder in tables)
        known = {path: one for path, one in sorted(self._known.items()) if not inside or not path.startswith(inside)}
        troubles = dict(tables) | {path: why for one in known.values() for path, why in one.troubles.items()}
        later = {folder: "it has no _SUCCESS yet" for folder, one in known.items() if one.listed and one.waits}
        if not left and not troubles and not any(one.listed for one in known.values()):
            troubles.update(self._nothing())
            later[self._path] = "no folder of these days holds a file (look_back_days, sweep_days)"
        return Named(
            tuple(one.found for one in known.values() if one.found is not None),
            troubles,
            left=Left.of({**left, **{path: why for one in known.values() for path, why in one.left.items()}}),
            later=Left.of(later if not troubles else {}),
        )

    def _nothing(self) -> Mapping[str, str]:
        """Nothing at all stands there: perhaps the path is wrong."""
        top = fixed(self._path)
        if top and self._lake.stat(top) is None:
            return {self._source.path: f"there is no folder {top} | correct the path of the source"}
        if is_pattern(self._path) and not is_dated(self._path):
            return {self._source.path: f"nothing matches {self._source.path} | correct the path of the source"}
        return {}

    def _look_at(self, folder: str, whose: str, moment: str, before: _Known | None) -> _Known:
        """One list; where it tells nothing new, what is known stays."""
        try:
            listed, success, table = self._list(folder)
            if before is not None and listed == before.listed and not before.stale:
                return before
            if table:
                return _Known(moment, listed, troubles={folder: refused(folder, table)})
            if success is None:
                return _Known(moment, listed, waits=True)
            return self._walk(folder, whose, moment, listed, success)
        except NotFound:  # gone between list and walk: the next look finds what is there then
            return _Known(moment)
        except PermanentError as error:
            return _Known(moment, troubles={folder: str(error)})

    def _list(self, folder: str) -> tuple[bytes, float | None, str]:
        """A digest of what lies directly in the folder, when `_SUCCESS` was written, and its kind of table."""
        prefix = f"{folder}/" if folder else ""
        hasher, empty, success, table = blake2b(digest_size=16), True, None, ""
        for entry in self._lake.list(prefix, folders=True):
            empty = False
            hasher.update(f"{entry.key}\0{entry.size}\0{entry.modified}\0".encode("utf-8", "surrogateescape"))
            if entry.key == prefix + SUCCESS:
                success = entry.modified
            table = table or HIDDEN.get(entry.key.removeprefix(prefix).rstrip("/"), "")
        return b"" if empty else hasher.digest(), success, table

    def _walk(self, folder: str, whose: str, moment: str, listed: bytes, success: float) -> _Known:
        columns = self._source.columns.partner_id
        text = partner_text(folder, columns)
        number = partner_number(text)
        nulls = null_forms(self._source.null_words)
        nobody = self._source.partner_id is not None and (text == NO_VALUE or text in nulls)
        if text and number is None and not nobody:
            trouble = (
                f"{folder} is not shipped: its partner {text!r} is not a number | name such folders as in partner=123"
            )
            return _Known(moment, listed, troubles={folder: trouble})
        no_partner = text if nobody else ""
        there = Seen()
        there.files += self._lake.walk(folder, there.passed)
        there, troubles = without_tables(self._lake, there)
        if folder in troubles:
            return _Known(moment, listed, troubles=troubles)
        stats: list[Stat] = there.files
        newest = max([int(success * 1000), *(stat.modified for stat in stats)])
        snapshot = Snapshot(
            source=folder,
            version=version_of(newest / 1000),
            files=tuple(
                frozen(stat, partner_text(stat.path.removeprefix(folder).rpartition("/")[0], columns) or no_partner)
                for stat in stats
            ),
            group=whose,
        )
        return _Known(moment, listed, Found(snapshot, reading_of(self._source, number)), troubles, there.left)
