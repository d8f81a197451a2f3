"""Models that were promoted: their versions, and where each comes from and goes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import ConfigError, FormatError
from pipeline.ledger import promotions
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import Done, Out, Plan, Promoted
from pipeline.ledger.model_files import lost
from pipeline.ledger.promotions import Promotion
from pipeline.ledger.protocol import Context, readable


@dataclass
class Shipped:
    """What was shipped for one set with one promotion: shipments, and the features of those that are delivered."""

    open: int = 0
    delivered: int = 0
    features: int = 0
    fingerprints: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Version:
    """One promotion.  body: None where it cannot be read here, and then `why`.  shipped: by set, where it was asked."""

    lake: str
    promoted: Promoted
    body: Promotion | None
    in_use: bool
    sets: tuple[str, ...]
    why: str = ""
    lost: tuple[str, ...] = ()
    """Files that the bucket has no more."""
    shipped: dict[str, Shipped] = field(default_factory=dict)


def versions(contexts: Iterable[Context], model: str = "", *, lineage: bool = False) -> list[Version]:
    """Every promotion, of one model or of all, by lake and model, the newest first.

    lineage: with what was shipped with each, which reads the plans of all shipments that the ledger knows.
    Raises ConfigError where nothing of that name was promoted.
    """
    found: list[Version] = []
    for context in contexts:
        names = [one for one in promotions.models(context) if model in ("", one)]
        shipped = _shipped(context, names) if lineage and names else {}
        for name in names:
            numbers = promotions.numbers(context, name)[0]
            sets = tuple(context.settings.followers(name))
            for number in reversed(numbers):
                promoted = Promoted(model=name, number=number)
                found.append(_version(context, promoted, number == numbers[-1], sets, shipped.get(str(promoted), {})))
    if model and not found:
        raise ConfigError(f"no model {model} was ever promoted", "", "`hathi models` names them all")
    return found


def in_use(context: Context) -> list[Version]:
    """The newest promotion of each model of a lake."""
    found = [(name, promotions.newest(context, name)) for name in promotions.models(context)]
    sets = context.settings.followers
    return [_version(context, one, True, tuple(sets(name)), {}) for name, one in found if one is not None]


def _version(
    context: Context, promoted: Promoted, in_use: bool, sets: tuple[str, ...], shipped: dict[str, Shipped]
) -> Version:
    try:
        body = promotions.read(context, promoted)
    except FormatError as error:
        return Version(context.lake_name, promoted, None, in_use, sets, str(error), shipped=shipped)
    gone = tuple(one.key for one in lost(context, body))
    return Version(context.lake_name, promoted, body, in_use, sets, lost=gone, shipped=shipped)


def _shipped(context: Context, models: list[str]) -> dict[str, dict[str, Shipped]]:
    """By promotion and set."""
    found: dict[str, dict[str, Shipped]] = {}
    for name in names_under(context.bucket, context.keys.commits):
        plan = readable(context, context.keys.plan(name), Plan)
        by = plan.expects.promoted if plan is not None and plan.expects is not None else None
        if plan is None or by is None or by.model not in models:
            continue
        one = found.setdefault(str(by), {}).setdefault(plan.set, Shipped())
        done = readable(context, context.keys.done(name), Done)
        out = readable(context, context.keys.out(name), Out)
        if out is not None:
            one.fingerprints.add(out.fingerprint)
        if done is None:
            one.open += 1
        elif out is not None and done.void is None:
            one.delivered += 1
            one.features += out.features
    return found


def as_tree(one: Version) -> dict[str, Any]:
    """A promotion as JSON has it.  Keys are only ever added."""
    body = one.body
    tree: dict[str, Any] = {
        "lake": one.lake,
        "model": one.promoted.model,
        "number": one.promoted.number,
        "in_use": one.in_use,
        "sets": list(one.sets),
        "unreadable": one.why,
        "lost": list(one.lost),
        "shipped": {
            name: {
                "open": some.open, "delivered": some.delivered, "features": some.features,
                "fingerprints": sorted(some.fingerprints),
            }
            for name, some in one.shipped.items()
        },
    }  # fmt: skip
    if body is not None:
        files = [file.model_dump(mode="json") for file in body.files]
        tree |= {
            "at": body.at, "by": body.by, "why": body.why, "figures": body.figures, "job": body.job, "data": body.data,
            "again": body.again, "digest": body.digest, "files": files, "labels": list(body.labels),
            "request": body.request,
        }  # fmt: skip
    return tree
