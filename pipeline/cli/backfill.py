"""Compute a feature set anew for the newest snapshot of each source, after its net has changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.cli.ship import announce


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi backfill`."""
    parser.add_argument("set", metavar="SET", help="the feature set")
    parser.add_argument("--config", type=Path, help="a configuration file; config/local.toml by default")


def run(args: argparse.Namespace) -> int:
    """0.  Refs are copied while the bucket has them; else the source is read again."""
    return announce(args.config, "", [args.set], backfill=True)
