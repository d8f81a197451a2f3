"""Reading a document from a store: the one way, under a cap in bytes, every value judged."""

from __future__ import annotations

from typing import TypeVar

from pipeline.errors import FormatError, NotAFile
from pipeline.ledger import manifest
from pipeline.ledger.manifest import MOST_BYTES, Body
from pipeline.stores.store import Store

B = TypeVar("B", bound=Body)


def read_body(store: Store, kind: type[B], key: str) -> B:
    """The body at a key.  Raises NotFound; FormatError for what is damaged, too long or a folder; NewerFormat."""
    return manifest.read(kind, content_of(store, key), key)


def content_of(store: Store, key: str) -> bytes:
    """The content of a document.  Raises NotFound; FormatError for what is no file, or too long."""
    try:
        return store.get(key, MOST_BYTES)
    except NotAFile as error:
        raise FormatError(
            f"{key} is not a file", error.message, "Hathi ignores and keeps it; docs/runbook.md says how to repair it"
        ) from error
