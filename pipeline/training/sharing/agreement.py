"""Whether the processes of a training are about to compute the same, with the same programs, from one snapshot."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version

from pipeline import __version__
from pipeline.errors import SolverError, TemporaryError
from pipeline.training.sharing.exchange import Exchange

_PACKAGES = {"torch": "torch", "NumPy": "numpy"}
LOOK_SECONDS = 2.0
LOOKS = 45
"""So often they look for the same snapshot: for longer than Linux caches a folder of NFS (acdirmax: 60 s)."""
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
    "snapshot": "give all of them the same --snapshot, or none, and --again to all or none",
}


def newest_of_all(
    exchange: Exchange,
    name: str,
    newest: Callable[[int | None], int | None],
    wait: Callable[[], bool],
    say: Callable[[str], None],
) -> int | None:
    """The iteration of the newest snapshot that all processes see; None: nobody sees one.

    newest: what this process sees, at most of an iteration.  wait: some time; False: this process waits no more.  A
    network file system may show what one host wrote to another one a minute later: so long they look again.  Raises
    TemporaryError everywhere where some see a snapshot and others see none.
    """
    waits, seen = True, _tell(exchange, name, newest(None), True)
    for look in range(LOOKS):
        if len({one.iteration for one in seen}) == 1 or not all(one.waits for one in seen):
            break
        if look == 0:
            say(f"the newest snapshot differs: {', '.join(map(str, seen))}; they look again until it does not")
        waits = waits and wait()
        seen = _tell(exchange, name, newest(None), waits)
    while len({one.iteration for one in seen}) > 1:
        blind = next((one for one in seen if one.iteration is None), None)
        if blind is not None:
            other = next(one for one in seen if one.iteration is not None)
            raise TemporaryError(
                f"{blind.name} sees no snapshot, and {other.name} sees one of iteration {other.iteration}",
                "they see different folders, or the file system between them shows what was written much later",
                "mount the folder of snapshot_prefix into all of them",
            )
        least = min(one.iteration for one in seen if one.iteration is not None)
        seen = _tell(exchange, name, newest(least), waits)
    return seen[0].iteration


@dataclass(frozen=True)
class _Seen:
    """What one process sees, and whether it would look again."""

    name: str
    iteration: int | None
    waits: bool

    def __str__(self) -> str:
        return f"{self.name} sees {'none' if self.iteration is None else f'iteration {self.iteration}'}"


def _tell(exchange: Exchange, name: str, iteration: int | None, waits: bool) -> list[_Seen]:
    """What all processes see."""
    told = exchange.sum([], json.dumps(asdict(_Seen(name, iteration, waits))).encode())
    return [_Seen(**json.loads(one)) for one in told]
