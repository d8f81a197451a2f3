"""Data files in the bucket: written under a key that nobody else uses, named by a body, and checked when they are read.

A body says of each file its size and SHA-256.  What differs from it is never used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from pipeline.errors import NotFound, PermanentError
from pipeline.ledger.manifest import DataFile
from pipeline.ledger.protocol import Context


class Damaged(PermanentError):
    """Bytes whose SHA-256 is not what their manifest says: never used."""


class Stored(Protocol):
    """What a body says of a file."""

    @property
    def key(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def store_data(context: Context, key: str, content: bytes, rows: int) -> DataFile:
    """Put small data under a key that nobody else uses."""
    context.bucket.put(key, content)
    return DataFile(key=key, size=len(content), sha256=hashlib.sha256(content).hexdigest(), rows=rows)


def load_data(context: Context, file: Stored) -> bytes:
    """The content of a data file.  Raises Damaged when its hash does not fit, NotFound when it is gone."""
    try:
        content = context.bucket.get(_data_key(context, file))
    except NotFound as error:
        raise _gone(context, file, error) from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise Damaged(
            f"{file.key} does not hold the bytes that were written",
            "SHA-256 differs",
            "run `hathi verify --deep`: it names every damaged file and the way to repair it",
        )
    return content


def download(context: Context, file: Stored, path: Path) -> None:
    """Stream a data file to a local path, verified as `load_data`."""
    hasher = hashlib.sha256()
    try:
        with context.bucket.open(_data_key(context, file)) as source, path.open("wb") as target:
            while block := source.read(1 << 20):
                hasher.update(block)
                target.write(block)
    except NotFound as error:
        raise _gone(context, file, error) from error
    if hasher.hexdigest() != file.sha256:
        raise Damaged(
            f"{file.key} does not hold the bytes that were written",
            "SHA-256 differs",
            "run `hathi verify --deep`: it names every damaged file and the way to repair it",
        )


def _gone(context: Context, file: Stored, error: NotFound) -> NotFound:
    """Says what to do about a file that a body names and that the bucket has no more."""
    if file.key.startswith(context.keys.jobs_data):
        job = file.key.removeprefix(context.keys.jobs_data).partition("/")[0]
        return NotFound(
            f"{file.key} is gone, and its training needs it",
            error.message,
            "restore it from the store's versions or a copy; where there is none, "
            f"`hathi train stop {job}` ends the training, and --again begins it anew",
        )
    if file.key.startswith(context.keys.models_data):
        return NotFound(
            f"{file.key} is gone, and a promoted model needs it",
            error.message,
            "restore it from the store's versions or a copy; or promote the same files once more "
            "(`hathi promote SET --net FILE --weights FILE`), and what waits for it goes on",
        )
    shipment = file.key.removeprefix(context.keys.data).partition("/")[0]
    return NotFound(
        f"{file.key} is gone, and its shipment needs it",
        error.message,
        "restore it from the store's versions or a copy; where there is none, on a gateway, "
        f"`hathi ship --close {shipment}` ends the shipment without features and ships its snapshot again",
    )


def _data_key(context: Context, file: Stored) -> str:
    """The file's key.  Raises Damaged where a body names what is no data of this lake."""
    if not file.key.startswith(context.keys.data):
        raise Damaged(
            f"{file.key} is not data of the lake {context.lake_name}",
            "",
            "run `hathi verify --deep`: it names every damaged file and the way to repair it",
        )
    return file.key
