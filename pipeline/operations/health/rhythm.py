"""Partners that are silent: their source, which came anew in a rhythm of its own, has not come for days.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.times import DAY

RENEWALS = 16
"""So many renewals of a partner are remembered: of one that comes daily, two weekends are among them."""
LEAST = 4
"""Of fewer no rhythm is known."""
FORGOTTEN = 30 * DAY
"""Who has been silent for so long has left: nobody is told of it any more."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A partner whose source has not come anew.  last: its newest version; rhythm: its longest pause."""

    partner: str
    last: float
    rhythm: float


def silent(renewals: Mapping[str, Sequence[float]], now: float, days: float) -> tuple[Silent, ...]:
    """The silent ones, the longest silent first.

    renewals: by partner, the times of its versions, in order.  days: a shorter silence is none.  A partner is silent
    once it has paused for twice as long as ever before: who rests each weekend may rest for two.
    """
    found = []
    for partner, times in renewals.items():
        if len(times) < LEAST:
            continue
        rhythm = max(later - earlier for earlier, later in pairwise(times))
        pause = now - times[-1]
        if max(2 * rhythm, days * DAY) < pause < FORGOTTEN:
            found.append(Silent(partner, times[-1], rhythm))
    return tuple(sorted(found, key=lambda one: (one.last, one.partner)))


def joined(known: Iterable[float], new: Iterable[float]) -> tuple[float, ...]:
    """What is remembered of a partner's renewals once more are seen."""
    return tuple(sorted({*known, *new})[-RENEWALS:])
