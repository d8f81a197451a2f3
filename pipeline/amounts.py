"""Counted things, sizes and lengths of time as people read them: `1 shipment`, `12 kB`, `5 h 10 min`.

Every sentence that counts something takes its words from here, so that no line of a log says `1 shipments`, `0 MB` for
what was a little, or `0.0 h` for a few minutes.
"""

from __future__ import annotations

import re

from pipeline.times import DAY, HOUR

KB = 1_000
MB = 1_000_000
GB = 1_000_000_000


def counted(number: int, noun: str, nouns: str = "") -> str:
    """`1 shipment`, `3,200 shipments`.  nouns: the plural where it is not the noun with an s: `2 batches`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def size(number: int) -> str:
    """A number of bytes in its unit: `1 byte`, `12 kB`, `2429 MB`, `12.5 GB`; only nothing is `0 bytes`."""
    if number < KB:
        return counted(number, "byte")
    if number < MB:
        return f"{number // KB} kB"
    if number < 10 * GB:
        return f"{number // MB} MB"
    return f"{number / GB:.1f} GB"


def rounded(number: float) -> str:
    """A number of things that need not be exact: `12,345`, from ten millions on `12.3 M`, `4.5 G`, `1.2 T`."""
    if number < 9_999_500:
        return f"{number:,.0f}"
    unit, size = next((one for one in (("M", 1e6), ("G", 1e9)) if number < 999.95 * one[1]), ("T", 1e12))
    return f"{number / size:,.1f} {unit}"


def length_of_time(seconds: float) -> str:
    """Seconds in one or two units: `40 s`, `12 min`, `5 h 10 min`, `3 d 4 h`."""
    minutes, hours, days = int(seconds // 60), int(seconds // HOUR), int(seconds // DAY)
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def quotient(text: str) -> float | None:
    """The value of two whole numbers with a stroke between them, "1/3"; None: it is none.

    Whoever knows a number of parts need not divide.
    """
    parts = re.fullmatch(r"\s*(\d{1,6})/([1-9]\d{0,5})\s*", text)
    return int(parts[1]) / int(parts[2]) if parts else None
