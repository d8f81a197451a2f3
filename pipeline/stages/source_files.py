"""Convention `each_file`: every file is a snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.codec.ref_tables import detect
from pipeline.errors import ConfigError, NotFound
from pipeline.layout import version_of
from pipeline.manifest import Reading, Snapshot, SourceFile
from pipeline.settings import NULL_WORDS, Source
from pipeline.stages.found import Found
from pipeline.stages.source_paths import Folders, fixed, hidden, is_pattern, partner_number, partner_text, pattern
from pipeline.stores.store import Lake, Stat


def find(lake: Lake, source: Source, now: float, ours: tuple[str, ...] = ()) -> Iterator[Found]:
    """A snapshot for each file, in the order of their paths.

    now: the store's time.  ours: prefixes of what Hathi delivers, never a source.

    Raises ConfigError when the path matches nothing at all.
    """
    for file in _files(lake, source):
        if file.path.startswith(ours):
            continue
        if file.modified / 1000 > now - source.settle_seconds and source.settle_seconds:
            continue
        yield _found(file, source)


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


def _found(file: Stat, source: Source) -> Found:
    text = partner_text(file.path.rpartition("/")[0], source.columns.partner_id)
    number = partner_number(text)
    seen = frozen(file, text if number is None else "")
    snapshot = Snapshot(source=seen.path, version=version_of(seen.modified / 1000), files=(seen,))
    return Found(snapshot, reading_of(source, number))


def _files(lake: Lake, source: Source) -> Iterator[Stat]:
    """A file, the files of a folder that have a known format, or those that a pattern matches."""
    path = source.path.strip("/") if source.path != "/" else ""
    if not is_pattern(path):
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
        for top, _whose in Folders(lake).of(folder) if folder else [("", "")]:
            prefix = f"{top}/" if top else ""
            for entry in lake.list(prefix, folders=True):
                name = entry.key.removeprefix(prefix)
                found = lake.stat(entry.key) if wanted.fullmatch(name) and not hidden(name) else None
                if found is not None and not found.is_folder:
                    yield found
        return
    top = fixed(path)
    wanted = pattern(path)
    try:
        for file in lake.walk(top):
            if wanted.fullmatch(file.path):
                yield file
    except NotFound as error:
        raise ConfigError(f"no refs at {source.path}", f"no folder {top}", "look at the source's path") from error


def _known(path: str) -> bool:
    try:
        detect(path)
    except ConfigError:
        return False
    return True
