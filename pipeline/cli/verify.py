"""Walk from delivery back to the source, and say what is missing, damaged or does not add up, and what to do.

Exit code 0: no damage; 1: damage was found.  It only reads, and may run beside working daemons; --repair may not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline.app.contexts import sighted
from pipeline.cli.output.progress import shown
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.ledger.protocol import Context
from pipeline.operations.verify import Finding, roots, verify
from pipeline.operations.verify.repair import repair
from pipeline.process import logs
from pipeline.process.lock import locked, refuse_estop
from pipeline.process.redaction import redact_tree
from pipeline.settings import load
from pipeline.stage_names import STAGES

DAMAGE_EXIT = 1
WORDS = {"damage": "damage", "warning": "warning", "information": "note"}

Print = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi verify`."""
    parser.add_argument("lakes", nargs="*", metavar="LAKE", help="check only these lakes (default: all)")
    add_place(parser)
    parser.add_argument("--deep", action="store_true", help="read and hash every delivered file and every data object")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="first rebuild the index from the delivered manifests and restore lost hints; stop all daemons before",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line; the last has the counts")


def run(args: argparse.Namespace) -> int:
    """0 no damage, 1 damage."""
    settings = load(place_of(args), os.environ)
    state = Path(settings.state)
    stdout = sys.stdout
    with contextlib.ExitStack() as held:
        if args.repair:
            refuse_estop(state)
            for stage in STAGES:
                held.enter_context(locked(state, stage))
        show = held.enter_context(shown())

        def out(text: str) -> None:
            """Above the progress display on a terminal; past it into a file."""
            print(text, file=None if stdout.isatty() else stdout)

        where = sighted(settings, "verify", args.lakes, show)
        if args.repair:
            _repair(where, args.json, out)
        counts = _verify(where, args.deep, args.json, out)
    if args.json:
        print(json.dumps({"counts": counts}, sort_keys=True))
    else:
        print(_summary(counts))
    return DAMAGE_EXIT if counts["damage"] else 0


def _repair(where: list[Context], as_json: bool, out: Print) -> None:
    number = 0
    for context in where:
        for one in repair(context, roots(context)):
            number += 1
            text = f"repaired {one.where}: {one.what}"
            out(json.dumps({"repaired": asdict(one)}, sort_keys=True) if as_json else logs.escape(text))
    if not number and not as_json:
        out("nothing was repaired: no index, plan or hint is missing that can be made anew")


def _verify(where: list[Context], deep: bool, as_json: bool, out: Print) -> dict[str, int]:
    counts = Counter(damage=0, warning=0, information=0)
    for finding in _findings(where, deep):
        counts[finding.level] += 1
        out(_as_json(finding) if as_json else _as_text(finding))
    return dict(counts)


def _findings(where: list[Context], deep: bool) -> Iterator[Finding]:
    for context in where:
        yield from verify(context, deep=deep)


def _as_json(finding: Finding) -> str:
    return json.dumps(redact_tree({**asdict(finding), "level": finding.level, "do": finding.do}), sort_keys=True)


def _as_text(finding: Finding) -> str:
    head = f"{WORDS[finding.level]}: {finding.kind}: {finding.lake}: {finding.where}"
    head, what, do = (logs.escape(logs.redact(text)) for text in (head, finding.what, finding.do))
    return f"{head}\n    {what}\n    do: {do}"


def _summary(counts: dict[str, int]) -> str:
    if not any(counts.values()):
        return "everything that was written exists and adds up"
    return f"damage: {counts['damage']}, warnings: {counts['warning']}, notes: {counts['information']}"
