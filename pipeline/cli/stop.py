"""Engage ESTOP: what runs ends in good order, and nothing starts until `hathi start` takes it back.

Without --remote it is a file in the state folder: all that uses this folder ends within ten seconds.  With --remote it
is an object in the bucket, for each lake of the configuration and for its service: every host ends at its next poll,
or at its next beat (two minutes; the service's programs look each 5 s).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.app import estop
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError, PipelineError, Stopped
from pipeline.process.logs import escape, redact
from pipeline.settings import Settings, load
from pipeline.times import readable_time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi stop`."""
    add_place(parser)
    parser.add_argument(
        "--remote", action="store_true", help="in the bucket: stop every host of its lakes and its service"
    )
    parser.add_argument("--show", action="store_true", help="only say what stands, on this host and in the bucket")


def run(args: argparse.Namespace) -> int:
    """0; with --show 4 where ESTOP stands."""
    settings = load(place_of(args), os.environ)
    state = Path(settings.state)
    if args.show:
        return told(settings, "No ESTOP stands")
    places = estop.engage_remote(places_of(settings, "stop")) if args.remote else [estop.engage_here(state)]
    for place in places:
        print(escape(redact(f"ESTOP engaged: {place}")))
    who = "every host ends at its next poll or beat" if args.remote else "what runs here ends within ten seconds"
    print(f"{who}; nothing starts until `hathi start{' --remote' if args.remote else ''}` takes it back")
    return 0


def told(settings: Settings, none: str) -> int:
    """Print what stands here and in the bucket: 4 where something does, else 0.

    none: what is said where nothing does.  A bucket that does not answer holds none, and is named.
    """
    found, where = estop.standing_here(Path(settings.state)), ""
    try:
        found += estop.standing_remote(estop.places_asked_once(settings, "stop"))
    except PipelineError as error:
        print(escape(redact(f"not seen: whether ESTOP stands in the bucket: {error}")))
        where = " on this host"
    for one in found:
        if one.remote:
            since = readable_time(one.since)
            text = f"nothing starts on any host until you delete {one.place} (since {since}): hathi start --remote"
        else:
            text = f"nothing starts on this host until you remove {one.place}"
        print(escape(redact(f"ESTOP engaged: {text}")))
    if not found:
        print(f"{none}{where}.")
    return Stopped.exit_code if found else 0


def places_of(settings: Settings, program: str) -> list[estop.Place]:
    """Where it stands in the bucket, which is asked once, and not waited for.  Raises ConfigError for no place."""
    found = estop.places_asked_once(settings, program)
    if not found:
        text = "no lake is configured, and no service: ESTOP has no place in the bucket"
        raise ConfigError(text, "", "add a [lakes.NAME] table, or make the service's database: hathi service migrate")
    return found
