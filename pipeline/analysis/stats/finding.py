"""Which files a person means: a root, a shipment's folder, a glob, a file; on a lake or on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from pipeline.codec.delivered.forms import FAILURES, FEATURES, TEXT_FORMS, partner_of
from pipeline.errors import ConfigError
from pipeline.stores.store import Lake

_GLOB = re.compile(r"[*?\[]")


def files_of(lake: Lake, path: str, partner: int | None = None) -> list[str]:
    """The files of features that a path names, in the order of names, so that later shipments come later.

    In a folder: the Parquet files of features, else every Parquet file that is no failure, else text of one form.
    partner: those of others are left out where their folder tells.  Raises ConfigError where there is none.
    """
    found = [file for one in _expanded(lake, path.rstrip("/")) for file in _under(lake, one)]
    mine = [file for file in dict.fromkeys(found) if partner is None or partner_of(file) in (None, partner)]
    if not mine:
        of = "" if partner is None else f" of partner {partner}"
        raise ConfigError(f"no features{of} at {path}", "", "a delivered root, a shipment's folder, a glob, or a file")
    return sorted(mine)


def _expanded(lake: Lake, path: str) -> Iterator[str]:
    """A glob, level by level: what no level matches is never listed."""
    parts = path.split("/")
    at = next((n for n, part in enumerate(parts) if _GLOB.search(part)), None)
    if at is None:
        yield path
        return
    base = "".join(f"{part}/" for part in parts[:at])
    for entry in lake.list(base, folders=True):
        name = entry.key.removeprefix(base).rstrip("/")
        hidden = name.startswith((".", "_")) and not parts[at].startswith(name[:1])
        if not hidden and fnmatchcase(name, parts[at]):
            yield from _expanded(lake, "/".join([f"{base}{name}", *parts[at + 1 :]]))


def _under(lake: Lake, path: str) -> list[str]:
    there = lake.stat(path)
    if there is None:
        return []
    if not there.is_folder:
        return [path]
    files = [one.path for one in lake.walk(path)]
    tables = [file for file in files if file.endswith(".parquet")]
    texts = ([file for file in files if form.claims(file)] for form in TEXT_FORMS)
    return (
        [file for file in tables if _folder(file) == FEATURES]
        or [file for file in tables if _folder(file) != FAILURES]
        or next((some for some in texts if some), [])
    )


def _folder(file: str) -> str:
    """The name of the folder that a file lies in; those above it may be called anything."""
    return file.rpartition("/")[0].rpartition("/")[2]
