"""A folder that appears on a lake whole, or not at all: readers never see a part of it (docs/protocol.md 7).

Its files are written under a temporary name that nobody else uses.  The manifest and `_SUCCESS` follow; then each file
is looked at once more, as a lake can lose the end of one, and the folder is moved to its place in one step.
"""

from __future__ import annotations

from pipeline.errors import TemporaryError
from pipeline.ledger.commit import rename_first
from pipeline.ledger.deliveries import CurrentManifest, PartnerManifest
from pipeline.ledger.layout import MANIFEST, SUCCESS
from pipeline.stores.store import Lake


def move_whole(lake: Lake, source: str, target: str, body: PartnerManifest | CurrentManifest) -> None:
    """Move a folder that holds the files of `body` to its place; whoever came first stands there.

    source, target: paths on the lake.  Raises TemporaryError: a file is not as long as the manifest says.
    """
    complete(lake, source, body)
    lake.make_folder(target.rpartition("/")[0])
    rename_first(lake, source, target)


def complete(lake: Lake, source: str, body: PartnerManifest | CurrentManifest) -> None:
    """Manifest and `_SUCCESS` of a folder that still has a temporary name.  Raises as `move_whole`."""
    lake.put(f"{source}/{MANIFEST}", body.encode())
    lake.put(f"{source}/{SUCCESS}", b"")
    for file in body.files:
        found = lake.stat(f"{source}/{file.name}")
        if found is None or found.length != file.size:
            raise TemporaryError(
                f"{source}/{file.name} is incomplete", "its length is not what was written", "Hathi writes it again"
            )
