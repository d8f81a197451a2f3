"""Facts -> findings.  Pure: what is OK, what is a Warning, what is an Alert (thresholds: `[health]`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pipeline.amounts import counted, length_of_time
from pipeline.ledger.layout import ShipmentName
from pipeline.operations.health import disagreement, gateways
from pipeline.operations.health.facts import Facts, LakeFacts, StoreFacts
from pipeline.operations.health.failing import by_reason, told, too_many
from pipeline.operations.health.remedies import REMEDIES, UNKNOWN
from pipeline.operations.health.rhythm import silent
from pipeline.operations.health.stuck import Stuck
from pipeline.process.installed import LAST_LINES
from pipeline.process.troubles import Trouble
from pipeline.settings import Health
from pipeline.times import DAY, HOUR, readable_time

PROGRAM = "program "
"""How the key of a finding about a program begins."""
PATH = re.compile(r"\S*/\S*")
"""What differs from try to try in the cause of one trouble: the folder that was written, the shipment's data."""
TURNS = 2
"""What may pass by itself is told once it has failed so many times in a row."""
FORGET_DAYS = 5
"""So long a request to forget may wait for what is open: retries take four days."""
NAMED = 5
"""So many of a kind are named; the rest are counted."""


class Level(IntEnum):
    """How bad it is; also the exit code of `hathi health`."""

    OK = 0
    WARNING = 1
    ALERT = 2

    @property
    def word(self) -> str:
        return "OK" if self is Level.OK else self.name.capitalize()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    level: Level
    key: str
    """What it is about; stays the same while the figures in the text change."""
    text: str
    hint: str = ""
    since: float | None = None
    """Seconds since 1970, where that is known."""

    @property
    def sign(self) -> str:
        """What makes a change worth telling."""
        return f"{self.level.word} {self.key}"


def level_of(findings: Iterable[Finding]) -> Level:
    """The worst of them."""
    return max((one.level for one in findings), default=Level.OK)


def judge(facts: Facts, limits: Health) -> tuple[Finding, ...]:
    """Everything that is not as it should be, the worst first."""
    found = [*_host(facts, limits), *_service(facts)]
    for store in facts.stores:
        found += _store(store, facts.at, limits)
    for lake in facts.lakes:
        found += _lake(lake, facts, limits)
    found += _in_vain(facts, limits, [one.text for one in found])
    for lake in facts.lakes:
        found += _stuck(lake, limits, [one.text for one in found])
    return tuple(sorted(found, key=lambda one: (-one.level, one.key)))


def _host(facts: Facts, limits: Health) -> Iterator[Finding]:
    if facts.estop is not None:
        yield Finding(
            Level.WARNING,
            "estop",
            "ESTOP is engaged: nothing runs on this host",
            "remove the file ESTOP from the state folder, then start the programs again",
            facts.estop,
        )
    else:
        for who, programs in _by_process(facts.died).items():
            names = ", ".join(programs)
            text = f"{names} {'does' if len(programs) == 1 else 'do'} not run: the process {who}"
            hint = f"see its last log lines with {LAST_LINES}, then start it again"
            yield Finding(Level.WARNING, f"{PROGRAM}{names}", text, hint)
    for disk in facts.disks:
        if disk.percent > limits.disk_percent:
            text = f"the disk of {disk.folder} is {disk.percent:.0f} % full ({disk.free_bytes / 1e9:.1f} GB free)"
            yield Finding(
                Level.ALERT,
                f"disk {disk.folder}",
                text,
                "delete what is not needed on that disk, or move the folder to another disk",
            )


def _service(facts: Facts) -> Iterator[Finding]:
    for one in facts.service:
        yield Finding(Level.WARNING, f"service {one.key}", one.text, one.hint)


def _by_process(died: Mapping[str, str]) -> dict[str, list[str]]:
    """Programs by how the process that had their locks ended: one process may have had several."""
    found: dict[str, tuple[str, list[str]]] = {}
    for program, who in died.items():
        process = re.search(r"pid \d+", who)
        found.setdefault(process[0] if process else who, (who, []))[1].append(program)
    return dict(found.values())


def _store(store: StoreFacts, at: float, limits: Health) -> Iterator[Finding]:
    if store.trouble:
        hint = store.hint or "run hathi doctor on this host: it tests each step of the connection"
        yield Finding(Level.ALERT, f"store {store.name}", f"the {store.name} cannot be used: {store.trouble}", hint)
        return
    if abs(store.skew) > limits.clock_seconds:
        way = "ahead of" if store.skew < 0 else "behind"
        text = f"this host's clock is {abs(store.skew):.0f} s {way} that of the {store.name}"
        yield Finding(
            Level.ALERT,
            f"clock {store.name}",
            text,
            "set the clock with chrony or ntpd; the server refuses requests of a wrong time",
        )
    if store.credentials_end is not None and store.credentials_end - at < limits.ticket_hours * HOUR:
        left = store.credentials_end - at
        when = f"ends in {length_of_time(left)}" if left > 0 else f"ended {length_of_time(-left)} ago"
        hint = "renew it (kinit, or new keys), or set a keytab or a role, which renew themselves"
        yield Finding(Level.ALERT, f"ticket {store.name}", f"the ticket for the {store.name} {when}", hint)
    for lake, rule in sorted(store.forgets.items()):
        text = f"the {store.name} deletes keys of lake {lake} by itself: {rule}"
        yield Finding(
            Level.ALERT, f"rule {lake}", text, "remove that rule from our prefix: only `hathi prune` may delete there"
        )


def _lake(lake: LakeFacts, facts: Facts, limits: Health) -> Iterator[Finding]:
    name = lake.lake
    if lake.estop is not None:
        text = f"ESTOP is engaged in the bucket: no host works for lake {name}"
        yield Finding(Level.WARNING, f"estop {name}", text, "hathi start --remote deletes it", lake.estop)
    yield from _stalled(lake, limits)
    if lake.missing:
        text = f"lake {name}: {counted(len(lake.missing), 'delivered file')} missing: {_some(lake.missing)}"
        yield Finding(
            Level.ALERT,
            f"missing {name}",
            text,
            _bring_back(lake.missing),
        )
    if lake.held:
        text = f"lake {name}: {len(lake.held):,} held (batches that failed too often): {_some(lake.held)}"
        yield Finding(
            Level.ALERT, f"held {name}", text, "see why with `hathi quarantine show`, then release or drop them"
        )
    late = {number: since for number, since in lake.forgets.items() if lake.now - since >= FORGET_DAYS * DAY}
    if late:
        since = min(late.values())
        text = (
            f"lake {name}: {counted(len(late), 'request')} to forget not done, the oldest for "
            f"{length_of_time(lake.now - since)}: {_some([str(number) for number in late])}"
        )
        hint = "`hathi forget` on a gateway goes on with it and says what it waits for"
        yield Finding(Level.WARNING, f"forget {name}", text, hint, since)
    for newer, level, what, hint in (
        (
            False,
            Level.ALERT,
            "cannot be read and waits for a person",
            "docs/runbook.md says how to repair: cannot be read here",
        ),
        (
            True,
            Level.WARNING,
            "was written by a newer Hathi and waits",
            "upgrade Hathi on this host, boxes before gateways",
        ),
    ):
        keys = tuple(one.key for one in lake.unreadable if one.newer is newer)
        if keys:
            text = f"lake {name}: a manifest of open shipments {what} ({len(keys)} in all): {_some(keys)}"
            yield Finding(level, f"{'newer' if newer else 'unreadable'} {name}", text, hint)
    for one in lake.unknown_sets:
        text = f"lake {name}: shipments of set {one} wait, and this configuration has no such set"
        yield Finding(Level.ALERT, f"set {name} {one}", text, "put the set back into the configuration")
    for key, text, hint in disagreement.findings(name, lake.refused_by):
        yield Finding(Level.ALERT, key, text, hint)
    for source, why in sorted(lake.troubles.items()):
        text = f"lake {name}: {source}: {why}"
        hint = lake.remedies.get(source, "look at what writes there, and at the source's settings")
        yield Finding(Level.ALERT, f"source {name} {source}", text, hint)
    for lasting, key, text, hint, since in gateways.silent(lake, facts, limits):
        yield Finding(Level.ALERT if lasting else Level.WARNING, key, text, hint, since)
    yield from _failing(lake, limits)
    yield from _silent(lake, limits)
    for source, why in sorted(lake.refused.items()):
        text = f"lake {name}: {source} is not shipped: {why}"
        yield Finding(Level.WARNING, f"refused {name} {source}", text)
    if lake.left.number:
        named = [f"{path} ({why})" for path, why in lake.left.first.items()]
        what = "file or folder of its sources is" if lake.left.number == 1 else "files or folders of its sources are"
        text = f"lake {name}: {lake.left.number:,} {what} not read: {_some(named)}"
        yield Finding(Level.WARNING, f"left out {name}", text, "rename or move them, or set the format of the source")


def lasts(one: Trouble) -> bool:
    """Whether a trouble is worth telling: what may pass by itself is, once it has failed TURNS times."""
    return one.times >= TURNS or not one.passing


def _in_vain(facts: Facts, limits: Health, told_already: Sequence[str]) -> Iterator[Finding]:
    """What the programs of this host try in vain: one finding for each stage and cause, with the remedy of that cause.

    told_already: texts of findings that name the same cause.
    """
    groups: dict[tuple[str, str, str], list[Trouble]] = {}
    for one in facts.troubles:
        if lasts(one) and not any(one.message in text for text in told_already):
            groups.setdefault((one.lake, one.stage, PATH.sub("...", one.message)), []).append(one)
    for (lake, stage, cause), some in sorted(groups.items()):
        since = min(one.since for one in some)
        lasting = facts.at - since >= limits.warning_hours * HOUR
        level = Level.WARNING if all(one.passing for one in some) and not lasting else Level.ALERT
        first = some[0]
        text = f"lake {lake}: {stage} fails on this host: {first.message}{f' ({first.detail})' if first.detail else ''}"
        if named := [one.what for one in some if one.what]:
            text += f"; in vain: {_some(named)}"
        hint = first.hint or f"see the last log lines of {stage} with {LAST_LINES}"
        yield Finding(level, f"{stage} {lake}: {cause}", text, hint, since)


def _bring_back(missing: Sequence[str]) -> str:
    """What to do about delivered files that are gone.  missing: ROOT/SHIPMENT/PARTNER/..."""
    shipments = sorted({str(name) for path in missing for name in map(_shipment, path.split("/")) if name is not None})
    again = ", ".join(f"`hathi ship --again {one}`" for one in shipments[:NAMED]) or "`hathi ship --again SHIPMENT`"
    return (
        f"restore them from a backup; where there is none, {again}, and once that is delivered, stop the daemons and "
        "run `hathi verify --repair`: it takes what is gone out of the index (`hathi verify` names all files)"
    )


def _shipment(word: str) -> ShipmentName | None:
    try:
        return ShipmentName.parse(word)
    except ValueError:
        return None


def _stuck(lake: LakeFacts, limits: Health, told_already: Sequence[str]) -> Iterator[Finding]:
    """Single shipments that cannot go on: one finding for each cause.  told_already: as of `_in_vain`."""
    groups: dict[str, list[Stuck]] = {}
    for one in lake.stuck:
        reason = one.cause.partition(": ")[2]
        if not reason or not any(reason in text for text in told_already):
            groups.setdefault(PATH.sub("...", re.sub("[0-9]+ ", "", one.cause)), []).append(one)
    for cause, some in sorted(groups.items()):
        since = min(one.since for one in some)
        worst = any(one.for_good for one in some) or lake.now - since >= limits.alert_hours * HOUR
        named = [f"{one.shipment} (since {readable_time(one.since)})" for one in some]
        text = f"lake {lake.lake}: {counted(len(some), 'shipment')} cannot go on, as {some[0].cause}: {_some(named)}"
        yield Finding(Level.ALERT if worst else Level.WARNING, f"stuck {lake.lake} {cause}", text, _out(some[0]), since)


def _out(one: Stuck) -> str:
    """The way out for a shipment that cannot go on."""
    close = f"`hathi ship --close {one.shipment}` ends it without features and ships its snapshot again"
    if one.gone.endswith("/plan"):
        return (
            f"stop the daemons and run `hathi verify --repair`: it writes the plan again from what the source still "
            f"has; where the source has it no more, restore {one.gone} from a copy, or {close}"
        )
    if one.gone:
        return f"restore {one.gone} from the store's versions or a copy; where there is none, {close}"
    return f"`hathi verify --deep` says whether something of it is gone or damaged; where nothing else helps, {close}"


def _stalled(lake: LakeFacts, limits: Health) -> Iterator[Finding]:
    """Refs wait and nothing was delivered for a long time; where the lake cannot be seen: nothing moved."""
    if lake.waiting_since is None:
        return
    last = lake.sent if lake.sees_lake else lake.moved
    since = max(lake.waiting_since, last or 0.0)
    hours = (lake.now - since) / HOUR
    if hours < limits.warning_hours:
        return
    level = Level.ALERT if hours >= limits.alert_hours else Level.WARNING
    what = "nothing was delivered" if lake.sees_lake else "no progress"
    backlog = ", ".join(
        f"{counted(one.shipments, 'shipment')} for {one.stage}" for one in lake.backlog if one.shipments
    )
    text = f"lake {lake.lake}: {what} for {length_of_time(lake.now - since)} although work waits: {backlog}"
    hint = f"the oldest waits for {lake.waiting_for}: run hathi doctor on the host that runs it, and read its log"
    yield Finding(level, f"sent {lake.lake}", text, hint, since)


def _silent(lake: LakeFacts, limits: Health) -> Iterator[Finding]:
    """Partners whose source has not come anew for days, against its own rhythm."""
    quiet = silent(lake.renewals, lake.now, limits.silent_days)
    if not quiet:
        return
    named = [
        f"partner {one.partner} (last version {readable_time(one.last)}; before, one came every "
        f"{length_of_time(one.rhythm)} at the latest)"
        for one in quiet
    ]
    text = f"lake {lake.lake}: {counted(len(quiet), 'partner')} silent, no new version of the source: {_some(named)}"
    hint = "ask whoever writes the source; of a partner that has left, this warning ends after 30 days of silence"
    yield Finding(Level.WARNING, f"silent {lake.lake}", text, hint, min(one.last for one in quiet))


def _failing(lake: LakeFacts, limits: Health) -> Iterator[Finding]:
    """One finding for each reason: one cause often hits many partners."""
    for reason, some in sorted(by_reason(lake.failing).items()):
        bad = [one for one in some if too_many(one.refs, one.failed, limits)]
        if not bad:
            continue
        more = f"; and {len(bad) - NAMED} more partners" if len(bad) > NAMED else ""
        named = "; ".join(map(told, bad[:NAMED]))
        remedy = REMEDIES.get(reason, UNKNOWN)
        text = f"lake {lake.lake}: too many images of the last day failed: {named}{more}"
        hint = f"{reason or 'unknown reason'} usually means: {remedy.means}.  {remedy.do}"
        if reason:
            partner = f" --partner {bad[0].partner}" if len(bad) == 1 else ""
            hint += f"; once that is mended, `hathi ship --again --failed {reason}{partner}` tries them again"
        yield Finding(Level.WARNING, f"failures {lake.lake} {reason or 'unknown'}", text, hint)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
