"""The values that travel between the rooms.  No I/O here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple
from urllib.parse import unquote

import mmh3

MAX_ITEM_ID = 2**64 - 1
MAX_PARTNER_ID = 2**63 - 1
Numbers = Literal["float32", "float16"]
"""What the numbers of a delivered feature are in Parquet."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an item has no feature.

    retriable: the default; the fetcher may know better.  against_host: whether it is counted against the host, which is
    left in peace for a while after some in a row.
    """

    name: str
    retriable: bool
    meaning: str
    against_host: bool = False


# The closed list of failure reasons; a new one is added here and nowhere else.
REASONS: dict[str, Reason] = {
    reason.name: reason
    for reason in (
        Reason("bad_url", False, "the URL cannot be understood"),
        Reason("blocked", False, "the URL leads to an address, port or scheme that is not allowed"),
        Reason("dns", True, "the host's name could not be resolved", against_host=True),
        Reason("connect", True, "no connection to the host could be made", against_host=True),
        Reason("tls", True, "the host's certificate or handshake was refused", against_host=True),
        Reason("timeout", True, "the transfer did not end before its deadline", against_host=True),
        Reason("too_slow", True, "the transfer was slower than the lowest allowed speed", against_host=True),
        Reason("redirect", False, "the host redirected too often, in a loop, or to a place that is not allowed"),
        Reason("http_4xx", False, "the host answered 4xx; the detail holds the status"),
        Reason("http_429", True, "the host asked for fewer requests", against_host=True),
        Reason("http_5xx", True, "the host answered 5xx; the detail holds the status", against_host=True),
        Reason("too_large", False, "the body is longer than the cap"),
        Reason("empty", True, "the body has no bytes", against_host=True),
        Reason(
            "truncated",
            True,
            "the body ended before its announced length, or the image before its end",
            against_host=True,
        ),
        Reason("protocol", True, "the answer is not correct HTTP", against_host=True),
        Reason("not_image", False, "the bytes are not in an image format that Hathi knows"),
        Reason("decode", False, "the bytes look like an image but cannot be decoded"),
        Reason("too_many_pixels", False, "the image declares more pixels than the cap"),
        Reason("not_finite", False, "the feature holds NaN or infinity"),
        Reason("poison", False, "computing this item alone killed the worker"),
        Reason("bad_ref", False, "the image ref names neither a URL nor bytes"),
        Reason("held", False, "the item's batch is held for an operator"),
        Reason("id_collision", False, "two external ids share one item id"),
        Reason("host_busy", True, "the host's queue did not drain before the batch's deadline"),
    )
}
BREAKER_OPEN = "breaker open"
"""The detail of a `host_busy`: the host had failed so often that it was not asked for this image."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A typed reason why an item has no feature; a value, never an exception.

    detail is canonical: no times, addresses or operating-system texts, so that reruns write the same bytes.
    """

    reason: str
    detail: str = ""
    retriable: bool = False
    url: str = ""

    @staticmethod
    def of(reason: str, detail: str = "", url: str = "", retriable: bool | None = None) -> Failure:
        """A failure with the reason's own retriability unless the caller knows better."""
        known = REASONS[reason]
        return Failure(reason, detail, known.retriable if retriable is None else retriable, url)


class Condition(NamedTuple):
    """What a host said of an image when it was fetched: it is asked whether that still holds.

    resource: SHA-256 of the URL after all redirects.  etag, last_modified: as the host wrote them, or "".
    fetched_at: UTC.
    """

    resource: bytes
    etag: str
    last_modified: str
    fetched_at: datetime


class NotModified(NamedTuple):
    """The host says that an image is what it was.  url: as given."""

    url: str


class ImageRef(NamedTuple):
    """An item and where its image is: a URL, or the bytes themselves.

    item_id: unsigned 64 bits.  external_id: as the shop wrote it, or "" when the source gives item ids.
    ordinal: the row's place in its shipment (0, 1, ...), which decides between duplicates.
    """

    partner_id: int
    item_id: int
    external_id: str
    url: str
    content: bytes
    ordinal: int


def normalise_external_id(external_id: str) -> str:
    """Lower-case, then percent-decode until nothing changes; `+` stays, a bad `%` stays."""
    text = external_id.lower()
    while "%" in text:
        decoded = unquote(_shortened(text))
        if decoded == text:
            break
        text = decoded
    return text


_RUN = re.compile(r"%(?:25)+")
_OTHER = re.compile(r"%(?!25)[0-9A-Fa-f]{2}")


def _shortened(text: str) -> str:
    """What decoding makes of the text after some rounds in which each `%2525...` loses one `25` and nothing else
    happens: 65,536 characters of it would take as many rounds."""
    if "%2525" not in text or _OTHER.search(text):
        return text
    spare = min(map(len, _RUN.findall(text))) - len("%25")
    return _RUN.sub(lambda run: run[0][: len(run[0]) - spare], text) if spare else text


def item_id_of(external_id: str) -> int:
    """The item id of an external id: MurmurHash3 x64 128, seed 42, halves XORed; unsigned 64 bits."""
    low, high = mmh3.hash64(normalise_external_id(external_id).encode("utf-8", "surrogatepass"), seed=42, signed=False)
    return low ^ high


def item_ids_of(external_ids: Sequence[str]) -> list[int]:
    """The item id of each, in less time than one by one."""
    lowered = list(map(str.lower, external_ids))
    if "%" in "".join(lowered):
        return list(map(item_id_of, external_ids))
    hashes = [mmh3.hash64(text.encode("utf-8", "surrogatepass"), seed=42, signed=False) for text in lowered]
    return [low ^ high for low, high in hashes]


def item_id_as_written(external_id: str) -> int:
    """The item id of an external id of a source whose ids are hashed as they are written."""
    return item_id_of_url(external_id)


def item_id_of_url(url: str) -> int:
    """The item id in a list without ids: the same hash over the URL's bytes as they are."""
    low, high = mmh3.hash64(url.encode("utf-8", "surrogatepass"), seed=42, signed=False)
    return low ^ high


def signed(item_id: int) -> int:
    """The same 64 bits as Parquet carries them: two's complement."""
    return item_id - 2**64 if item_id >= 2**63 else item_id


def unsigned(item_id: int) -> int:
    """The same 64 bits as text and people read them."""
    return item_id + 2**64 if item_id < 0 else item_id
