"""Pages of what was computed, so that it is not computed again: an index of URLs, and records to be read one by one.

A page has two files.  The data is records one behind the other; the index says for each the first 8 bytes of its URL's
SHA-256 and where it ends.  Whoever looks for some URLs reads all indexes, and of the data only what is wanted.  Each
part has a checksum of its own: what does not fit is FormatError, and never used.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from pipeline.codec.shards import Matrix
from pipeline.errors import FormatError

FORMAT = 1
MOST_BYTES = 2**28
"""Of a record; an image that is kept may be as long as a body that is fetched."""
_HEAD = struct.Struct("<16s32s32s32sqiiiqB")
"""Checksum of what follows it; SHA-256 of URL, resource and image; microseconds since 1970; lengths of three texts, -1
for one that is absent; length of the values; 1 where they are a vector, 0 where they are an image."""
_SUM = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """A feature that was computed, and of what."""

    url: bytes
    """SHA-256 of the ref's URL."""
    resource: bytes
    """SHA-256 of the URL after all redirects."""
    sha256: bytes
    """Of the image."""
    fetched_at: datetime
    etag: str | None
    last_modified: str | None
    damage: str | None
    """What the decoder said was wrong with the image, which has a feature all the same."""
    values: Matrix | bytes
    """The feature (dim,), or the image of a set that keeps images."""


@dataclass(frozen=True, slots=True, eq=False)
class PageIndex:
    """What a page holds.  results: the keys of the results that it comes from."""

    fingerprint: str
    """All 64 hex digits."""
    engine: str
    """What ran the net: another engine computes other bits."""
    results: tuple[str, ...]
    digests: Digests
    """By record: the first 8 bytes of its URL's SHA-256, as a number."""
    ends: npt.NDArray[np.uint64]
    """By record: where it ends in the data."""

    def encode(self) -> bytes:
        arrays = self.digests.astype("<u8").tobytes() + self.ends.astype("<u8").tobytes()
        head = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "engine": self.engine,
            "results": self.results,
            "sha256": hashlib.sha256(arrays).hexdigest(),
        }
        return json.dumps(head).encode() + b"\n" + arrays

    @staticmethod
    def decode(content: bytes, name: str) -> PageIndex:
        """Raises FormatError, which names it, for what is damaged or of another format."""
        line, _, arrays = content.partition(b"\n")
        try:
            head = json.loads(line)
            if head["format"] != FORMAT or head["sha256"] != hashlib.sha256(arrays).hexdigest():
                raise ValueError("another format" if head["format"] != FORMAT else "its checksum does not fit")
            digests, ends = np.frombuffer(arrays, "<u8").reshape(2, -1).astype(np.uint64)
            sizes = np.diff(ends.astype(np.int64), prepend=np.int64(0))
            if np.any(sizes < _HEAD.size) or np.any(sizes > MOST_BYTES):
                raise ValueError("a record ends where none can")
            return PageIndex(head["fingerprint"], head["engine"], tuple(head["results"]), digests, ends)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(
                f"{name} cannot be read", str(error), "Hathi computes anew what it remembers, and deletes it in time"
            ) from error


def digests_of(urls: Sequence[bytes]) -> Digests:
    """The first 8 bytes of each SHA-256, as numbers."""
    return np.frombuffer(b"".join(url[:8] for url in urls), ">u8").astype(np.uint64)


def url_digest(url: str) -> bytes:
    """SHA-256 of a ref's URL, as it is written."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()


def encode(one: Remembered) -> bytes:
    """A record.  The values are kept to the bit."""
    texts = [None if text is None else text.encode("utf-8", "surrogatepass") for text in _texts(one)]
    lengths = [-1 if text is None else len(text) for text in texts]
    is_vector = isinstance(one.values, np.ndarray)
    values = one.values.astype("<f4").tobytes() if isinstance(one.values, np.ndarray) else bytes(one.values)
    when = (one.fetched_at - _EPOCH) // _MICROSECOND
    head = _HEAD.pack(bytes(_SUM), one.url, one.resource, one.sha256, when, *lengths, len(values), is_vector)
    rest = b"".join([head[_SUM:], *(text or b"" for text in texts), values])
    return _checksum(rest) + rest


def decode(record: bytes, name: str) -> Remembered:
    """Raises FormatError, which names the page, for a record that is damaged."""
    if len(record) < _HEAD.size or _checksum(record[_SUM:]) != record[:_SUM]:
        raise FormatError(f"{name} is damaged", "a record's checksum does not fit", "Hathi computes its image anew")
    try:
        return _decoded(record)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{name} is damaged", f"a record: {error}", "Hathi computes its image anew") from error


def _decoded(record: bytes) -> Remembered:
    _, url, resource, sha256, when, *lengths, size, is_vector = _HEAD.unpack_from(record)
    at = _HEAD.size
    texts: list[str | None] = []
    for length in lengths:
        texts.append(None if length < 0 else record[at : at + length].decode("utf-8", "surrogatepass"))
        at += max(0, length)
    content = record[at:]
    if len(content) != size or min(lengths) < -1:
        raise ValueError("its lengths do not fit")
    values: Matrix | bytes = np.frombuffer(content, "<f4").astype(np.float32) if is_vector else content
    etag, last_modified, damage = texts
    return Remembered(url, resource, sha256, _EPOCH + when * _MICROSECOND, etag, last_modified, damage, values)


def _texts(one: Remembered) -> tuple[str | None, str | None, str | None]:
    return one.etag, one.last_modified, one.damage


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_SUM]
