"""Whether two hosts mean the same features by one set's name, and what they tell each other where they do not.

A plan carries what the gateway expects of a set (docs/protocol.md 5).  A box compares it with what it would compute,
and leaves the shipment alone where that is something else.  The two documents are hints: they are written over, and may
be lost at any time.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.ledger.bodies import Body, Part
from pipeline.ledger.manifest import Expected


class Differs(Part):
    """A setting of a set that two hosts have differently."""

    setting: str
    """Its path in the set."""
    gateway: str
    here: str
    """On the host that computes; both as JSON, files by name and size."""

    def __str__(self) -> str:
        return f"{self.setting} is {self.gateway} at the gateway and {self.here} on the box"


class Restated(Body):
    """`h/expects/<set>`: what the gateway expects now of plans that it wrote before and expected something else of."""

    set: str
    expects: Expected


class Refused(Body):
    """`h/refused/<set>/<host>`: a host leaves shipments of a set alone."""

    set: str
    host: str
    process: str
    shipments: int
    """How many of those that it has seen."""
    shipment: str
    """The first of them by name."""
    differs: tuple[Differs, ...]


def differing(gateway: Expected, here: Expected) -> tuple[Differs, ...]:
    """The settings that make two hosts compute different features; empty where they compute the same.

    Where both know a fingerprint, that decides, and settings say why.  Else the settings decide that both name.
    """
    comparable = gateway.decode == here.decode and bool(gateway.fingerprint) and bool(here.fingerprint)
    if comparable and gateway.fingerprint == here.fingerprint:
        return ()
    found = _unequal(gateway.settings, here.settings)
    if found or not comparable:
        return found
    return _unequal(gateway.files, here.files) or _files(gateway, here)


def _unequal(gateway: Mapping[str, str], here: Mapping[str, str]) -> tuple[Differs, ...]:
    both = sorted(gateway.keys() & here.keys())
    unequal = [one for one in both if gateway[one] != here[one]]
    return tuple(Differs(setting=one, gateway=gateway[one], here=here[one]) for one in unequal)


def _files(gateway: Expected, here: Expected) -> tuple[Differs, ...]:
    """Files of one name and size that hold something else."""
    texts = (f"{' and '.join(one.files.values())} (fingerprint {one.fingerprint[:12]})" for one in (gateway, here))
    first, second = texts
    return (Differs(setting=" or ".join(sorted(gateway.files | here.files)), gateway=first, here=second),)
