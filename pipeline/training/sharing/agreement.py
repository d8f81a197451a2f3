"""Whether the processes of a training are about to compute the same thing, with the same programs."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version

from pipeline import __version__
from pipeline.errors import SolverError
from pipeline.training.sharing.exchange import Exchange

_PACKAGES = {"torch": "torch", "NumPy": "numpy"}
MAY_DIFFER = ("CPU",)
"""What decides the last digits only: every shard still has the bits of whoever computes it."""


def programs() -> dict[str, str]:
    """What this process computes with, by name."""
    found = {"Hathi": __version__, "Python": platform.python_version()}
    return found | {name: version(package) for name, package in _PACKAGES.items()}


def agree(exchange: Exchange, name: str, facts: Mapping[str, str]) -> list[str]:
    """Compares what all processes are about to do with what process 0 is; what differs and may, as sentences.

    name: this process's, as messages call it.  Raises SolverError everywhere for what must not differ.
    """
    told = exchange.sum([], json.dumps({"name": name, "facts": dict(facts)}).encode())
    first, *others = (json.loads(one) for one in told)
    warnings = []
    for other in others:
        for fact, value in first["facts"].items():
            has = other["facts"].get(fact, "nothing")
            if has == value:
                continue
            says = f"{other['name']} has another {fact} than {first['name']}"
            if fact not in MAY_DIFFER:
                raise SolverError(says, f"{has} there, {value} here", _HINTS.get(fact, _HINT))
            warnings.append(f"{says}: {has}, {value}; its shards have other last digits")
    return warnings


_HINT = "give all of them the same installation"
_HINTS = {
    "training": "all of them must see the same solver, nets and weights",
    "data": "all of them must see the same data, at the same path",
    "snapshot": "all of them must see the same folder of snapshots",
}
