"""One thing to forget, as a value, and forgetting it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import NotFound
from pipeline.ledger.protocol import Context

Verb = Literal["delete", "delete_folder", "put_hint"]


@dataclass(frozen=True)
class Deletion:
    """One thing to forget (or a lost hint to put back)."""

    place: Literal["bucket", "lake"]
    verb: Verb
    key: str
    why: str
    away: str = ""
    """Of a folder: where it is renamed to before it is deleted."""


def perform(context: Context, one: Deletion) -> None:
    """Do it; doing it twice is harmless."""
    if one.verb == "put_hint":
        context.bucket.put(one.key, b"")
    elif one.place == "bucket":
        context.bucket.delete(one.key)
    else:
        assert context.lake is not None
        if one.verb == "delete":
            context.lake.delete(one.key)
            return
        # Renamed away first: an owner who wakes finds nothing rather than half.
        away = f"{one.away}/_gone-{context.process.nonce()}"
        try:
            context.lake.rename_new(one.key, away)
        except NotFound:
            return
        context.lake.delete_folder(away)
