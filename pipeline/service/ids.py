"""Names of things: two letters that say the kind, then 48 bits of time and 80 of chance, in 26 letters and digits.

They sort by age, and nobody guesses one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from enum import StrEnum

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_WRITTEN = re.compile(r"[a-z]{2}_[0-7][0-9a-hjkmnp-tv-z]{25}")
_CHANCE_BITS = 80


class Kind(StrEnum):
    """The two letters of each kind of thing."""

    TENANT = "te"
    USER = "us"
    TOKEN = "tk"
    SESSION = "se"
    EVENT = "ev"
    DATAFILE = "df"
    DATASET = "ds"
    SOLVER = "so"
    TRAINING_JOB = "tj"
    MODEL = "mo"
    WORKER = "wk"
    CLASSIFIER = "cl"
    CLASSIFICATION_JOB = "cj"
    PROMOTION = "pr"


def new_id(kind: Kind, now: float, chance: Callable[[int], int] = secrets.randbits) -> str:
    """A name that nobody else has.  now: seconds since 1970.  chance: so many random bits."""
    number = (int(now * 1000) & (1 << 48) - 1) << _CHANCE_BITS | chance(_CHANCE_BITS)
    return f"{kind}_" + "".join(_DIGITS[number >> shift & 31] for shift in range(125, -5, -5))


def pattern(kind: Kind) -> str:
    """The regular expression that its names match whole."""
    return f"^{kind}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"


def is_id(text: str) -> bool:
    """Whether that is written as a name is."""
    return _WRITTEN.fullmatch(text) is not None
