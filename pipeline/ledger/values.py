"""What a value of a document may be: times, names, paths, counts, each judged when a document is read.

Code relies on these values, and whoever can write to a bucket or a lake could write others: a body that breaks one is
damaged, and is left alone like any other.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.ledger.layout import FIRST_DUE, ShipmentName, number_of, seconds_of
from pipeline.times import DAY

MAX_BATCHES = 100_000
"""Batches have five digits in their keys."""

MAX_VERSION = 9_999_999_999
"""Versions of an index, and current tables, have ten."""

MAX_PROMOTION = 9_999_999_999
"""Promotions of a model have ten as well."""

MAX_DIM = 2**31 - 1
"""Values of a feature, as Arrow counts them."""

_DELIVERED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_LAST_YEAR = "9900"
"""Delays can be added to any time before it."""


def stamp(text: str) -> str:
    """A time as names carry it."""
    seconds_of(text)
    if text >= _LAST_YEAR:
        raise ValueError("it is not a time before the year 9900")
    return text


def _due(text: str) -> str:
    return text if text == FIRST_DUE else stamp(text)


def _perhaps(text: str) -> str:
    return text and stamp(text)


def _shipment(text: str) -> str:
    return str(ShipmentName.parse(text))


def _inside(text: str) -> str:
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("the path leads out of its folder")
    if "\0" in text or re.search("[\ud800-\udc7f\udd00-\udfff]", text):
        raise ValueError("a file cannot have this name")
    return text


def _delivered(text: str) -> str:
    if not _DELIVERED.fullmatch(text):
        _inside(text)
        raise ValueError(
            "it is not a file of a delivered folder, whose name has letters, digits, `.`, `_`, `-` and at most one `/`"
        )
    return text


def spelt(pattern: str, otherwise: str) -> AfterValidator:
    """A text of this spelling.  otherwise: what is said of another, in words; a pattern tells a reader little."""
    spelling = re.compile(pattern)

    def check(text: str) -> str:
        if not spelling.fullmatch(text):
            raise ValueError(otherwise)
        return text

    return AfterValidator(check)


def _partner(text: str) -> str:
    number = number_of(text)
    if number is None or str(number) != text or number >= 2**63:
        raise ValueError("it is not the number of a partner")
    return text


Stamp = Annotated[str, AfterValidator(stamp)]
Due = Annotated[str, AfterValidator(_due)]
"""A time, or the due of a first try."""
PerhapsStamp = Annotated[str, AfterValidator(_perhaps)]
"""A time, or "" where it is not known yet."""
Shipment = Annotated[str, AfterValidator(_shipment)]
Partner = Annotated[str, AfterValidator(_partner)]
PartnerNumber = Annotated[int, Field(ge=0, lt=2**63)]
Inside = Annotated[str, AfterValidator(_inside)]
"""A path or key: whoever can write a body must not thereby reach what lies elsewhere."""
Delivered = Annotated[str, AfterValidator(_delivered)]
"""A file of a delivered folder, relative to it."""
Digest = Annotated[str, spelt("[0-9a-f]{64}", "it is not a SHA-256, which has 64 digits, each 0 to 9 or a to f")]
Fingerprint = Annotated[
    str, spelt("[0-9a-f]{12,64}", "it is not a fingerprint, which has 12 to 64 digits, each 0 to 9 or a to f")
]
ModelName = Annotated[
    str, spelt("[a-z0-9][a-z0-9_-]{0,62}", "it is not a model's name: a to z, 0 to 9, - and _, at most 63")
]
PerhapsFingerprint = Annotated[str, spelt("([0-9a-f]{12,64})?", "it is neither a fingerprint nor empty")]
Count = Annotated[int, Field(ge=0, le=2**60)]
Refs = Annotated[int, Field(ge=0, le=2**20)]
"""Of one batch."""
Delay = Annotated[float, Field(ge=0, le=10 * 366 * DAY)]
Batches = Annotated[int, Field(ge=0, le=MAX_BATCHES)]
Dim = Annotated[int, Field(ge=0, le=MAX_DIM)]


def as_tuples(value: Any) -> Any:
    """A list, and each list within it, as a tuple: documents are frozen."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
