"""Write one HTML page about a day or a shipment: what became of each row, why and where images failed, how fast.

The page needs nothing else: no script, no network; it can be mailed and kept.  Hathi makes it from the ledger and the
delivered files, and fetches nothing again.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from pipeline.app.contexts import sighted
from pipeline.app.reporting import report
from pipeline.cli.output.progress import shown
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.clock import Clock
from pipeline.errors import PermanentError
from pipeline.ledger.protocol import silent_progress
from pipeline.operations.report.scope import scope_of
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi report`."""
    what = "a day (UTC) as 2026-11-20, today (the default), yesterday, or a shipment's name"
    parser.add_argument("what", nargs="?", default="", metavar="DAY|SHIPMENT", help=what)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=("the file to write (default: hathi-DAY.html in this folder); - is standard output"),
    )
    parser.add_argument("--lake", action="append", default=[], help="only this lake")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0.  Raises ConfigError for what is no day, PermanentError where a shipment is not known."""
    scope = scope_of(args.what, Clock().now())
    settings = load(place_of(args), os.environ)
    with shown() if sys.stderr.isatty() else nullcontext(silent_progress) as show:
        content = report(
            sighted(settings, "report", args.lake, show), scope, redact_queries=settings.logs.redact_queries
        )
    if str(args.out) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return 0
    path = args.out or Path(f"hathi-{scope.shipment or scope.title}.html")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PermanentError(
            f"the page cannot be written: {path}", str(error), "name another file with --out"
        ) from error
    print(path)
    return 0
