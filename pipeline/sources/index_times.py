"""jobTimeStamp: what an index's number or text says of when the job ran, in the configured unit and zone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pipeline.ledger.layout import version_of
from pipeline.times import DAY

EARLIEST = 946684800.0
"""2000-01-01: no job ran before."""
_UNITS: Mapping[str, float] = {"milliseconds": 1000.0, "seconds": 1.0}
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]*)?")
_TEXT = re.compile(
    r"(?P<year>\d{4})[-/. ]?(?P<month>\d\d)[-/. ]?(?P<day>\d\d)[T_ -]?"
    r"(?P<hour>\d\d)[:. -]?(?P<minute>\d\d)[:. -]?(?P<second>\d\d)(?:[.,]\d+)?\s*(?P<zone>Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)


def job_seconds(stamp: object, unit: str, zone: str, now: float) -> float:
    """When the job ran, seconds since 1970.  now: the store's time; unit and zone: the source's settings.

    A text that carries its own offset (`Z`, `+09:00`) needs no zone.  Raises ValueError, with the reason, for what is
    no time, lies before 2000 or more than a day ahead; it names the unit in which the stamp would make sense.
    """
    readings = _readings(stamp, zone)
    mine = readings.get(unit)
    if mine is not None and EARLIEST <= mine <= now + DAY:
        return mine
    shown = str(stamp)[:40]
    others = {name: at for name, at in readings.items() if name != unit and EARLIEST <= at <= now + DAY}
    if others:
        name, at = next(iter(others.items()))
        says = "cannot be read" if mine is None else f"is {_shown(mine)}"
        raise ValueError(
            f"jobTimeStamp {shown} {says} in {unit}, but {_shown(at)} in {name} | "
            f'set job_time_unit = "{name}" if that is what it counts'
        )
    if mine is None:
        raise ValueError(
            f"jobTimeStamp {shown!r} is not a time in {unit} | correct job_time_unit, or the program "
            "that writes the index"
        )
    if mine < EARLIEST:
        raise ValueError(f"jobTimeStamp {shown} is {_shown(mine)}, before 2000 | correct job_time_unit")
    raise ValueError(
        f"jobTimeStamp {shown} is {_shown(mine)}, more than a day in the future | "
        "correct job_time_unit, job_time_zone, or the clock of the host that writes the index"
    )


def _readings(stamp: object, zone: str) -> dict[str, float]:
    """The stamp in each unit in which it can be read."""
    if isinstance(stamp, bool) or not isinstance(stamp, int | float | str):
        return {}
    text = str(stamp).strip()
    found: dict[str, float] = {}
    if isinstance(stamp, int | float) or _NUMBER.fullmatch(text):
        number = float(text) if len(text) < 60 else float("inf")
        found = {unit: number / scale for unit, scale in _UNITS.items()}
    at = _written(text, zone)
    return found if at is None else {**found, "text": at}


def _written(text: str, zone: str) -> float | None:
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    try:
        fields = (int(match[name]) for name in ("year", "month", "day", "hour", "minute", "second"))
        local = datetime(*fields)  # type: ignore[arg-type]
        offset = match["zone"]
        if offset is None:
            return local.replace(tzinfo=ZoneInfo(zone)).timestamp()
        if offset == "Z":
            return local.replace(tzinfo=UTC).timestamp()
        return datetime.strptime(f"{local:%Y%m%d%H%M%S}{offset}", "%Y%m%d%H%M%S%z").timestamp()
    except (ValueError, OverflowError):
        return None


def _shown(seconds: float) -> str:
    try:
        return version_of(seconds)
    except (ValueError, OverflowError, OSError):
        return "no time"
