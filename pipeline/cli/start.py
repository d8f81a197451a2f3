"""Take ESTOP back, and say what still stands: the file of this host, with --remote the objects in the bucket.

It starts nothing by itself: cron, systemd or a person does, as soon as no ESTOP stands in their way.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.app import estop
from pipeline.cli.stop import places_of, told
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi start`."""
    add_place(parser)
    parser.add_argument("--remote", action="store_true", help="in the bucket, for every host; this host's file stays")


def run(args: argparse.Namespace) -> int:
    """0; 4 where ESTOP still stands, here or in the bucket."""
    settings = load(place_of(args), os.environ)
    state = Path(settings.state)
    places = places_of(settings, "start") if args.remote else []
    stood = estop.standing_remote(places) if args.remote else estop.standing_here(state)
    if args.remote:
        estop.lift_remote(places)
    else:
        estop.lift_here(state)
    where = "in the bucket" if args.remote else "on this host"
    back = "ESTOP is taken back; cron, systemd or a person starts what is to run"
    return told(settings, back if stood else f"No ESTOP stood {where}; nothing was taken back")
