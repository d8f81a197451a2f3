"""Write one HTML page about a day, a shipment or a training: what became of each row, or how the net learned.

The page needs nothing else: no script, no network; it can be mailed and kept.  Hathi makes it from the ledger and the
delivered files, or from what the training has written down, and fetches nothing again.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from pipeline.app.contexts import sighted
from pipeline.cli.output.progress import shown
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.clock import Clock
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.protocol import silent_progress
from pipeline.operations.report.scope import Scope, scope_of
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi report`."""
    what = (
        "a day (UTC) as 2026-11-20, today (the default), yesterday, a shipment's name, or a job of `hathi train list`"
    )
    parser.add_argument("what", nargs="?", default="", metavar="DAY|SHIPMENT|JOB", help=what)
    parser.add_argument(
        "--training",
        type=Path,
        metavar="WHERE",
        help="a training in a folder: its solver's .prototxt, its snapshot_prefix, or the folder of a child",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=("the file to write (default: hathi-DAY.html in this folder); - is standard output"),
    )
    parser.add_argument("--lake", action="append", default=[], help="only this lake")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0.  Raises ConfigError for what is no day and no training, PermanentError where a shipment is not known."""
    name, content = _page(args)
    if str(args.out) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return 0
    path = args.out or Path(f"hathi-{name}.html")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PermanentError(
            f"the page cannot be written: {path}", str(error), "name another file with --out"
        ) from error
    print(path)
    return 0


def _page(args: argparse.Namespace) -> tuple[str, bytes]:
    """What it is about, for a file's name, and the page."""
    if args.training is not None:
        if args.what:
            raise ConfigError("a report is about one thing", f"given: {args.what} and --training", "leave one out")
        from pipeline.app import reporting

        return reporting.of_folder(args.training, Clock().now())
    settings = load(place_of(args), os.environ)
    scope = _scope(args.what)
    if scope is None:
        from pipeline.app import reporting, trainings

        one = trainings.training(sighted(settings, "report", args.lake), args.what)
        return one.name, reporting.of_job(one)
    from pipeline.app.reporting import report

    with shown() if sys.stderr.isatty() else nullcontext(silent_progress) as show:
        content = report(
            sighted(settings, "report", args.lake, show), scope, redact_queries=settings.logs.redact_queries
        )
    return str(scope.shipment or scope.title), content


def _scope(text: str) -> Scope | None:
    """The day or the shipment; None for what may be the beginning of a job's name.  Raises ConfigError."""
    try:
        return scope_of(text, Clock().now())
    except ConfigError:
        if not text[:1].isalnum() or text.replace("-", "").isdecimal() or "/" in text:
            raise
        return None
