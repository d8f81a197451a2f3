"""Lengths of time, and a time as people read it."""

from __future__ import annotations

import time

HOUR = 3600.0
DAY = 24 * HOUR
"""Seconds."""


def to_the_minute(seconds: float) -> str:
    """A time (seconds since 1970) as people read it, UTC: `2026-11-20 18:59`."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def to_the_second(seconds: float) -> str:
    """The same with its seconds: `2026-11-20 18:59:07`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def readable_time(seconds: float) -> str:
    """To the minute, with the zone: `2026-11-20 18:59 UTC`."""
    return f"{to_the_minute(seconds)} UTC"


def date_of(seconds: float) -> str:
    """The day alone, UTC: `2026-11-20`."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def hour_of(seconds: float) -> str:
    """The hour alone, UTC: `18:00`."""
    return time.strftime("%H:00", time.gmtime(seconds))
