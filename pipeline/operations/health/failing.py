"""Partners of whose images too many failed within a day: which, how many, for which reason, and what to do.

The index that a look reads anyway counts features and failures of each delivery, so finding such partners costs no
request.  Only for the worst of them the delivered failures are read, once each and at most some rows of some files:
they say which reason rules, and of which host.

A retry tries again what has failed before.  So a first try that was delivered within the day counts its refs once, and
each feature that its retries and releases have brought since then counts as one failure less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.codec.delivered.forms import is_failures
from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.deliveries import Delivery, Index
from pipeline.ledger.layout import Root, ShipmentName, seconds_of
from pipeline.operations.health.facts import FailingPartner
from pipeline.records import REASONS
from pipeline.settings import Health
from pipeline.stores.store import Lake
from pipeline.times import DAY

if TYPE_CHECKING:
    from pipeline.codec.delivered.failures import Behind

LOOKED_INTO = 20
"""Partners whose failures one look reads."""
FILES = 4
"""Files of failures that are read for a partner."""
ROWS = 50_000
"""Rows that are read of a file."""


@dataclass(frozen=True)
class Day:
    """A partner's first tries of the last day.  failed: those that no retry has brought a feature for since."""

    partner: int
    refs: int
    failed: int
    folders: Mapping[str, tuple[str, ...]]
    """The folders of the first tries, and their files of failures; relative to the root."""


def days(index: Index, now: float) -> list[Day]:
    """Each partner that something was delivered for in the last day, in the order of their numbers."""
    first: dict[tuple[int, str, int, int], list[Delivery]] = {}
    later: Counter[tuple[int, str, int, int]] = Counter()
    for one in index.deliveries:
        try:
            name = ShipmentName.parse(one.folder.partition("/")[0])
        except ValueError:
            continue  # not ours; `verify` says so
        family = (one.partner_id, name.version, name.round, name.part)
        if name.generation:
            later[family] += one.features
        elif one.delivered and seconds_of(one.delivered) > now - DAY:
            first.setdefault(family, []).append(one)
    found: dict[int, Day] = {}
    for family, deliveries in first.items():
        refs = sum(one.features + one.failures for one in deliveries)
        failed = max(0, sum(one.failures for one in deliveries) - later[family])
        before = found.get(family[0], Day(family[0], 0, 0, {}))
        folders = {**before.folders, **{one.folder: _failures(one) for one in deliveries}}
        found[family[0]] = Day(family[0], before.refs + refs, before.failed + failed, folders)
    return [found[partner] for partner in sorted(found)]


def too_many(refs: int, failed: int, limits: Health) -> bool:
    """Whether the share of failures is one to warn of."""
    return refs >= limits.failed_refs and failed * 100.0 > limits.failed_percent * refs


@dataclass
class Failing:
    """Looks at one root; what it has read of delivered folders, which never change, it remembers."""

    _known: dict[str, Counter[Behind]] = field(default_factory=dict)

    def look(
        self,
        lake: Lake,
        root: Root,
        set_name: str,
        index: Index,
        now: float,
        limits: Health,
        troubles: dict[str, PipelineError],
        safe_point: Callable[[], None] = lambda: None,
    ) -> list[FailingPartner]:
        """Those of whose images too many failed, the most failures first."""
        bad = [one for one in days(index, now) if too_many(one.refs, one.failed, limits)]
        bad.sort(key=lambda one: (-one.failed, one.partner))
        wanted = {folder for one in bad[:LOOKED_INTO] for folder in one.folders}
        self._known = {folder: counts for folder, counts in self._known.items() if folder in wanted}
        found = []
        for place, one in enumerate(bad):
            known = FailingPartner(str(one.partner), set_name, one.refs, one.failed)
            if place < LOOKED_INTO:
                known = _ruled(known, self._read(lake, root, one, troubles, safe_point))
            found.append(known)
        return found

    def _read(
        self, lake: Lake, root: Root, one: Day, troubles: dict[str, PipelineError], safe_point: Callable[[], None]
    ) -> Counter[Behind]:
        from pipeline.codec.delivered.failures import count_failures  # Arrow, only where too many failed

        sums: Counter[Behind] = Counter()
        left = FILES
        for folder, files in sorted(one.folders.items(), reverse=True):
            if folder not in self._known:
                if left <= 0:
                    continue
                counts: Counter[Behind] = Counter()
                for file in files[:left]:
                    safe_point()
                    left -= 1
                    try:
                        with lake.open(f"{root.root}/{file}") as stream:
                            counts += count_failures(file, stream, ROWS)
                    except Stopped:
                        raise
                    except PipelineError as error:
                        why = f"{error.message} ({error.detail})" if error.detail else error.message
                        troubles[f"{root.root}/{file}"] = PipelineError("its failures cannot be read", why, error.hint)
                self._known[folder] = counts
            sums += self._known[folder]
        return sums


def _failures(one: Delivery) -> tuple[str, ...]:
    return tuple(f"{one.folder}/{file.name}" for file in one.files if is_failures(file.name))


def _ruled(one: FailingPartner, counts: Counter[Behind]) -> FailingPartner:
    """With the reason that rules, and the host that most of its failures have, if one has."""
    from pipeline.codec.delivered.failures import UNASKED

    unasked = _unasked(counts)
    counts = Counter({behind: number for behind, number in counts.items() if behind[1] != UNASKED}) + unasked
    reasons: Counter[str] = Counter()
    for (_, reason), number in counts.items():
        reasons[reason] += number
    if not reasons:
        return one
    reason, number = min(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    hosts = {host: many for (host, why), many in counts.items() if why == reason and host}
    host = min(hosts, key=lambda name: (-hosts[name], name), default="")
    left = sum(many for (_, why), many in unasked.items() if why == reason) if reason != "host_busy" else 0
    return replace(
        one,
        reason=reason,
        reason_percent=100.0 * number / reasons.total(),
        unasked_percent=100.0 * left / number,
        host=host if 2 * hosts.get(host, 0) > number else "",
    )


def _unasked(counts: Counter[Behind]) -> Counter[Behind]:
    """What hosts were not asked for any more, by the reason that each had failed of most; else `host_busy`."""
    from pipeline.codec.delivered.failures import UNASKED

    found: Counter[Behind] = Counter()
    for (host, mark), number in counts.items():
        if mark != UNASKED:
            continue
        against = {
            reason: many
            for (one, reason), many in counts.items()
            if one == host and reason in REASONS and REASONS[reason].against_host
        }
        found[host, min(against, key=lambda reason: (-against[reason], reason), default="host_busy")] += number
    return found


def by_reason(failing: Iterable[FailingPartner]) -> dict[str, list[FailingPartner]]:
    """Those with the same ruling reason together: one cause often hits many partners."""
    found: dict[str, list[FailingPartner]] = {}
    for one in failing:
        found.setdefault(one.reason, []).append(one)
    return found


def told(one: FailingPartner) -> str:
    """A partner in words, with its share, reason and host."""
    percent = f"{100.0 * one.failed / one.refs:.0f} %"
    text = f"partner {one.partner}: {one.failed:,} of {counted(one.refs, 'image')} ({percent}"
    if one.reason:
        text += f"; {one.reason_percent:.0f} % of them {one.reason}"
    if one.unasked_percent:
        text += f", or not asked for after that ({one.unasked_percent:.0f} %)"
    if one.host:
        text += f", host {one.host}"
    return f"{text}; set {one.set})"
