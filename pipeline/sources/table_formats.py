"""Folders of table formats: their own log says which files count, so that reading the files would be wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from pipeline.errors import PipelineError
from pipeline.stores.store import Lake

HIDDEN: Final[Mapping[str, str]] = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}
"""Hidden folders that make the folder around them a table."""
_ICEBERG = re.compile(r"(?:(.*)/)?metadata/(?:version-hint\.text|[^/]*\.metadata\.json(?:\.gz)?|snap-[^/]*\.avro)")
_METADATA = re.compile(r"(?:(.*)/)?metadata/[^/]*\.json")
_DATA = re.compile(r"(?:(.*?)/)?data/.*")
_PAIMON = re.compile(r"(?:(.*)/)?(schema/schema-[0-9]+|snapshot/(?:LATEST|EARLIEST|snapshot-[0-9]+))")
_HIVE = re.compile(r"(?:(.*?)/)?(?:base_[0-9]{7,}|(?:delete_)?delta_[0-9]{7,}_[0-9]{7,}(?:_[0-9]{4})?)(?:_v[0-9]+)?/.*")
_HEAD = 64 * 2**10


def tables(lake: Lake, files: Iterable[str], hidden_paths: Iterable[str]) -> dict[str, str]:
    """The folders that are tables, each with its kind in words.

    files: paths of a walk; hidden_paths: those of it that are hidden.  Costs no request, but where a folder `metadata`
    with JSON stands beside a folder `data`: its first file is looked into.
    """
    found: dict[str, str] = {}
    paimon: dict[str, set[str]] = {}
    metadata: dict[str, str] = {}
    data: set[str] = set()
    for path in hidden_paths:
        folder, _, name = path.rpartition("/")
        if name in HIDDEN:
            found[folder] = HIDDEN[name]
    for path in files:
        if match := _ICEBERG.fullmatch(path):
            found.setdefault(match[1] or "", "an Iceberg table")
        elif match := _METADATA.fullmatch(path):
            metadata.setdefault(match[1] or "", path)
        elif match := _PAIMON.fullmatch(path):
            paimon.setdefault(match[1] or "", set()).add(match[2].partition("/")[0])
        elif match := _HIVE.fullmatch(path):
            found.setdefault(match[1] or "", "a transactional table of Hive")
        elif match := _DATA.fullmatch(path):
            data.add(match[1] or "")
    found.update({folder: "a Paimon table" for folder, parts in paimon.items() if len(parts) == 2})
    for folder in sorted(metadata.keys() & data - found.keys()):
        if _is_iceberg(lake, metadata[folder]):
            found[folder] = "an Iceberg table"
    return found


def refused(folder: str, kind: str) -> str:
    """Cause and remedy of a table that is no source."""
    return (
        f"{folder or 'the top of the lake'} is {kind}, and Hathi does not read it | only its log says "
        "which files are valid; "
        "others hold replaced or deleted rows | write the valid rows as Parquet files to a folder "
        "of their own, and name that folder"
    )


def above(lake: Lake, path: str) -> tuple[str, str] | None:
    """The table in which a source's own folder lies, as a partition of it or as its `data`, and its kind.

    It costs requests only for a path whose last parts look like that.
    """
    folder = path
    while folder:
        folder, _, last = folder.rpartition("/")
        if "=" not in last and last != "data":
            return None
        for name, kind in {**HIDDEN, "metadata/version-hint.text": "an Iceberg table"}.items():
            if lake.stat(f"{folder}/{name}" if folder else name) is not None:
                return folder, kind
    return None


def _is_iceberg(lake: Lake, path: str) -> bool:
    try:
        with lake.open(path) as file:
            return b'"format-version"' in file.read(_HEAD)
    except PipelineError:
        return False  # read as any other file, which says what is wrong with it
