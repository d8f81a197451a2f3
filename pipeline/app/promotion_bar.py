"""Whether a model is good enough to be put into use: its figures against a bar, and against those of the one in use.

Pure.  Figures are a mapping from a name to a number, wherever they come from: a training's own test, an evaluation, or
a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

LESS_IS_BETTER = ("loss", "error")
"""Words in the name of a figure that is better the smaller it is; of all others more is better."""


@dataclass(frozen=True)
class Bar:
    """What is demanded.  least: by figure, its bound; against: no figure may be worse than that of the model in use."""

    least: Mapping[str, float] = field(default_factory=dict)
    against: bool = False


def shortfalls(figures: Mapping[str, float], bar: Bar, current: Mapping[str, float] | None) -> list[str]:
    """What is not good enough, in words; both numbers in each.

    current: the figures of the model in use, None where there is none.  Of these all are compared: a figure that the
    model in use has and this one lacks is a shortfall, as nobody knows whether it is worse.  So is a bar on a figure
    that the model lacks.
    """
    found = []
    for name, bound in bar.least.items():
        word = "at most" if less_is_better(name) else "at least"
        if name not in figures:
            known = ", ".join(sorted(figures)) or "none"
            found.append(f"it has no figure {name}, and {word} {bound:.6g} is wanted (figures: {known})")
        elif worse(name, figures[name], bound):
            found.append(f"{name} is {figures[name]:.6g}, and {word} {bound:.6g} is wanted")
    if not bar.against or current is None:
        return found
    if not current:
        return [*found, "the model in use has no figures: the two cannot be compared"]
    for name in sorted(current):
        if name not in figures:
            found.append(f"it has no figure {name}, and that of the model in use is {current[name]:.6g}")
        elif worse(name, figures[name], current[name]):
            found.append(f"{name} is {figures[name]:.6g}, and that of the model in use is {current[name]:.6g}")
    return found


def differing_widths(now: Mapping[str, int], before: Mapping[str, int]) -> list[str]:
    """What has another number of values (of a head: classes) than the model in use has, in words."""
    return [
        f"{name} has {now[name]:,} numbers, and that of the model in use has {before[name]:,}"
        for name in sorted(now.keys() & before.keys())
        if now[name] != before[name]
    ]


def worse(name: str, figure: float, than: float) -> bool:
    """Whether a figure is worse than a bound; one that is no number is."""
    if math.isnan(figure):
        return True
    return figure > than if less_is_better(name) else figure < than


def less_is_better(name: str) -> bool:
    return any(word in name.lower() for word in LESS_IS_BETTER)
