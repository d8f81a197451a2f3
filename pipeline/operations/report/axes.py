"""Where numbers lie on the axis of a chart, and which of them are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 5.0, 10.0)
_WANTED = 5
"""Ticks of an axis, about."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from `low` to `high`; log: by the logarithm, both are above 0."""

    low: float
    high: float
    log: bool = False

    def part(self, value: float) -> float:
        """Where a value lies, from 0 (low) to 1 (high); what lies outside is put at the end."""
        if self.log:
            value = max(value, self.low)
            found = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            found = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, found))

    def ticks(self) -> list[float]:
        """Round numbers from low to high."""
        if self.log:
            return self._decades()
        step = _step((self.high - self.low) / _WANTED)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [at * step for at in range(first, last + 1)]

    def _decades(self) -> list[float]:
        low, high = math.log10(self.low), math.log10(self.high)
        every = max(1, round((high - low) / _WANTED))
        powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
        found = [10.0**power for power in powers if power % every == 0]
        if len(found) > 2:
            return found
        more = [part * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for part in (1, 2, 5)]
        return [one for one in more if self.low * 0.999 <= one <= self.high * 1.001]


def whole(last: float) -> Axis:
    """From 0 to the end of a training."""
    return Axis(0.0, max(1.0, last))


def around(values: Sequence[float], log: bool = False, zero: bool = False) -> Axis:
    """Round ends around these values; zero: from 0 on.  What is not above 0 does not count on a logarithmic axis."""
    found = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not found:
        return Axis(0.1, 1.0, log)
    low, high = min(found), max(found)
    if log:
        low, high = _down(low), _up(high)
        return Axis(low, high if high > low else 10 * low, True)
    if zero:
        low = min(0.0, low)
    if high <= low:
        spread = abs(high) or 1.0
        low, high = (low, low + spread) if zero else (low - spread / 2, high + spread / 2)
    step = _step((high - low) / _WANTED)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step)


def written(value: float) -> str:
    """A tick as people read it: 0.002, 15, 20,000, 1e-6, 2.5 M."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 999_999.5:
        return f"{value / 1e6:.6g}\u00a0M" if size < 1e9 else _powered(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}" if size >= 1e-3 else _powered(value)


def _powered(value: float) -> str:
    part, power = f"{value:.3e}".split("e")
    return f"{float(part):g}e{int(power)}"


def _step(least: float) -> float:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10.0 ** math.floor(math.log10(least)) if least > 0 else 1.0
    return next(part * power for part in _STEPS if part * power >= least * (1 - 1e-9))


def _down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(part * power for part in _STEPS if part * power <= value * (1 + 1e-9))


def _up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(part * power for part in _STEPS if part * power >= value * (1 - 1e-9))
