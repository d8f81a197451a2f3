"""A store as an event loop uses it: its verbs wait in threads; what came in pieces is read one after the other."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError
from pipeline.stores.store import Store

PIECE = 8 * 2**20
"""Bytes of a piece, at most: what an upload holds in memory."""


async def put(store: Store, key: str, content: bytes | Path) -> None:
    """Raises PipelineError."""
    await asyncio.to_thread(store.put, key, content)


async def keep(store: Store, key: str, content: bytes) -> dict[str, Any]:
    """Puts it, and says what `described` says.  Raises PipelineError."""

    def kept() -> dict[str, Any]:
        store.put(key, content)
        return described(key, content)

    return await asyncio.to_thread(kept)


async def get(store: Store, key: str, at_most: int) -> bytes:
    """Raises PipelineError."""
    return await asyncio.to_thread(store.get, key, at_most)


def described(key: str, content: bytes) -> dict[str, Any]:
    """What a row says of an object: key, size, SHA-256."""
    return {"key": key, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def pieces(store: Store, described: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """The contents one after the other.  Raises FormatError for one that is not what was put; NotFound."""
    for one in described:
        content = store.get(one["key"], one["size"])
        if len(content) != one["size"] or hashlib.sha256(content).hexdigest() != one["sha256"]:
            raise FormatError(
                f"{one['key']} is not what was put there", f"{len(content)} of {one['size']} bytes", "upload it again"
            )
        yield content


def save(store: Store, described: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes them to a local file.  Raises PipelineError, OSError."""
    with path.open("wb") as file:
        for content in pieces(store, described):
            file.write(content)


def copied(store: Store, key: str, path: Path, sha256: str) -> bool:
    """Writes an object to a local file, in pieces; False: it is not what was put.  Raises PipelineError, OSError."""
    with store.open(key) as file, path.open("wb") as target:
        shutil.copyfileobj(file, target, 2**20)
    return digest(path) == sha256


def digest_of(store: Store, key: str) -> str:
    """The SHA-256 of an object, in hex, read in pieces.  Raises PipelineError."""
    found = hashlib.sha256()
    with store.open(key) as file:
        while some := file.read(2**20):
            found.update(some)
    return found.hexdigest()


def digest(path: Path) -> str:
    """The SHA-256 of a local file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
