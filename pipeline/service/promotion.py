"""Putting a tenant's model into use in the lake: to which sets it may, and what is asked of whoever does it.

What a promotion is in the bucket lies above this room (docs/protocol.md 16), so the promoter is handed in by whoever
begins the program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import PermanentError
from pipeline.settings import FeatureSet, Settings

KIND = "promote"


class Overtaken(PermanentError):
    """Another promotion of the model was first."""


class Parted(Exception):
    """The promotion is another worker's meanwhile: nothing was put into use."""


@dataclass(frozen=True)
class Order:
    """What is to be put into use.  id: of the promotion, which its document in the bucket names.

    lake: "" is each that the set takes.  number: the older promotion that comes back, None for files of a version.
    by: who asks, for people.  backfill: whether what the set had before is computed anew.
    """

    id: str
    set: str
    lake: str
    number: int | None
    by: str
    why: str
    backfill: bool


@dataclass(frozen=True)
class Bundle:
    """A version's files on this host, and what is known of it.  figures: of its test, as `accuracy`; data: digests."""

    net: Path
    weights: Path
    mean: Path | None = None
    labels: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    job: str = ""
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InUse:
    """What one lake has now.  new: False where these very files were in use before.

    fingerprint, before: of the set, from now on and until now; "" where there was none.
    """

    lake: str
    model: str
    number: int
    new: bool
    fingerprint: str
    before: str


@dataclass(frozen=True)
class Requested:
    """A shipment in which a snapshot is computed anew."""

    lake: str
    shipment: str


@dataclass(frozen=True)
class Outcome:
    """in_use: by lake.  backfill: what was requested; None where nobody wanted it."""

    in_use: Sequence[InUse]
    backfill: Sequence[Requested] | None

    def as_result(self) -> dict[str, Any]:
        """As the row of its work keeps it."""
        asked = [asdict(one) for one in self.backfill] if self.backfill is not None else None
        return {"in_use": [asdict(one) for one in self.in_use], "backfill": asked}


@dataclass(frozen=True)
class Progress:
    """How far a back-fill is: of its snapshots how many are delivered, and what became of their refs until now."""

    snapshots: int
    delivered: int
    refs: int
    computed: int
    features: int
    failures: int


class Promoter(Protocol):
    """Who knows the bucket's side of it.  Raises PipelineError."""

    settings: Settings

    def promote(self, order: Order, bundle: Bundle | None, still: Callable[[], bool]) -> Outcome:
        """Puts it into use, once for each id, however often and by how many it is asked.

        bundle: None where an older promotion comes back.  still: asked before a number is taken.
        Raises Overtaken, Parted, PipelineError.
        """

    def progress(self, requested: Sequence[Requested]) -> Progress:
        """How far these shipments are."""


def granted(settings: Settings, tenant: str, name: str) -> FeatureSet | None:
    """The set, where a tenant may put a model into use for it; None: there is none such for it.  tenant: its name."""
    return settings.sets[name] if name in settings.service.promotion.get(tenant, ()) else None


def beside(settings: Settings, tenant: str, one: FeatureSet) -> list[str]:
    """The sets that would change with this one, and that the tenant has no right to."""
    mine = settings.service.promotion.get(tenant, ())
    return [name for name in settings.followers(one.model or "") if name not in mine]


def lakes_of(settings: Settings, one: FeatureSet) -> list[str]:
    """The lakes that a set takes."""
    return [lake for lake in sorted(settings.lakes) if one.lakes is None or lake in one.lakes]
