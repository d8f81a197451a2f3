"""Whether a model is good enough to be put into use: its figures against a bar, and against those of the one in use.

Pure.  Figures are a mapping from a name to a number, wherever they come from: a training's own test, an evaluation, or
a person.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import ConfigError

LESS_IS_BETTER = ("loss", "error")
"""Words in the name of a figure that is better the smaller it is; of all others more is better."""


@dataclass(frozen=True)
class Bar:
    """What is demanded.  least: by figure, its bound; against: no figure may be worse than that of the model in use."""

    least: Mapping[str, float] = field(default_factory=dict)
    against: bool = False


def shortfalls(figures: Mapping[str, float], bar: Bar, current: Mapping[str, float] | None) -> list[str]:
    """What is not good enough, in words; both numbers in each.

    current: the figures of the model in use, None where there is none.  Of these are compared the figures that `least`
    names, else all that both have.
    Raises ConfigError for a bar on a figure that the model lacks: nobody knows whether it is met.
    """
    found = []
    for name, bound in bar.least.items():
        if worse(name, _known(figures, name), bound):
            word = "at most" if less_is_better(name) else "at least"
            found.append(f"{name} is {figures[name]:.6g}, and {word} {bound:.6g} is wanted")
    if not bar.against or current is None:
        return found
    common = [name for name in (bar.least or sorted(figures)) if name in current and name in figures]
    if not common:
        names = ", ".join(sorted(current)) or "no figures"
        return [*found, f"it has no figure of the model in use, which has {names}: the two cannot be compared"]
    for name in common:
        if worse(name, figures[name], current[name]):
            found.append(f"{name} is {figures[name]:.6g}, and that of the model in use is {current[name]:.6g}")
    return found


def worse(name: str, figure: float, than: float) -> bool:
    """Whether a figure is worse than a bound; one that is no number is."""
    if math.isnan(figure):
        return True
    return figure > than if less_is_better(name) else figure < than


def less_is_better(name: str) -> bool:
    return any(word in name.lower() for word in LESS_IS_BETTER)


def _known(figures: Mapping[str, float], name: str) -> float:
    if name not in figures:
        raise ConfigError(
            f"the model has no figure {name}, so nobody knows whether it is good enough",
            f"its figures are: {', '.join(sorted(figures)) or 'none'}",
            f"name what you measured with --figures {name}=NUMBER, or demand another figure",
        )
    return figures[name]
