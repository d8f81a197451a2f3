"""Reading a whole file to see whether it is what its manifest says."""

from __future__ import annotations

import hashlib

from pipeline.errors import NotFound, PermanentError
from pipeline.stores.store import Store

BLOCK = 1 << 20


def wrong_hash(store: Store, key: str, sha256: str) -> str:
    """ "" when the bytes have that SHA-256, else what is wrong.  Memory: one block."""
    hasher = hashlib.sha256()
    try:
        with store.open(key) as source:
            while block := source.read(BLOCK):
                hasher.update(block)
    except NotFound:
        return "it is gone"
    except (PermanentError, OSError) as error:
        return f"it cannot be read: {error}"
    found = hasher.hexdigest()
    return "" if found == sha256 else f"its SHA-256 is {found}; its manifest says {sha256}"
