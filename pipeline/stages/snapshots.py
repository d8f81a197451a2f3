"""What to ship anew: from what the sources name and what the bucket has, to plans (docs/protocol.md 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.errors import IGNORED
from pipeline.ledger.layout import FIRST_DUE, MAX_ROUND, ShipmentName, seconds_of
from pipeline.ledger.listing import named, names_under
from pipeline.ledger.manifest import End, Expected, Plan
from pipeline.ledger.protocol import Context, announce, readable
from pipeline.settings import FeatureSet, Ship
from pipeline.sources.found import Found
from pipeline.times import DAY


@dataclass(frozen=True)
class New:
    """A snapshot that no shipment covers yet, for one set."""

    name: ShipmentName
    plan: Plan
    group: str


@dataclass(frozen=True)
class Refused:
    """A snapshot that is not shipped, and why."""

    source: str
    why: str
    for_good: tuple[str, str] | None = None
    """The snapshot's digest and the set, where time changes nothing about it."""


def part_zero(found: Found, feature_set: str, lake: str, round_: int) -> ShipmentName:
    """The name of a snapshot's first shipment in a round."""
    return ShipmentName.of(lake, found.digest, feature_set, found.snapshot.version, round_, 0, 0)


def rounds(names: Iterable[ShipmentName], version: str) -> int:
    """1 + the greatest round that a version has; 0 where it has none."""
    return max((1 + name.round for name in names if name.version == version), default=0)


@dataclass(frozen=True)
class Known:
    """Part-0 first tries of some versions."""

    names: frozenset[ShipmentName]
    gone: frozenset[ShipmentName] = frozenset()
    """Those of which a part is void, its files gone or changed: should they come back, it is shipped again."""
    plans: Mapping[ShipmentName, Plan] = field(default_factory=dict)


def covered(found: Found, feature_set: str, lake: str, known: Known) -> bool:
    """Whether a part-0 plan of this snapshot is there, in any round of its version."""
    last = rounds(known.names, found.snapshot.version)
    return any(part_zero(found, feature_set, lake, r) in known.names - known.gone for r in range(last))


def plan(
    found: Sequence[Found],
    sets: Mapping[str, FeatureSet],
    lake: str,
    known: Known,
    settings: Ship,
    now: float,
    due_open: int,
    open_groups: Mapping[str, int] | None = None,
) -> tuple[list[New], list[Refused]]:
    """What to ship anew: groups with the fewest open shipments first, then the most lagging, one of each in turn.

    known: of the versions in question and later ones.  now: the store's time.  due_open: open shipments;
    open_groups: how many of them each group has, as far as that is known.
    """
    new: list[New] = []
    refused: list[Refused] = []
    for one in found:
        version = one.snapshot.version
        if seconds_of(version) > now + DAY:
            refused.append(
                Refused(
                    one.snapshot.source,
                    f"its version {version} lies more than a day in the future",
                )
            )
            continue
        for set_name in sorted(sets):
            if not takes(sets[set_name], lake) or covered(one, set_name, lake, known):
                continue
            newest, newest_job = _newest(one.snapshot.source, set_name, known.plans)
            if newest > version:
                why = f"its version went back from {newest} to {version}; touch its files to ship it again"
                refused.append(Refused(one.snapshot.source, why, (one.digest, set_name)))
                continue
            if newest_job > one.snapshot.job_time:
                why = f"its jobTimeStamp went back from {newest_job} to {one.snapshot.job_time}; run its job again"
                refused.append(Refused(one.snapshot.source, why, (one.digest, set_name)))
                continue
            round_ = rounds(known.names, version) if newest == version else 0
            if round_ > MAX_ROUND:
                why = f"version {version} was shipped {MAX_ROUND + 1} times, and more are not possible; touch its files"
                refused.append(Refused(one.snapshot.source, why))
                continue
            new.append(new_of(one, set_name, lake, round_, settings))
    room = max(0, settings.open_shipments - due_open)
    return _in_turn(new, settings.open_shipments, open_groups or {})[:room], refused


def takes(feature_set: FeatureSet, lake: str) -> bool:
    """Whether a set serves a lake."""
    return feature_set.lakes is None or lake in feature_set.lakes


def _newest(source: str, set_name: str, plans: Mapping[ShipmentName, Plan]) -> tuple[str, str]:
    """The greatest version and job time that were shipped of a source."""
    mine = [(n, p) for n, p in plans.items() if p.snapshot.source == source and p.set == set_name]
    return max((n.version for n, _ in mine), default=""), max((p.snapshot.job_time for _, p in mine), default="")


def new_of(found: Found, set_name: str, lake: str, round_: int, settings: Ship) -> New:
    """The first shipment of a snapshot in a round: its name, and the plan that it has."""
    name = part_zero(found, set_name, lake, round_)
    first, second, third = settings.retry_delays
    body = Plan(
        lake=lake,
        set=set_name,
        snapshot=found.snapshot,
        snapshot_digest=found.digest,
        reading=found.reading,
        batch_refs=settings.batch_refs,
        batch_bytes=settings.batch_bytes,
        batches=settings.batches_per_shipment,
        due=FIRST_DUE,
        retry_delays=(first, second, third),
    )
    return New(name, body, found.group)


def _in_turn(new: Sequence[New], most: int, open_groups: Mapping[str, int]) -> list[New]:
    """One shipment of each group in turn; no group may take the last quarter of what may be open."""
    each = max(1, most - most // 4)
    places: list[tuple[int, str, str, New]] = []
    taken = dict(open_groups)
    for one in sorted(new, key=lambda n: (n.name.version, n.group, str(n.name))):
        turn = taken.get(one.group, 0)
        taken[one.group] = turn + 1
        if turn < each:
            places.append((turn, one.name.version, one.group, one))
    return [place[-1] for place in sorted(places, key=lambda place: place[:3])]


def begin(context: Context, new: New, expects: Expected) -> None:
    """The hint and the plan; whoever wrote the plan first, its files, N and cursor count."""
    announce(context, new.name, new.plan.model_copy(update={"expects": expects}))


class Shipper:
    """One lake's ship stage over many runs: remembers which snapshots it has seen to be covered."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._covered: set[tuple[str, str]] = set()
        self._refused: dict[tuple[str, str], Refused] = {}
        self._after = ""

    def known(self, version: str) -> Known:
        """Part-0 first tries from a version on, without their plans."""
        context = self._context
        found = set()
        for entry, name in named(context.bucket, context.keys.commits, after=version):
            if name is None:
                context.once(entry.key, f"{entry.key} is not a key of Hathi; {IGNORED}")
            elif name.part == 0 and name.generation == 0:
                found.add(name)
        return Known(frozenset(found), frozenset(self._gone(version)))

    def _gone(self, version: str) -> Iterator[ShipmentName]:
        """First parts of the snapshots from a version on of which some part is void."""
        context = self._context
        for name in names_under(context.bucket, context.keys.gone_hints):
            end = readable(context, context.keys.end(name), End) if name.version >= version else None
            if end is None or end.void is None:
                continue
            if name.part == 0:
                yield name
            elif (body := readable(context, context.keys.plan(name), Plan)) is not None:
                yield ShipmentName.of(body.lake, body.snapshot_digest, body.set, name.version, name.round, 0, 0)

    def forget(self, digest: str) -> None:
        """A shipment of this snapshot is void: what covers it is looked up anew."""
        self._covered = {pair for pair in self._covered if pair[0] != digest}

    def fresh(
        self, found: Sequence[Found], now: float, due_open: int, open_groups: Mapping[str, int] | None = None
    ) -> tuple[list[New], list[Refused]]:
        """What the sources name and no shipment covers; what is refused for good is not looked into again."""
        pairs = [(one.digest, set_name) for one in found for set_name in self._context.settings.sets]
        before = [self._refused[pair] for pair in pairs if pair in self._refused]
        new, refused = self._fresh(found, now, due_open, open_groups or {})
        for one in refused:
            if one.for_good is not None:
                self._refused[one.for_good] = one
                self._covered.add(one.for_good)
        return new, before + [one for one in refused if one not in before]

    def _fresh(
        self, found: Sequence[Found], now: float, due_open: int, open_groups: Mapping[str, int]
    ) -> tuple[list[New], list[Refused]]:
        context = self._context
        sets = context.settings.sets
        lake = context.lake_name
        there = {(one.digest, set_name) for one in found for set_name in sets}
        self._covered &= there  # what goes and comes back may have become void on the way: it is looked up anew
        self._refused = {pair: one for pair, one in self._refused.items() if pair in there}
        wanted = [
            one for one in found if any((one.digest, s) not in self._covered for s in sets if takes(sets[s], lake))
        ]
        if not wanted:
            return [], []
        known = self.known(min(map(_since, wanted)))
        left = []
        for one in wanted:
            missing = False
            for set_name in sets:
                if covered(one, set_name, lake, known):
                    self._covered.add((one.digest, set_name))
                elif takes(sets[set_name], lake):
                    missing = True
            if missing:
                left.append(one)
        if not left:
            return [], []
        oldest = min(map(_since, left))
        plans = {}
        for name in known.names:
            if name.version >= oldest:
                body = readable(context, context.keys.plan(name), Plan)
                if body is not None:
                    plans[name] = body
        known = replace(known, plans=plans)
        return plan(left, sets, lake, known, context.settings.ship, now, due_open, open_groups)


def _since(one: Found) -> str:
    """No plan that forbids this snapshot has a smaller version: a version is never less than its job's time."""
    return min(one.snapshot.version, one.snapshot.job_time or one.snapshot.version)
