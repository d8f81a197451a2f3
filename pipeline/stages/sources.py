"""Where a lake's image refs are: sources as they are seen now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.codec.ref_tables import detect
from pipeline.errors import ConfigError, NotFound
from pipeline.layout import SUCCESS, version_of
from pipeline.manifest import Reading, Snapshot, SourceFile
from pipeline.settings import Source
from pipeline.stores.store import Lake, Stat

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Found:
    """A snapshot as it is seen, and how its files are read."""

    snapshot: Snapshot
    reading: Reading

    @property
    def group(self) -> str:
        """Whose turn it is in the round: the partner where the source has one, else the source."""
        return str(self.reading.partner_id) if self.reading.partner_id is not None else self.snapshot.source


def find(lake: Lake, source: Source, now: float, ours: tuple[str, ...] = ()) -> Iterator[Found]:
    """The snapshots of one source, in the order of their paths.

    now: the lake's time.  ours: prefixes of what Hathi delivers, never a source.

    Raises ConfigError when the path matches nothing at all.
    """
    reading = Reading(format=source.format, columns=source.columns.model_dump(), partner_id=source.partner_id)
    if source.convention == "each_file":
        for file in _files(lake, source):
            if file.path.startswith(ours):
                continue
            if file.modified / 1000 > now - source.settle_seconds and source.settle_seconds:
                continue
            seen = _file(file)
            yield Found(Snapshot(source=seen.path, version=version_of(seen.modified / 1000), files=(seen,)), reading)
        return
    for folder in _folders(lake, source.path):
        success = lake.stat(f"{folder}/{SUCCESS}")
        if success is None:
            continue
        files = tuple(_file(file) for file in lake.walk(folder))
        newest = max([success.modified, *(file.modified for file in files)])
        yield Found(Snapshot(source=folder, version=version_of(newest / 1000), files=files), reading)


def _file(stat: Stat) -> SourceFile:
    return SourceFile(path=stat.path, length=stat.length, modified=stat.modified, id=stat.id)


def _files(lake: Lake, source: Source) -> Iterator[Stat]:
    """A file, the files of a folder that have a known format, or those that a pattern matches."""
    path = source.path.strip("/") if source.path != "/" else ""
    if not _MAGIC.search(path):
        found = lake.stat(path)
        if found is None:
            raise ConfigError(f"no refs at {source.path}", "neither a file nor a folder", "look at the source's path")
        if not found.is_folder:
            yield found
            return
        yield from (file for file in lake.walk(path) if source.format != "auto" or _known(file.path))
        return
    if "**" not in path:
        folder, _, last = path.rpartition("/")
        wanted = pattern(last)
        for top in _folders(lake, folder) if folder else [""]:
            prefix = f"{top}/" if top else ""
            for entry in lake.list(prefix, folders=True):
                name = entry.key.removeprefix(prefix)
                found = lake.stat(entry.key) if wanted.fullmatch(name) and not name.startswith((".", "_")) else None
                if found is not None and not found.is_folder:
                    yield found
        return
    fixed = "/".join(_fixed_parts(path))
    wanted = pattern(path)
    try:
        for file in lake.walk(fixed):
            if wanted.fullmatch(file.path):
                yield file
    except NotFound as error:
        raise ConfigError(f"no refs at {source.path}", f"no folder {fixed}", "look at the source's path") from error


def _known(path: str) -> bool:
    try:
        detect(path)
    except ConfigError:
        return False
    return True


def _fixed_parts(path: str) -> list[str]:
    parts = []
    for part in path.split("/"):
        if _MAGIC.search(part):
            break
        parts.append(part)
    return parts


def pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` within one part of a path, `**` over any number of parts, `[abc]` as usual."""
    out = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            out.append("(?:.*/)?")
            at += 3
        elif glob.startswith("**", at):
            out.append(".*")
            at += 2
        elif glob[at] == "*":
            out.append("[^/]*")
            at += 1
        elif glob[at] == "?":
            out.append("[^/]")
            at += 1
        elif glob[at] == "[" and "]" in glob[at + 2 :]:
            end = glob.index("]", at + 2)
            inside = glob[at + 1 : end].replace("\\", "\\\\")
            out.append(f"[{'^' + inside[1:] if inside[0] == '!' else inside}]")
            at = end + 1
        else:
            out.append(re.escape(glob[at]))
            at += 1
    return re.compile("".join(out), re.DOTALL)


def _folders(lake: Lake, path: str) -> Iterator[str]:
    """The folders that a pattern names, part by part: what it does not name is not looked into."""
    parts = path.strip("/").split("/")

    def below(folder: str, rest: list[str]) -> Iterator[str]:
        if not rest:
            yield folder
            return
        part = rest[0]
        if not _MAGIC.search(part):
            yield from below(f"{folder}/{part}" if folder else part, rest[1:])
            return
        wanted = pattern(part)
        prefix = f"{folder}/" if folder else ""
        for entry in lake.list(prefix, folders=True):
            name = entry.key.removeprefix(prefix)
            if name.endswith("/") and wanted.fullmatch(name[:-1]) and not name.startswith((".", "_")):
                yield from below(prefix + name[:-1], rest[1:])

    yield from below("", parts)
