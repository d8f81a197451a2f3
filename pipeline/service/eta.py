"""When a training ends: told from the speed of its last iterations, and not before there are ten of them.

How good that was is told, too: what was told first in an attempt is compared with what came.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST = 10
"""Before so many iterations nothing is told."""
WEIGHT = 0.3
"""Of what was measured last, against all before."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Where a training is.  second: seconds an iteration, smoothed; None before anything was measured."""

    iteration: int
    at: float
    second: float | None = None
    seen: int = 0
    """Iterations that were measured."""


@dataclass(frozen=True, slots=True)
class Told:
    """What was told first.  at: by the clock of the pace; seconds: that were left then."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Missed:
    """Seconds: as they were told, as they came, and how far the one is from the other."""

    told: float
    came: float
    error: float


def missed(told: Told, ended: float) -> Missed:
    """ended: when the training succeeded, by the same clock."""
    came = max(0.0, ended - told.at)
    return Missed(told.seconds, came, abs(told.seconds - came))


def moved(pace: Pace, iteration: int, at: float) -> Pace:
    """The pace after a later look; what went back (a resumed training) begins to be measured anew."""
    done = iteration - pace.iteration
    if done < 0:
        return Pace(iteration, at)
    if done == 0 or at <= pace.at:
        return pace
    now = (at - pace.at) / done
    second = now if pace.second is None else WEIGHT * now + (1 - WEIGHT) * pace.second
    return Pace(iteration, at, second, pace.seen + done)


def seconds_left(pace: Pace, of: int) -> float | None:
    """Seconds until iteration `of`; None: too little was measured."""
    if pace.second is None or pace.seen < LEAST:
        return None
    return max(0, of - pace.iteration) * pace.second
