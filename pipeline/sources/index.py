"""Convention `index`: a JSON file says what each partner has, as the original's outputByPartner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from pipeline.amounts import counted
from pipeline.codec.delivered.forms import is_text
from pipeline.errors import FormatError, NotFound, PermanentError
from pipeline.ledger.bodies import MOST_BYTES
from pipeline.ledger.layout import version_of
from pipeline.ledger.manifest import Reading, Snapshot
from pipeline.settings import Source
from pipeline.sources.each_file import frozen, reading_of
from pipeline.sources.found import Found, Named
from pipeline.sources.index_entries import Home, IndexEntry, judge, read_entries
from pipeline.stores.store import Lake, Stat
from pipeline.times import HOUR

FIRST_WAIT, LONGEST_WAIT = 60.0, HOUR
SPARE = 1000
"""A folder that holds so many more files than an entry names is not listed for them."""


class WatchedIndex:
    """One index, poll after poll: one status each; it and its files are read again only when it changed.

    A partner that was refused is looked at again after a minute, two, four and so on up to an hour: a file that was
    still on its way changes nothing about the index.
    """

    def __init__(self, lake: Lake, source: Source, ours: tuple[str, ...], url: str) -> None:
        """url: the lake's, as an index may write it in front of paths."""
        self._lake = lake
        self._source = source
        self._path = source.path.strip("/")
        self._ours = ours
        self._home = Home.of(url)
        self._stat: Stat | None = None
        self._refused: dict[str, object] = {}
        """Entries to be looked at again, as they stand in the index."""
        self._found: dict[str, Found] = {}
        self._troubles: dict[str, str] = {}
        self._broken = ""
        self._wait = FIRST_WAIT
        self._again = 0.0

    def look(self, now: float, *, wide: bool = False) -> Named:
        """What it names now.  now: the store's time."""
        stat = self._lake.stat(self._path)
        if stat is None or stat.is_folder:
            self._stat = None
            what = "there is no index" if stat is None else "there is a folder instead of an index"
            return self._blind(
                f"{what} at {self._source.path} | correct the path of the source, or wait until it is written"
            )
        if f"{self._path}/".startswith(self._ours):
            return self._blind(
                f"{self._source.path} is an index of this lake's own deliveries, not of refs | name another index"
            )
        known, self._stat = self._stat, None  # until it is read to its end: a store may fail on the way
        if stat != known:
            self._read(now)
        elif self._refused and now >= self._again:
            self._look_again(now)
        self._stat = stat
        if self._broken:
            return self._blind(self._broken)
        return Named(tuple(self._found.values()), dict(self._troubles))

    def forget(self, source: str) -> None:
        """What was known of a partner was wrong: the index and its files are read again in the next look."""
        if source in self._found:
            self._stat = None

    def _blind(self, trouble: str) -> Named:
        return Named((), {self._source.path: trouble}, blind=True)

    def _read(self, now: float) -> None:
        """All of it."""
        self._found, self._troubles, self._refused, self._broken = {}, {}, {}, ""
        try:
            entries = read_entries(self._lake.get(self._path, MOST_BYTES))
        except FormatError as error:
            self._broken = f"the index {self._source.path} cannot be read: {error}"
            return
        except NotFound:
            self._broken = (
                f"the index {self._source.path} was deleted while it was read | Hathi reads it when it is written again"
            )
            return
        self._judge_all(sorted(entries.items(), key=lambda pair: (len(pair[0]), pair[0])), now)
        self._wait = FIRST_WAIT
        self._again = now + self._wait

    def _look_again(self, now: float) -> None:
        """At those that were refused."""
        before, self._refused = self._refused, {}
        for key in before:
            self._troubles.pop(self._name(key), None)
        self._judge_all(before.items(), now)
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self._again = now + self._wait

    def _judge_all(self, entries: Iterable[tuple[str, object]], now: float) -> None:
        for key, raw in entries:
            name = self._name(key)
            try:
                entry = judge(key, raw, self._source, self._home, now)
                self._enter(self._name(str(entry.partner)), entry)
            except (ValueError, PermanentError) as error:
                self._refused[key] = raw
                self._troubles[name] = f"partner {key[:40]} of {self._source.path} is not shipped: {error}"

    def _name(self, key: str) -> str:
        return f"{self._path}#{key}"

    def _enter(self, name: str, entry: IndexEntry) -> None:
        """Raises ValueError where the files are not as the entry says."""
        if name in self._found:
            raise ValueError(f"the index names partner {entry.partner} twice")
        if any(f"{path}/".startswith(self._ours) for path, _ in entry.files):
            raise ValueError("its files are this lake's own deliveries")
        stats = self._stats(entry)
        # Features as text, in an index of Hathi's own, are no refs.
        refs = [stats[path] for path, _ in entry.files if not is_text(path.rpartition("/")[2])]
        if not refs:
            return
        times = [stat.modified / 1000 for stat in refs]
        snapshot = Snapshot(
            source=name,
            version=version_of(max([entry.job_time, *times])),
            files=tuple(frozen(stat) for stat in refs),
            job_time=version_of(entry.job_time),
        )
        self._found[name] = Found(snapshot, self._reading(entry.partner))

    def _reading(self, partner: int) -> Reading:
        return reading_of(self._source, partner).model_copy(update={"otherwise": "protobuf"})

    def _stats(self, entry: IndexEntry) -> dict[str, Stat]:
        """The files as they are.  Raises ValueError when one is missing, or sizes are not as the index says."""
        folders = Counter(path.rpartition("/")[0] for path, _ in entry.files)
        wanted = {path for path, _ in entry.files}
        found: dict[str, Stat] = {}
        for folder, number in folders.items():
            if number > 1:  # one list is cheaper than a status each
                found.update(self._listed(folder, wanted, number))
        for path, size in entry.files:
            stat = found.get(path) or self._lake.stat(path)
            if stat is None or stat.is_folder:
                raise ValueError(f"its file {path} {'does not exist' if stat is None else 'is a folder'}")
            if size is not None and size != stat.length:
                raise ValueError(f"its file {path} has {stat.length} bytes, and {size} in the index")
            found[path] = stat
        total = sum(found[path].length for path, _ in entry.files)
        if entry.size is not None and entry.size != total:
            raise ValueError(
                f"its outputSize is {entry.size}, but {counted(len(entry.files), 'file')} in all are "
                f"{counted(total, 'byte')} long"
            )
        return found

    def _listed(self, folder: str, wanted: set[str], number: int) -> dict[str, Stat]:
        try:
            walked = islice(self._lake.walk(folder), number + SPARE)
            return {stat.path: stat for stat in walked if stat.path in wanted}
        except NotFound:
            return {}
