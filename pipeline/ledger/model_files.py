"""The files of promoted models on this host: fetched once by their hashes, verified, and forgotten when nobody asks.

A model is a folder named by the digest of its files.  It appears whole or not at all, so any number of processes of a
host may fetch it at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import NotFound, PermanentError, PipelineError
from pipeline.ledger import promotions
from pipeline.ledger.data import Damaged, download
from pipeline.ledger.manifest import Promoted
from pipeline.ledger.promotions import PromotedFile, Promotion
from pipeline.ledger.protocol import Context
from pipeline.stores.local import typed
from pipeline.times import DAY

FOLDER = "models"
"""Below the state folder."""
KEPT_DAYS = 7.0
"""A model that no process of this host has asked for so long is deleted from the disk; the bucket has it still."""


def folder_of(context: Context, promotion: Promotion, verified: set[str]) -> Path:
    """The folder that holds the promotion's files; fetched where this host has none, or other bytes.

    verified: digests whose files were hashed in this process before.
    Raises NotFound or Damaged where the bucket lost a file, TemporaryError where it does not answer, or the disk is
    full.
    """
    place = Path(context.settings.state) / FOLDER / promotion.digest
    try:
        if not (promotion.digest in verified and place.is_dir()) and not _whole(place, promotion):
            shutil.rmtree(place, ignore_errors=True)
            _fetch(context, promotion, place)
        os.utime(place)
    except OSError as error:
        raise typed(error, place) from error
    verified.add(promotion.digest)
    return place


def forget(context: Context, now: float | None = None) -> int:
    """Delete what no process of this host has asked for lately; how many models.  now: this host's time."""
    top = Path(context.settings.state) / FOLDER
    old = (time.time() if now is None else now) - KEPT_DAYS * DAY
    gone = 0
    for place in sorted(top.iterdir()) if top.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # another process of this host has deleted it
            if place.is_dir() and place.stat().st_mtime < old:
                shutil.rmtree(place, ignore_errors=True)
                gone += 1
    return gone


def lost(context: Context, promotion: Promotion) -> list[PromotedFile]:
    """The files that the bucket has no more, under this or another promotion of the model."""
    return [one for one in promotion.files if not any(_there(context, key) for key in _keys(context, promotion, one))]


def _there(context: Context, key: str) -> bool:
    return any(entry.key == key for entry in context.bucket.list(key, until=key))


def _whole(place: Path, promotion: Promotion) -> bool:
    return all(_is(place / one.name, one) for one in promotion.files)


def _is(path: Path, one: PromotedFile) -> bool:
    if not path.is_file() or path.stat().st_size != one.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == one.sha256


def _fetch(context: Context, promotion: Promotion, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as made:
        folder = Path(made) / "whole"
        folder.mkdir()
        for one in promotion.files:
            path = folder / one.name
            path.parent.mkdir(exist_ok=True)
            _get(context, promotion, one, path)
        try:
            folder.rename(place)
        except OSError:
            if not _whole(place, promotion):  # else another process of this host was first
                raise


def _get(context: Context, promotion: Promotion, one: PromotedFile, path: Path) -> None:
    """From where the promotion says, else from any other promotion of the model that names the same bytes."""
    first: PipelineError | None = None
    for key in _keys(context, promotion, one):
        try:
            download(context, one.model_copy(update={"key": key}), path)
            return
        except (NotFound, Damaged) as error:
            first = first or error
    assert first is not None
    raise first


def _keys(context: Context, promotion: Promotion, one: PromotedFile) -> Iterator[str]:
    yield one.key
    for number in reversed(promotions.numbers(context, promotion.model)[0]):
        try:
            other = promotions.read(context, Promoted(model=promotion.model, number=number))
        except PermanentError:
            continue  # said by whoever follows it
        yield from (file.key for file in other.files if file.sha256 == one.sha256 and file.key != one.key)
