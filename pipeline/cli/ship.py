"""Ship a snapshot once more, in a new round: its items are computed and delivered again."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.cli.wiring.assembly import add_place, contexts, place_of
from pipeline.errors import ConfigError
from pipeline.process import logs
from pipeline.settings import load
from pipeline.stages import operator_requests
from pipeline.stages.snapshots import takes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi ship`."""
    parser.add_argument("--again", required=True, metavar="PARTNER|SNAPSHOT", help="a partner, a source, or a shipment")
    parser.add_argument("--set", action="append", dest="sets", metavar="SET", help="for this feature set only")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0; 2 when nothing is known by that name."""
    return announce(place_of(args), args.again, args.sets, backfill=False)


def announce(config: Path, wanted: str, chosen: list[str] | None, *, backfill: bool) -> int:
    """Announce new rounds for what is wanted ("" for all), and say which."""
    settings = load(config, os.environ)
    for one in chosen or ():
        if one not in settings.sets:
            raise ConfigError(f"no set {one}", "", f"sets are: {', '.join(sorted(settings.sets))}")
    number = 0
    for context in contexts(settings, ["compute"], lambda: False, "ship"):
        mine = [one for one in settings.sets if takes(settings.sets[one], context.lake_name)]
        sets = [one for one in mine if one in (chosen or settings.sets)]
        for name, plan in operator_requests.newest(context, wanted, sets):
            child = operator_requests.again(context, name, plan, backfill=backfill)
            print(logs.escape(f"{plan.snapshot.source} for {plan.set}: announced as {child}"))
            number += 1
    if not number:
        hint = "name a partner, a source or a shipment"
        raise ConfigError(f"nothing was shipped yet by the name {wanted!r}", "", hint)
    print(f"the next run, or a daemon, ships {'it' if number == 1 else 'them'}")
    return 0
