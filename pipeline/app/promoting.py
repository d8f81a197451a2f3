"""Puts a model into use: judged, uploaded, then named by one key (docs/protocol.md 16).

Whoever is cut has written nothing that counts, and does it again.  Of two at the same time one is first; the other is
told what stands there, and nothing of his is in use.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.app.candidates import Candidate, Piece, same_as_before
from pipeline.app.promotion_bar import Bar, differing_widths, shortfalls
from pipeline.errors import ConfigError, NetError, PermanentError
from pipeline.ledger import promotions
from pipeline.ledger.layout import version_of
from pipeline.ledger.manifest import Plan, Promoted
from pipeline.ledger.model_files import lost
from pipeline.ledger.promotions import PromotedFile, Promotion
from pipeline.ledger.protocol import Context, exists, open_hints, readable
from pipeline.process.host import host_of
from pipeline.settings import Settings
from pipeline.stages.following import Asked, Following

LOOKED_AT = 512
"""Open shipments that are looked at for a back-fill."""


@dataclass(frozen=True)
class Wanted:
    """What a person asks for.  figures: over those that come with the model.  yes: whatever the bar says.

    by: who asks; "" is the user of this process.  request: a name that comes once; what it put into use before, by
    whatever process, is found by it and not put there again.
    """

    model: str
    candidate: Candidate
    figures: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    bar: Bar = field(default_factory=Bar)
    why: str = ""
    yes: bool = False
    by: str = ""
    request: str = ""

    @property
    def all_figures(self) -> dict[str, float]:
        return {**self.candidate.figures, **self.figures}


@dataclass(frozen=True)
class Judged:
    """A model that fits the sets that follow it.

    fingerprints: by set, as it would be.  before: by set, as it is; "" where nothing is in use, or its files are lost.
    """

    context: Context
    wanted: Wanted
    current: Promoted | None
    body: Promotion | None
    number: int
    at: str
    fingerprints: Mapping[str, str]
    before: Mapping[str, str]
    short: tuple[str, ...]
    """What is not good enough, in words."""
    other: tuple[str, ...]
    """What has another number of values than the model in use has (of a head: of classes), in words."""
    running: tuple[str, ...]
    """Back-fills of these sets that are under way: they end with the model that they were planned with."""
    mine: Promoted | None = None
    """What this very request put into use before; all else is as it was judged then."""

    @property
    def in_use(self) -> bool:
        """Whether these very files are in use already, and none of them is lost."""
        if self.body is None:
            return False
        mine = sorted((one.role, one.name, one.sha256) for one in self.wanted.candidate.pieces)
        same = mine == sorted((one.role, one.name, one.sha256) for one in self.body.files)
        return same and not lost(self.context, self.body)


@dataclass(frozen=True)
class Outcome:
    """won: whether it is in use from now on; else `stands` is what another person put there meanwhile."""

    promoted: Promoted
    stands: Promotion
    won: bool


def model_of(settings: Settings, name: str) -> str:
    """The model that a set follows.  Raises ConfigError where there is no such set, or it names its files."""
    if name not in settings.sets:
        raise ConfigError(f"no set {name}", "", f"sets are: {', '.join(sorted(settings.sets))}")
    model = settings.sets[name].model
    if model is None:
        raise ConfigError(
            f"set {name} follows no model",
            f"its net is {settings.sets[name].net}",
            f'write model = "{name}" in place of net and weights in [sets.{name}], on gateways and boxes alike',
        )
    return model


def judge(context: Context, wanted: Wanted) -> Judged:
    """Whether a model fits, and is good enough; nothing is written.

    Raises NetError or ConfigError where it cannot serve a set that follows it.
    """
    numbers, now = promotions.numbers(context, wanted.model)
    mine = _mine(context, wanted, numbers)
    older = [number for number in numbers if mine is None or number < mine.number]
    current = Promoted(model=wanted.model, number=older[-1]) if older else None
    body = promotions.read(context, current) if current is not None else None
    sets = context.settings.followers(wanted.model)
    other = _others(context, wanted, sets, current) if current is not None else []
    short = shortfalls(wanted.all_figures, wanted.bar, body.figures if body is not None else None)
    if wanted.bar.against:
        short += [f"{one}: figures of the two say nothing of each other" for one in other]
    return Judged(
        context,
        wanted,
        current,
        body,
        mine.number if mine is not None else (numbers[-1] if numbers else 0) + 1,
        version_of(now),
        {name: _fits(context, wanted, name) for name in sets},
        {name: _before(context, name, current) for name in sets},
        tuple(short),
        tuple(other),
        tuple(_running(context, sets)),
        mine,
    )


def promote(judged: Judged) -> Outcome:
    """Its files, then the key that names them; the first writer of a number wins."""
    context, wanted = judged.context, judged.wanted
    older = wanted.candidate.again
    stored = [_stored(context, wanted.model, piece) for piece in wanted.candidate.pieces]
    body = Promotion(
        model=wanted.model,
        files=tuple(file for file, _ in stored),
        figures=wanted.all_figures,
        by=wanted.by or f"{getpass.getuser()}@{host_of(context.process.name)}",
        at=judged.at,
        why=wanted.why,
        job=wanted.candidate.job,
        data={**wanted.candidate.data, **wanted.data},
        again=older.number if older is not None and older.model == wanted.model else None,
        labels=wanted.candidate.labels,
        request=wanted.request,
    )
    won, stands = promotions.write(context, judged.number, body)
    if not won:
        for file, new in stored:
            if new:
                context.bucket.delete(file.key)
    return Outcome(Promoted(model=wanted.model, number=judged.number), stands, won)


def _mine(context: Context, wanted: Wanted, numbers: list[int]) -> Promoted | None:
    """The promotion that this request wrote, of those in the list that the next number comes from.

    One list for both: whoever else does the same request writes a number of this list, which is found here, or the
    next one, which put_new gives to one of the two.
    """
    if not wanted.request:
        return None
    for number in reversed(numbers):
        body = readable(context, context.keys.promotion(wanted.model, number), Promotion)
        if body is not None and body.request == wanted.request:
            return Promoted(model=wanted.model, number=number)
    return None


def _fits(context: Context, wanted: Wanted, name: str) -> str:
    """The fingerprint that a set gets."""
    from pipeline.nets.expected import expected

    one = context.settings.sets[name]
    try:
        return expected(wanted.candidate.configured(one))
    except NetError as error:
        hint = "name the net that serves, a deploy .prototxt with an input for images: --net FILE"
        raise NetError(
            f"the model cannot serve set {name}: {error.message}", error.detail, error.hint or hint
        ) from error


def _before(context: Context, name: str, current: Promoted | None) -> str:
    from pipeline.nets.expected import expected

    if current is None:
        return ""
    try:
        return expected(Following(context).configured(Asked(name, current.model, current.number)))
    except PermanentError:  # its files are lost, or do not fit: that is why it is replaced
        return ""


def _others(context: Context, wanted: Wanted, sets: Iterable[str], current: Promoted) -> list[str]:
    from pipeline.nets.expected import widths

    found: list[str] = []
    for name in sets:
        try:
            before = widths(Following(context).configured(Asked(name, current.model, current.number)))
        except PermanentError:  # its files are lost
            continue
        found += differing_widths(widths(wanted.candidate.configured(context.settings.sets[name])), before)
    return list(dict.fromkeys(found))


def _running(context: Context, sets: Iterable[str]) -> list[str]:
    """Back-fills that are not over: set, the promotion that it was planned with, and how many shipments."""
    open_: dict[tuple[str, str], int] = {}
    hints = open_hints(context, later=False)
    for name in sorted(hints.due)[:LOOKED_AT]:
        plan = readable(context, context.keys.plan(name), Plan) if name.round and not name.generation else None
        if plan is not None and plan.set in sets and plan.kind in ("backfill", "again"):
            by = str(plan.expects.promoted) if plan.expects is not None and plan.expects.promoted else "its older files"
            open_[plan.set, by] = open_.get((plan.set, by), 0) + 1
    return [f"set {name} by {by}: {number} open" for (name, by), number in sorted(open_.items())]


def _stored(context: Context, model: str, piece: Piece) -> tuple[PromotedFile, bool]:
    """The file in the bucket, and whether it is new there: what a promotion names already is not stored twice."""
    named = piece.stored.key if piece.stored is not None else _key_of(context, model, piece.sha256)
    new = not named or not exists(context, named)
    key = context.keys.model_file(context.process.nonce(), piece.name) if new else named
    if new:
        context.bucket.put(key, piece.path)
        if not same_as_before(piece):
            context.bucket.delete(key)
            raise ConfigError(
                f"{piece.path} changed while it was read", "", "promote it once nobody writes it any more"
            )
    return PromotedFile(role=piece.role, name=piece.name, key=key, size=piece.size, sha256=piece.sha256), new


def _key_of(context: Context, model: str, sha256: str) -> str:
    for number in promotions.numbers(context, model)[0]:
        body = readable(context, context.keys.promotion(model, number), Promotion)
        for file in body.files if body is not None else ():
            if file.sha256 == sha256:
                return file.key
    return ""
