"""The API's times: RFC 3339 with whole seconds, UTC, as metav1.Time has them."""

from __future__ import annotations

import calendar

from pipeline.times import to_the_second


def stamp(seconds: float) -> str:
    """A time (seconds since 1970) as the API writes it: `2026-11-20T18:59:07Z`."""
    return f"{_clock(seconds)}Z"


def micro_stamp(seconds: float) -> str:
    """As metav1.MicroTime has it: leases and events keep the millionths."""
    whole = int(seconds)
    return f"{_clock(whole)}.{int((seconds - whole) * 1e6):06d}Z"


def _clock(seconds: float) -> str:
    return to_the_second(seconds).replace(" ", "T")


def seconds_of(text: str | None) -> float | None:
    """The time that the API wrote, in seconds since 1970; None where there is none.  Raises ValueError."""
    if not text:
        return None
    whole, _, rest = text.removesuffix("Z").partition(".")
    day, _, clock = whole.partition("T")
    numbers = [*map(int, day.split("-")), *map(int, clock.split(":"))]  # a tenth of strptime's time
    if len(numbers) != 6:
        raise ValueError(f"no time of the API: {text!r}")
    return calendar.timegm(tuple(numbers)) + (float(f"0.{rest}") if rest else 0.0)
