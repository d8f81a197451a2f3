"""Ship a snapshot once more, in a new round: its items are computed and delivered again.

--close ends a shipment that cannot go on, as something of it is gone: without features, and its snapshot is shipped
again.  What was delivered before stays.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.amounts import counted
from pipeline.app import ship_again
from pipeline.app.contexts import contexts
from pipeline.app.ship_again import check_sets
from pipeline.cli.consent import add_yes, agreed, need_terminal
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError
from pipeline.process import logs
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi ship`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--again",
        nargs="?",
        const="",
        metavar="PARTNER|SNAPSHOT",
        help="what to ship again: a partner, a source, or a shipment; with --failed none is named",
    )
    parser.add_argument(
        "--set", action="append", dest="sets", metavar="SET", help="only for this feature set (default: all)"
    )
    what.add_argument(
        "--close", metavar="SHIPMENT", help="end a shipment that cannot go on, and ship its snapshot again"
    )
    parser.add_argument(
        "--failed", metavar="REASON", help="with --again: the snapshots of which images failed finally for this reason"
    )
    parser.add_argument("--partner", metavar="PARTNER", help="with --failed: of this partner only")
    add_yes(parser)
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0; 1 where a shipment is not to be closed, or nobody agreed; 2 when nothing is known by that name."""
    if args.close and (args.failed or args.partner):
        raise ConfigError("--close ends one shipment", "--failed and --partner choose among many", "leave them out")
    if args.failed:
        return _announce_failed(place_of(args), args.failed, args.again or args.partner or "", args.sets)
    if args.partner:
        raise ConfigError("--partner goes with --failed", "", f"to ship all of it again: --again {args.partner}")
    if args.again == "":
        hint = "name a partner, a source or a shipment, or add --failed REASON"
        raise ConfigError("--again does not say what", "", hint)
    if args.close:
        return _close(place_of(args), args.close, args.yes)
    return announce(place_of(args), args.again, args.sets, backfill=False)


def _close(config: Path, shipment: str, yes: bool) -> int:
    """Ask, close, and tell what becomes of the rows."""
    settings = load(config, os.environ)
    ship_again.found(contexts(settings, ["compute"], lambda: False, "ship"), shipment)
    need_terminal("hathi ship --close", yes, "hathi status")
    if not agreed(f"{shipment} ends without features; its snapshot is shipped again.", yes):
        return 1
    done = ship_again.close(contexts(settings, ["compute"], lambda: False, "ship"), shipment)
    print(f"{done.name} is closed: without features: {counted(done.refs, 'ref')}")
    if done.again is not None:
        print(f"its snapshot is shipped again as {done.again}: the next run, or a daemon, ships it")
    else:
        print("its plan is gone, so its snapshot is not known: `hathi ship --again SOURCE` ships a source again")
    return 0


def _announce_failed(config: Path, reason: str, partner: str, chosen: list[str] | None) -> int:
    """Announce new rounds for what failed finally, and say which."""
    settings = load(config, os.environ)
    check_sets(settings, chosen or ())
    number = 0
    for one in ship_again.announce_failed(
        contexts(settings, ["compute"], lambda: False, "ship"), reason, partner, chosen or ()
    ):
        if isinstance(one, ship_again.Underway):
            print(logs.escape(f"{one.source} for {one.set}: not again, as {one.shipment} is not over yet"))
        else:
            print(logs.escape(f"{one.source} for {one.set}: announced as {one.shipment}"))
            number += 1
    if number:
        print(f"the next run, or a daemon, ships {'it' if number == 1 else 'them'}")
    return 0


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
