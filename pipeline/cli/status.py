"""Say what is open, waiting, held and running, how fast it goes, and how fresh each partner is.  It only reads.

Rates are those of the last hour, as the ledger tells of it; the time to finish is what is left at that rate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.amounts import counted, length_of_time
from pipeline.app.contexts import opened
from pipeline.app.status import Status, as_tree, in_vain, not_seen, status
from pipeline.cli.output.columns import columns, when
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.ledger.layout import version_of
from pipeline.ledger.protocol import Context
from pipeline.ledger.row_counts import RowCounts
from pipeline.operations.backfills import Backfill
from pipeline.operations.health import disagreement
from pipeline.operations.health.failing import told
from pipeline.operations.health.look import Look
from pipeline.operations.health.memory import read_memory
from pipeline.operations.health.this_host import disks_in_time, has_seen_lakes, ran_here
from pipeline.operations.report.standing import Running, Standing
from pipeline.process import logs
from pipeline.process.lock import holder
from pipeline.process.redaction import redact_tree
from pipeline.settings import Settings, load
from pipeline.sources.found import Left
from pipeline.stage_names import STAGES

SHOWN = 20
"""Rows of a table, unless all are asked for."""
WATCH_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi status`."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each look, for programs")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help="look again every SECONDS (default 5) until Ctrl-C",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"show all rows of each table (without it: the first {SHOWN})"
    )


def run(args: argparse.Namespace) -> int:
    """0; 1 where the bucket, or a lake that this host needs, gives no answer."""
    if args.watch is not None and not 0 < args.watch < float("inf"):
        raise ConfigError(f"--watch {args.watch} is not a pause", "", "--watch takes seconds, more than 0")
    settings = load(place_of(args), os.environ)
    state = Path(settings.state)
    clock = Clock()
    where, look = _looking(settings, clock)
    while True:
        programs = {stage: holder(state, stage) for stage in STAGES}
        found = status(where, look, _first_seen(state), programs, ran_here(state))
        if args.json:
            print(json.dumps(redact_tree(as_tree(found)), sort_keys=True))
        else:
            clear = "\x1b[H\x1b[2J\x1b[3J" if args.watch is not None and sys.stdout.isatty() else ""
            lines = list(as_lines(found, rows=None if args.all else SHOWN))
            print(clear + "\n".join([f"of {place_of(args)}, {when(version_of(found.facts.at))}", *lines]))
        silent = any(one.trouble for one in found.facts.stores)
        if args.watch is None:
            return int(silent)
        if silent:
            where, look = _looking(settings, clock)  # what gave no answer is asked anew
        sys.stdout.flush()
        clock.sleep(args.watch)


def _looking(settings: Settings, clock: Clock) -> tuple[list[Context], Look]:
    """Every store asked for its first answer, and the look that goes on from there."""
    where, unopened = opened(settings, "health")
    expects = has_seen_lakes(Path(settings.state))
    more: dict[str, Any] = {"unopened": unopened, "disks": disks_in_time}
    return where, Look(settings, where, clock, expects_lakes=expects, folders=0, forms=False, **more)


def _first_seen(state: Path) -> Callable[[str], float]:
    """When health first saw a snapshot that no shipment covered; 0 where it never did."""
    memory = read_memory(state)
    return lambda key: memory.unplanned.get(key, 0.0)


def as_lines(found: Status, rows: int | None) -> Iterator[str]:
    """For people, at 80 columns."""
    facts = found.facts
    if facts.estop is not None:
        yield "ESTOP is engaged: nothing starts on this host until the file ESTOP is removed from the state folder"
    for stage in STAGES:
        if who := found.programs[stage]:
            yield f"{stage:<10} runs: {who}"
        elif last := facts.died.get(stage):
            yield f"{stage:<10} does not run: it {logs.escape(logs.redact(last))}"
        elif stage in found.belong:
            yield f"{stage:<10} does not run"
        for why in in_vain(facts, stage):
            yield f"{stage:<10} fails: {logs.escape(logs.redact(why))}; `hathi health` says what to do"
    if not (found.belong or facts.died or any(found.programs.values())):
        yield "no program has run on this host yet"
    for what, why in not_seen(facts).items():
        yield f"not seen from here: {what}: {logs.escape(logs.redact(why))}"
    for one in found.lakes:
        yield ""
        yield from _lake(one, rows)


def _lake(one: Standing, rows: int | None) -> Iterator[str]:
    facts = one.facts
    yield f"lake {facts.lake}"
    if facts.estop is not None:
        yield "ESTOP is engaged in the bucket: every host stops; hathi start --remote deletes it"
    if one.open or any(stage.shipments for stage in one.stages):
        yield from _stages(one)
    else:
        yield "nothing is open"
    if one.last_hour.reused:
        yield _reused(one.last_hour)
    for going in one.backfills[:rows]:
        yield _backfill(going)
    yield from _more(len(one.backfills), rows, "back-fills and snapshots shipped again")
    yield from _running(one.running, facts.now, rows)
    yield from _open(one, rows)
    for due in one.retries[:3]:
        yield f"retries: {counted(due.shipments, 'shipment')} due {when(due.at)}"
    told = sum(due.shipments for due in one.retries[:3])
    if facts.retries > told:
        yield f"retries: {counted(facts.retries - told, 'shipment')} due later"
    for name in facts.held[:rows]:
        yield f"held: {name}"
    if facts.held:
        yield f"held batches: {len(facts.held)}; see why with `hathi quarantine show`, then release or drop them"
    if facts.forgets:
        age = length_of_time(facts.now - min(facts.forgets.values()))
        what = counted(len(facts.forgets), "request")
        yield f"to be forgotten: {what} open, the oldest for {age}; `hathi forget` goes on and says what waits"
    for _, text, _ in disagreement.findings(facts.lake, facts.refused_by):
        yield logs.escape(logs.redact(text.removeprefix(f"lake {facts.lake}: ")))
    yield from _failing(one, rows)
    refused = sorted({**facts.refused, **facts.troubles}.items())
    for source, why in refused[:rows]:
        yield f"cannot be read: {logs.escape(source)}: {logs.escape(logs.redact(why))}"
    yield from _more(len(refused), len(refused[:rows]), "sources")
    yield from _left(facts.left, "not read (format or name not known)", rows)
    yield from _left(facts.later, "not read yet (still being written)", rows)
    yield from _partners(one, rows)


def _left(left: Left, what: str, rows: int | None) -> Iterator[str]:
    if not left.number:
        return
    yield f"{what}: {counted(left.number, 'file or folder', 'files or folders')} at the sources"
    shown = list(left.first.items())[:rows]
    for path, why in shown:
        yield f"  {logs.escape(path)}: {why}"
    yield from _more(left.number, len(shown), "files or folders")


def _stages(one: Standing) -> Iterator[str]:
    now = one.facts.now
    table = [("waits for", "shipments", "batches", "images", "oldest", "last hour", "to finish")]
    for row in one.stages:
        oldest = length_of_time(now - row.oldest) if row.oldest is not None else ""
        left = length_of_time(row.seconds_left) if row.seconds_left is not None else "unknown" if row.refs else ""
        table.append(
            (row.stage, f"{row.shipments:,}", f"{row.batches:,}", f"{row.refs:,}", oldest, f"{row.last_hour:,}", left)
        )  # fmt: skip
    yield from columns(table, right={1, 2, 3, 4, 5, 6})
    if one.facts.not_looked_at:
        yield f"and {one.facts.not_looked_at:,} more open shipments"


def _reused(counts: RowCounts) -> str:
    """Of the last hour."""
    share = 100 * counts.reused // counts.features
    return (
        f"used again: {counts.reused:,} of {counted(counts.features, 'feature')} of the last hour ({share} %): "
        f"{counts.not_modified:,} not modified, {counts.equal_bytes:,} of equal bytes"
    )


def _backfill(one: Backfill) -> str:
    by = f" by {one.by}" if one.by else ""
    share = f" ({100 * one.computed // one.images} %)" if one.images else ""
    left = length_of_time(one.seconds_left) if one.seconds_left is not None else "unknown"
    return (
        f"{one.what}{by}: {one.computed:,} of {counted(one.images, 'image')}{share}, {one.delivered:,} of "
        f"{counted(one.snapshots, 'snapshot')} delivered; to finish: {left}"
    )


def _running(running: Sequence[Running], now: float, rows: int | None) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Running]] = {}
    for one in running:
        groups.setdefault((one.host, one.stage), []).append(one)
    if not groups:
        return
    table = [("running on", "stage", "attempts", "oldest", "its shipment")]
    for (host, stage), attempts in list(groups.items())[:rows]:
        first = min(attempts, key=lambda one: one.since)
        table.append((host[:16], stage, str(len(attempts)), length_of_time(now - first.since), first.shipment[:30]))
    yield ""
    yield from columns(table, right={2, 3})
    yield from _more(len(groups), rows, "hosts")


def _open(one: Standing, rows: int | None) -> Iterator[str]:
    if not one.open:
        return
    table = [("open shipment", "set", "waits for", "computed")]
    for row in one.open[:rows]:
        table.append((row.shipment, row.set, row.stage, f"{row.results:,}/{row.batches:,}"))
    yield ""
    yield from columns(table, right={3})
    yield from _more(len(one.open), rows, "open shipments")


def _failing(one: Standing, rows: int | None) -> Iterator[str]:
    for row in one.facts.failing[:rows]:
        yield f"too many images of the last day failed: {told(row)}"
    yield from _more(len(one.facts.failing), rows, "partners with too many failures")


def _partners(one: Standing, rows: int | None) -> Iterator[str]:
    fresh = one.facts.freshness
    if not fresh:
        return
    table = [("partner", "set", "at the source", "delivered", "behind")]
    for row in fresh[:rows]:
        table.append(
            (
                row.partner,
                row.set,
                when(row.source) if row.source else "-",
                when(row.delivered) if row.delivered else "never",
                length_of_time(row.lag) if row.lag > 0 else "",
            )
        )
    yield ""
    yield from columns(table, right={4})
    yield from _more(len(fresh), rows, "partners")


def _more(number: int, rows: int | None, what: str) -> Iterator[str]:
    if rows is not None and number > rows:
        yield f"and {number - rows:,} more {what} (show them with --all)"
