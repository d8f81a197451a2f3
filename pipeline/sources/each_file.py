"""Convention `each_file`: every file is a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.codec.refs.tables import detect
from pipeline.errors import ConfigError, Denied, NotAFile, NotFound
from pipeline.ledger.layout import version_of
from pipeline.ledger.manifest import Reading, Snapshot, SourceFile
from pipeline.settings import NULL_WORDS, Source
from pipeline.sources import table_formats
from pipeline.sources.found import Found, Left, Named
from pipeline.sources.paths import Folders, fixed, hidden, is_deep, is_pattern, partner_number, partner_text, pattern
from pipeline.stores.store import Lake, Stat

UNKNOWN = "its name tells no known format: rename it, or set the format of the source"
A_FOLDER = "a folder that the pattern does not look into; end the pattern in /** to read its files"


@dataclass
class Seen:
    """What a look at paths came upon."""

    files: list[Stat] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Paths that are not read, and why."""
    hidden: list[str] = field(default_factory=list)
    """Paths that are left out by convention."""

    def passed(self, path: str, why: str) -> None:
        """As a walk tells it."""
        if why:
            self.left[path] = why
        else:
            self.hidden.append(path)

    def without(self, folders: tuple[str, ...]) -> Seen:
        """What does not lie under any of these prefixes, each with a `/` at its end."""
        if not folders:
            return self
        return Seen(
            [file for file in self.files if not file.path.startswith(folders)],
            {path: why for path, why in self.left.items() if not f"{path}/".startswith(folders)},
            [path for path in self.hidden if not f"{path}/".startswith(folders)],
        )


class WatchedFiles:
    """Looked at anew in each poll: a file tells nothing of itself but its status."""

    def __init__(self, lake: Lake, source: Source, ours: tuple[str, ...]) -> None:
        """ours: prefixes of what Hathi delivers, never a source."""
        self._lake = lake
        self._source = source
        self._path = source.path.strip("/")
        # A list that was copied beside the features lies in their hidden folder, where nothing is delivered.
        self._ours = tuple(one for one in ours if not f"{self._path}/".startswith(f"{one}.hathi/"))
        self._above: Mapping[str, str] | None = None

    def look(self, now: float, *, wide: bool = False) -> Named:
        """A snapshot for each file, in the order of their paths; what is not read is told.  now: the store's time.

        Raises ConfigError when nothing stands at a path without a pattern.
        """
        if self._above is None:  # a table does not grow around a source
            self._above = tables_above(self._lake, fixed(self._path))
        if self._above:
            return Named((), self._above)
        there = self._seen()
        seen = there.without(self._ours)
        seen, troubles = without_tables(self._lake, seen)
        found, left, later = [], dict(seen.left), {}
        settle = self._source.settle_seconds
        for file in seen.files:
            if settle and file.modified / 1000 > now - settle:
                later[file.path] = f"it changed less than {settle:g} s ago"
            elif self._source.format == "auto" and not knows(file.path):
                left[file.path] = UNKNOWN
            else:
                found.append(_found(file, self._source))
        if is_pattern(self._path) and not there.files and not troubles:
            troubles = {self._source.path: self._nothing(left)}
        elif not (found or left or later or troubles):
            nothing = "it holds only deliveries of Hathi" if there.files else "the folder is empty"
            later[self._path] = f"{nothing}: nothing to read yet"
        return Named(tuple(found), troubles, left=Left.of(left), later=Left.of(later))

    def forget(self, source: str) -> None:
        """Nothing is remembered."""

    def _nothing(self, left: Mapping[str, str]) -> str:
        """The trouble of a pattern that gives no file."""
        path = self._source.path
        folder = next((path for path, why in left.items() if why == A_FOLDER), "")
        if folder:
            return f"{path} matches only folders, for example {folder} | end the pattern in /** to read their files"
        what = "nothing that can be read matches" if left else "nothing matches"
        return f"{what} {path} | {look_at(path)}"

    def _seen(self) -> Seen:
        """A file, the files of a folder, or those that a pattern matches."""
        seen = Seen()
        if not is_pattern(self._path):
            self._plain(self._path, seen)
            return seen
        parts = self._path.split("/")
        folders = Folders(self._lake)
        deep = next((at for at, part in enumerate(parts) if is_deep(folders, parts[:at], part)), len(parts) - 1)
        tops = [top for top, _ in folders.of("/".join(parts[:deep]))] if deep else [""]
        for top in tops:
            if is_deep(folders, parts[:deep], parts[deep]):
                self._deep(top, "/".join(parts[deep:]), seen)
            else:
                self._matched(folders, top, parts[deep], seen)
        seen.left.update(folders.left)
        seen.hidden += folders.marks()
        if "**" in self._path and not seen.files and self._lake.stat(self._path) is not None:
            self._plain(self._path, seen)  # a name with two stars in it
        return seen

    def _plain(self, path: str, seen: Seen) -> None:
        found = self._lake.stat(path)
        if found is None:
            what = "it is neither a file nor a folder"
            raise ConfigError(f"no refs at {self._source.path}", what, look_at(self._source.path))
        if not found.is_folder:
            seen.files.append(found)
            return
        seen.files += self._lake.walk(path, seen.passed)

    def _deep(self, top: str, rest: str, seen: Seen) -> None:
        wanted, prefix = pattern(rest), f"{top}/" if top else ""
        try:
            for file in self._lake.walk(top, seen.passed):
                if wanted.fullmatch(file.path.removeprefix(prefix)):
                    seen.files.append(file)
        except NotFound as error:
            if is_pattern(top):
                return
            raise ConfigError(
                f"no refs at {self._source.path}", f"there is no folder {top}", look_at(self._source.path)
            ) from error

    def _matched(self, folders: Folders, top: str, last: str, seen: Seen) -> None:
        """The files directly in a folder that the last part of the path names: as it is written, else as a pattern."""
        prefix = f"{top}/" if top else ""
        inside = folders.inside(top)
        if f"{last}/" in inside:
            self._plain(prefix + last, seen)
            return
        wanted = pattern(last)
        for name in [last] if last in inside else [name for name in inside if wanted.fullmatch(name.rstrip("/"))]:
            if hidden(name):
                continue
            path = prefix + name.rstrip("/")
            if name.endswith("/") or inside[name].unread:
                seen.left[path] = inside[name].unread or A_FOLDER
                continue
            try:
                found = self._lake.stat(path)
            except (NotAFile, Denied) as error:
                seen.left[path] = error.message
                continue
            if found is not None and not found.is_folder:
                seen.files.append(found)


def look_at(path: str) -> str:
    """The hint for a path where nothing stands."""
    if "{" in path:
        return "{a,b} has no meaning in a path: write * where names differ, or one source for each name"
    return "correct the path of the source"


def reading_of(source: Source, partner_id: int | None = None) -> Reading:
    """How a source's files are read.  partner_id: what the source says of this one, before its own setting."""
    partner = source.partner_id if partner_id is None else partner_id
    return Reading(
        format=source.format,
        columns=source.columns.model_dump(),
        partner_id=partner,
        text=source.text.model_dump(exclude_defaults=True),
        null_words=None if tuple(source.null_words) == NULL_WORDS else tuple(source.null_words),
        ids=source.ids,
    )


def frozen(stat: Stat, partner: str = "") -> SourceFile:
    """A file as a snapshot keeps it."""
    return SourceFile(path=stat.path, length=stat.length, modified=stat.modified, id=stat.id, partner=partner)


def tables_above(lake: Lake, path: str) -> dict[str, str]:
    """The trouble of a source that lies in a table's folder, by that; empty where it lies in none."""
    found = table_formats.above(lake, path)
    return {found[0]: table_formats.refused(*found)} if found is not None else {}


def without_tables(lake: Lake, seen: Seen) -> tuple[Seen, dict[str, str]]:
    """What lies in no table's folder, and the trouble of each table by its folder."""
    found = table_formats.tables(lake, [*(file.path for file in seen.files), *seen.left], seen.hidden)
    if not found:
        return seen, {}
    folders = tuple(f"{folder}/" if folder else "" for folder in found)
    return seen.without(folders), {folder: table_formats.refused(folder, kind) for folder, kind in found.items()}


def knows(path: str) -> bool:
    """Whether a file's name tells its format."""
    try:
        detect(path)
    except ConfigError:
        return False
    return True


def _found(file: Stat, source: Source) -> Found:
    text = partner_text(file.path.rpartition("/")[0], source.columns.partner_id)
    number = partner_number(text)
    seen = frozen(file, text if number is None else "")
    snapshot = Snapshot(source=seen.path, version=version_of(seen.modified / 1000), files=(seen,))
    return Found(snapshot, reading_of(source, number))
