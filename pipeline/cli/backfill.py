"""Compute a feature set anew for the newest snapshot of each source, after its net has changed."""

from __future__ import annotations

import argparse

from pipeline.cli.ship import announce
from pipeline.cli.wiring.assembly import add_place, place_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi backfill`."""
    parser.add_argument("set", metavar="SET", help="the feature set")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0.  Refs are copied while the bucket has them; else the source is read again."""
    return announce(place_of(args), "", [args.set], backfill=True)
