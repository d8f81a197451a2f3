"""Ship a snapshot once more, in a new round: its items are computed and delivered again."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.app import ship_again
from pipeline.app.contexts import contexts
from pipeline.app.ship_again import check_sets
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.process import logs
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi ship`."""
    parser.add_argument(
        "--again",
        required=True,
        metavar="PARTNER|SNAPSHOT",
        help="what to ship again: a partner, a source, or a shipment",
    )
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="SET", help="only for this feature set (default: all)"
    )
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0; 2 when nothing is known by that name."""
    return announce(place_of(args), args.again, args.sets, backfill=False)


def announce(config: Path, wanted: str, chosen: list[str] | None, *, backfill: bool) -> int:
    """Announce new rounds for what is wanted ("" for all), and say which."""
    settings = load(config, os.environ)
    check_sets(settings, chosen or ())
    number = 0
    where = contexts(settings, ["compute"], lambda: False, "ship")
    for one in ship_again.announce(where, wanted, chosen or (), backfill=backfill):
        print(logs.escape(f"{one.source} for {one.set}: requested as {one.shipment}"))
        number += 1
    print(f"the next run, or a daemon, ships {'it' if number == 1 else 'them'}")
    return 0
