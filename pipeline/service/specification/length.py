"""How long a solver that was rebuilt trains, and whether a job may say otherwise.  Texts are ours, a field a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.service.specification.words import Limits
from pipeline.times import HOUR

_ITERATIONS = re.compile(r"^max_iter: (\d+)$", re.MULTILINE)
_POLY = re.compile(r'^lr_policy: "poly"$', re.MULTILINE)
MOST = Limits().iterations


def iterations_of(solver: str) -> int:
    """Its max_iter."""
    found = _ITERATIONS.search(solver)
    return int(found[1]) if found is not None else 0


def refused(solver: str, price: Mapping[str, Any], wanted: int, limits: Limits) -> str:
    """Why a job may not have that max_iter in place of the solver's; "": it may.  price: the solver's."""
    given = iterations_of(solver)
    seconds = price.get("seconds", 0.0) * wanted / max(1, given)
    if wanted > given and seconds > limits.seconds:
        return f"the training takes about {seconds / HOUR:,.0f} h; the most is {limits.seconds / HOUR:,.0f} h"
    return ""


def decides_the_rate(solver: str) -> bool:
    """Whether the learning rate of each iteration follows from max_iter: then no longer training goes on from it."""
    return _POLY.search(solver) is not None
