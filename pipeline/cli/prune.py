"""Delete what is no longer needed: data of shipments closed long ago, leftovers; put back lost hints.

Daemons do it daily, without asking.  By hand it says what will go and asks first, unless --yes is given.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict

from pipeline.amounts import counted
from pipeline.app.contexts import contexts
from pipeline.cli.consent import add_yes, agreed, need_terminal
from pipeline.cli.wiring.assembly import add_place, place_of, serving, turns
from pipeline.ledger.protocol import Context
from pipeline.operations.prune import Deletion, Pruner, perform
from pipeline.process import logs
from pipeline.settings import load
from pipeline.stage_names import STAGES

SHOWN = 10
"""Things that are named before a question; of more, the number is said."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi prune`."""
    add_place(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be deleted; delete nothing")
    add_yes(parser)
    parser.add_argument(
        "--on-box",
        action="store_true",
        help=("look only at the bucket: for a compute box, which does not see the lakes"),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """0, also where a person says no; 2 where nobody can be asked."""
    if not args.dry_run:
        need_terminal("hathi prune", args.yes, "hathi prune --dry-run")
    settings = load(place_of(args), os.environ)
    logs.open_log("prune", settings.logs, echo=False)
    stages = ["compute"] if args.on_box else list(STAGES)

    def planned() -> Iterator[tuple[Context, Deletion]]:
        for context in contexts(settings, stages, lambda: False, "prune"):
            for one in Pruner(context, turns(context, serving(settings), strict=False).look).deletions():
                yield context, one

    try:
        if not args.dry_run and not args.yes and not _agreed(planned):
            return 0
        counts = Counter[str]()
        for context, one in planned():
            counts["hints" if one.verb == "put_hint" else "deleted"] += 1
            if args.json:
                print(json.dumps({"lake": context.lake_name, **asdict(one)}, sort_keys=True))
            elif args.dry_run:
                print(_line(one))
            if not args.dry_run:
                perform(context, one)
        if not args.json:
            print(_summary(counts, would=args.dry_run))
        if counts and not args.dry_run:
            logs.log("prune").info("Summary: %s", _summary(counts))
    finally:
        logs.close_log()
    return 0


def _agreed(planned: Callable[[], Iterator[tuple[Context, Deletion]]]) -> bool:
    """Look first, then ask; where there is nothing to delete there is nothing to ask."""
    counts = Counter[str]()
    named: list[str] = []
    for _, one in planned():
        counts["hints" if one.verb == "put_hint" else "deleted"] += 1
        if one.verb != "put_hint" and len(named) < SHOWN:
            named.append(_line(one))
    if not counts["deleted"]:
        return True
    if counts["deleted"] > len(named):
        named.append(f"and {counts['deleted'] - len(named):,} more (--dry-run names them all)")
    return agreed("\n".join([*named, _summary(counts, would=True)]), yes=False)


def _line(one: Deletion) -> str:
    return logs.escape(f"{one.verb:<14}{one.key}  ({one.why})")


def _summary(counts: Counter[str], would: bool = False) -> str:
    deleted, hints = counts["deleted"], counts["hints"]
    would_be = " would be" if would else ""
    said = [f"{counted(deleted, 'object')}{would_be} deleted"] if deleted else []
    said += [f"{counted(hints, 'lost hint')}{would_be} restored"] if hints else []
    return ", ".join(said) or f"nothing {'would be' if would else 'was'} deleted"
