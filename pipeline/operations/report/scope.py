"""What a report is about: a day, or one shipment."""

from __future__ import annotations

import re
import time
from calendar import timegm
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.ledger.layout import ShipmentName, version_of
from pipeline.times import DAY, date_of

_DAY = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")


@dataclass(frozen=True, slots=True)
class Scope:
    """begin, end: of the day, seconds since 1970, UTC; not asked of a shipment."""

    title: str
    begin: float
    end: float
    shipment: ShipmentName | None = None

    def version_before(self, seconds: float) -> str:
        """The version of so long before the day."""
        return version_of(max(0.0, self.begin - seconds))

    @property
    def version_after(self) -> str:
        """The first version that is refused on that day: more than a day ahead."""
        return version_of(self.end + DAY)


def scope_of(text: str, now: float) -> Scope:
    """`2026-11-20`, `20261120`, `today`, `yesterday` (UTC; "" is today), or the name of a shipment.

    Raises ConfigError for anything else.
    """
    begin = now // DAY * DAY
    if text in ("", "today"):
        return _day(begin)
    if text == "yesterday":
        return _day(begin - DAY)
    if match := _DAY.fullmatch(text):
        try:
            return _day(float(timegm(time.strptime("".join(match.groups()), "%Y%m%d"))))
        except ValueError:
            raise _refused(text) from None
    try:
        name = ShipmentName.parse(text)
    except ValueError:
        raise _refused(text) from None
    return Scope(f"shipment {name}", 0.0, float("inf"), name)


def _day(begin: float) -> Scope:
    return Scope(date_of(begin), begin, begin + DAY)


def _refused(text: str) -> ConfigError:
    hint = "a day in UTC as 2026-11-20, today, yesterday, or a shipment as `hathi status` names it"
    return ConfigError(f"neither a day nor a shipment: {text!r}", "", hint)
