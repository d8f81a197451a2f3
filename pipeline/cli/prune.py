"""Forget what may be forgotten: data of shipments closed long ago, leftovers, lost hints (daemons do it daily)."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

from pipeline import logs
from pipeline.cli.assembly import STAGES, add_place, contexts, place_of, serving, turns
from pipeline.prune import perform
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi prune`."""
    add_place(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be forgotten, and forget nothing")
    parser.add_argument("--on-box", action="store_true", help="this host does not see the lakes")
    parser.add_argument("--json", action="store_true", help="one object a line")


def run(args: argparse.Namespace) -> int:
    """0."""
    settings = load(place_of(args), os.environ)
    logs.open_log("prune", settings.logs, echo=False)
    stages = ["compute"] if args.on_box else list(STAGES)
    number = 0
    for context in contexts(settings, stages, lambda: False, "prune"):
        for one in turns(context, serving(settings), strict=False).deletions():
            number += 1
            if args.json:
                print(json.dumps({"lake": context.lake_name, **asdict(one)}, sort_keys=True))
            elif args.dry_run:
                print(logs.escape(f"{one.verb:<14}{one.key}  ({one.why})"))
            if not args.dry_run:
                perform(context, one)
    if not args.json:
        would = "would be" if args.dry_run else "was" if number < 2 else "were"
        print(f"{_count(number)} {would} forgotten{' or put back' if number else ''}")
    if number and not args.dry_run:
        logs.log("prune").info("Summary: forgot or put back %d things", number)
    logs.close_log()
    return 0


def _count(number: int) -> str:
    return "nothing" if not number else "1 thing" if number == 1 else f"{number} things"
