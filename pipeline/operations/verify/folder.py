"""A folder on the lake that is either whole or damaged, against the files that its manifest names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.amounts import counted
from pipeline.ledger.deliveries import IndexFile
from pipeline.ledger.layout import MANIFEST, SUCCESS
from pipeline.operations.verify.finding import Finding, Say
from pipeline.operations.verify.hashing import wrong_hash
from pipeline.stores.store import Lake


def whole(
    say: Say, lake: Lake, folder: str, there: Mapping[str, int], files: Sequence[IndexFile], *, deep: bool
) -> Iterator[Finding]:
    """What is missing, of another length or too much; deep: of another content, too.

    there: length in bytes of each file that stands in the folder, by its name within it.
    """
    if SUCCESS not in there:
        yield say(
            "success_missing",
            f"{folder}/{SUCCESS}",
            "the file is missing, and readers skip a folder without it",
        )
    for file in files:
        path = f"{folder}/{file.name}"
        if file.name not in there:
            yield say("file_missing", path, "the folder's manifest names the file, and it does not exist")
        elif there[file.name] != file.size:
            length = counted(there[file.name], "byte")
            yield say("file_length", path, f"the file has {length}; the folder's manifest says {file.size:,}")
        elif deep and (wrong := wrong_hash(lake, path, file.sha256)) and lake.stat(folder) is not None:
            yield say("file_hash", path, wrong)  # a folder that is gone now was pruned meanwhile
    for extra in sorted(there.keys() - {file.name for file in files} - {MANIFEST, SUCCESS}):
        yield say("not_ours", f"{folder}/{extra}", "the folder's manifest does not name this file")
