"""Say what is open, waiting, held and running."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.cli.assembly import STAGES, add_place, contexts, place_of
from pipeline.cli.table import readable_due
from pipeline.layout import version_of
from pipeline.lock import ESTOP, holder
from pipeline.runner import Context, poll, waiting
from pipeline.settings import load
from pipeline.state import ShipmentState, waits_for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi status`."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


@dataclass(frozen=True)
class Open:
    """One open shipment that is due."""

    lake: str
    shipment: str
    set: str
    stage: str
    """What it waits for."""
    batches: int
    results: int


def run(args: argparse.Namespace) -> int:
    """0."""
    settings = load(place_of(args), os.environ)
    state = Path(settings.state)
    where = contexts(settings, ["compute"], lambda: False, "status")
    rows = [row for context in where for row in _open(context)]
    later = [due for context in where for due, _ in waiting(context) if due > version_of(context.process.clock.now())]
    held = [entry.key for context in where for entry in context.bucket.list(context.keys.held_hints)]
    programs = {stage: holder(state, stage) for stage in STAGES}
    facts = {
        "estop": (state / ESTOP).exists(),
        "programs": programs,
        "open": [asdict(row) for row in rows],
        "waiting": len(later),
        "next_due": min(later, default=""),
        "held": held,
    }
    if args.json:
        print(json.dumps(facts, sort_keys=True))
        return 0
    print(f"of {place_of(args)}")
    _print(facts, rows)
    return 0


def _open(context: Context) -> list[Open]:
    found: list[Open] = []
    after = ""
    names: set[str] = set()
    while True:
        seen = poll(context, after=after)
        fresh = [state for state in seen.states if str(state.name) not in names]
        if not fresh:
            return found
        for state in fresh:
            names.add(str(state.name))
            found.append(_row(context.lake_name, state))
        after = str(seen.states[-1].name)


def _row(lake: str, state: ShipmentState) -> Open:
    results = max((len(have) for have in state.results.values()), default=0)
    set_name = state.plan.set if state.plan else ""
    return Open(lake, str(state.name), set_name, waits_for(state), len(state.batches), results)


def _print(facts: dict[str, object], rows: list[Open]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if facts["estop"]:
        console.print("ESTOP is engaged")
    programs = facts["programs"]
    assert isinstance(programs, dict)
    for stage, who in programs.items():
        console.print(f"{stage:<10} {who or 'does not run'}")
    if rows:
        table = Table(box=None, title_justify="left", padding=(0, 2, 0, 0))
        for heading in ("lake", "open shipment", "set", "waits for", "batches", "computed"):
            table.add_column(heading)
        for row in rows:
            table.add_row(row.lake, row.shipment, row.set, row.stage, str(row.batches), str(row.results))
        console.print(table)
    else:
        console.print("nothing is open")
    if facts["waiting"]:
        first = readable_due(str(facts["next_due"]))
        console.print(f"{facts['waiting']} shipments of retries wait, the first due {first}")
    held = facts["held"]
    assert isinstance(held, list)
    for key in held:
        console.print(f"held: {key.rpartition('/')[2]}")
