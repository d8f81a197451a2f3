"""Say whether all is well: OK, Warning or Alert, what is wrong, since when, and what to do.

Exit codes: 0 OK, 1 Warning, 2 Alert.  It only reads.  The thresholds stand under [health] in the configuration; daemons
and runs from cron look by themselves and tell the addresses under [notify] of every change.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.amounts import counted, length_of_time
from pipeline.app.contexts import opened
from pipeline.cli.output.columns import columns
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.cli.wiring.service_health import service_troubles
from pipeline.clock import Clock
from pipeline.operations.health.facts import Facts, LakeFacts
from pipeline.operations.health.judge import PROGRAM, Finding, Level, judge, level_of
from pipeline.operations.health.look import Look
from pipeline.operations.health.memory import read_memory
from pipeline.operations.health.notify import as_json
from pipeline.operations.health.this_host import disks_in_time, has_seen_lakes
from pipeline.process.installed import located
from pipeline.process.logs import escape, redact
from pipeline.process.redaction import redact_tree
from pipeline.settings import load
from pipeline.times import readable_time

PARTNERS = 10
"""The most lagging ones are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi health`."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run(args: argparse.Namespace) -> int:
    """0 OK, 1 Warning, 2 Alert."""
    settings = load(place_of(args), os.environ)
    state = Path(settings.state)
    where, unopened = opened(settings, "health")
    memory = read_memory(state)
    look = Look(
        settings,
        where,
        Clock(),
        expects_lakes=has_seen_lakes(state),
        unopened=unopened,
        folders=None,
        disks=disks_in_time,
        service=service_troubles(settings),
    )
    seen = look(lambda key: memory.unplanned.get(key, 0.0))
    facts = memory.joined(seen, settings.daemon.alive_seconds, notes=False)
    findings = memory.dated(judge(facts, settings.health))
    if args.features:  # no daemon: the person starts it
        findings = tuple(
            replace(one, hint="run the same command again: it continues where it ended")
            if one.key.startswith(PROGRAM)
            else one
            for one in findings
        )
    level = level_of(findings)
    if args.json:
        body = {"level": level.word, "findings": [as_json(one) for one in findings], "facts": asdict(facts)}
        print(json.dumps(redact_tree(body), sort_keys=True))
    else:
        print("\n".join([f"of {place_of(args)}", *_lines(level, findings, facts)]))
    return int(level)


def _lines(level: Level, findings: Sequence[Finding], facts: Facts) -> Iterator[str]:
    """For people, at 80 columns where names are short."""
    yield level.word
    for one in findings:
        since = f" (since {readable_time(one.since)})" if one.since is not None else ""
        yield escape(redact(located(f"{one.level.word}: {one.text}{since}")))
        if one.hint:
            yield escape(redact(located(f"  to do: {one.hint}")))
    for what, why in facts.unseen.items():
        yield escape(redact(f"not seen from here: {what}: {why}"))
    for stage, who in facts.programs.items():
        yield escape(f"{stage:<10} {who}")
    for lake in facts.lakes:
        yield from _lake_lines(lake)


def _lake_lines(lake: LakeFacts) -> Iterator[str]:
    waiting = [one for one in lake.backlog if one.shipments or one.batches]
    if waiting:
        table = [("lake", "waits for", "shipments", "batches", "refs, about", "since")]
        for one in waiting:
            since = readable_time(one.oldest) if one.oldest is not None else ""
            table.append((lake.lake, one.stage, str(one.shipments), str(one.batches), str(one.refs), since))
        yield from columns(table, right={2, 3, 4})
    else:
        yield f"lake {lake.lake}: nothing is open"
    if lake.not_looked_at:
        yield f"and {lake.not_looked_at:,} more open shipments"
    if lake.next_due is not None:
        yield f"{counted(lake.retries, 'retry shipment')} waiting, the first due {readable_time(lake.next_due)}"
    if lake.sent is not None:
        yield f"last delivery: {readable_time(lake.sent)}"
    lagging = [one for one in lake.freshness if one.lag > 0][:PARTNERS]
    if lagging:
        late = [("partner", "set", "at the source", "delivered", "behind")]
        for fresh in lagging:
            behind = length_of_time(fresh.lag)
            late.append((fresh.partner, fresh.set, fresh.source, fresh.delivered or "never", behind))
        yield from columns(late)
