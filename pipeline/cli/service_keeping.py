"""`hathi service check|backup|restore|prune`: what an operator does so that nothing is lost, and nothing piles up."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.cli.consent import add_yes, agreed, need_terminal
from pipeline.cli.output.progress import shown
from pipeline.cli.wiring.service_stop import refuse
from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.operations.health.facts import Facts
from pipeline.operations.health.judge import judge
from pipeline.operations.health.this_host import disks
from pipeline.process import logs
from pipeline.process.host import host_name
from pipeline.settings import Settings
from pipeline.stores.local import LocalStore
from pipeline.stores.opening import open_bucket

if TYPE_CHECKING:
    from pipeline.service.troubles import Trouble


class Found(Protocol):
    """What a command has to tell."""

    def as_json(self) -> dict[str, object]: ...

    def lines(self) -> list[str]: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of these commands alone."""
    option = parser.add_argument
    option("--hashes", action="store_true", help="check: also read each object, and compare its SHA-256")
    option(
        "--without-objects", action="store_true",
        help="backup: list the bucket's objects with their SHA-256, copy none; restore: leave the bucket as it is",
    )  # fmt: skip
    option("--dry-run", action="store_true", help="prune: say what would be deleted; delete nothing")
    option("--days", type=float, default=7.0, help="prune: so long no row names what is deleted (default: 7)")
    add_yes(parser)
    option("--version", default="", metavar="VERSION", help="restore: which backup (default: the newest)")


def tell(found: Found, as_json: bool) -> None:
    """Prints it for a program or for a person."""
    if as_json:
        print(json.dumps(found.as_json(), sort_keys=True))
    else:
        for line in found.lines():
            print(logs.escape(logs.redact(line)))


def _warn(text: str) -> None:
    print(logs.escape(logs.redact(text)), file=sys.stderr)


def check(args: argparse.Namespace, settings: Settings) -> int:
    """Whether what rows name is there, how much is in which state, and what is wrong; 1 where an object is missing."""
    from pipeline.service.checking import check as checked

    full = full_disks(settings)
    wait = settings.service.scaling.target_wait_seconds
    try:
        found = asyncio.run(
            checked(settings.service.database, open_bucket(settings), hashes=args.hashes, wait_seconds=wait)
        )
    except PipelineError:  # a full disk may be the reason
        for line in (line for one in full for line in one.lines()):
            _warn(line)
        raise
    found = replace(found, troubles=(*full, *found.troubles))
    tell(found, args.json)
    return 1 if found.missing else 0


def full_disks(settings: Settings) -> list[Trouble]:
    """The local disks that are fuller than `[health]` allows, as `hathi health` says it."""
    from pipeline.service.troubles import Trouble

    facts = Facts(Clock().now(), host_name(), disks=disks(settings)[0])
    return [Trouble(one.key, one.text, one.hint) for one in judge(facts, settings.health)]


def backup(args: argparse.Namespace, settings: Settings) -> int:
    """1 where an object that a row names is missing or torn; the backup has all others."""
    from pipeline.service.backup import back_up

    into, bucket = LocalStore(Path(args.names[0])), open_bucket(settings)
    with shown() as show:
        made = asyncio.run(
            back_up(settings.service.database, bucket, into, Clock(), copy=not args.without_objects,
                    told=lambda done, to_do: show("backup", done, to_do))
        )  # fmt: skip
    tell(made, args.json)
    return 1 if made.absent else 0


def restore(args: argparse.Namespace, settings: Settings) -> int:
    """1 where the backup itself lacked an object."""
    from pipeline.service.restoring import restore as restored

    refuse(settings, _warn)
    source, bucket = LocalStore(Path(args.names[0])), open_bucket(settings)
    with shown() as show:
        found = asyncio.run(
            restored(settings.service.database, bucket, source, args.version, copy=not args.without_objects,
                     told=lambda done, to_do: show("restore", done, to_do))
        )  # fmt: skip
    tell(found, args.json)
    return 1 if found.missing else 0


def prune(args: argparse.Namespace, settings: Settings) -> int:
    """0, also where a person says no; 2 where nobody can be asked."""
    from pipeline.service.pruning import prune as pruned

    if not args.dry_run:
        refuse(settings, _warn)
        need_terminal("hathi service prune", args.yes, "hathi service prune --dry-run")
    setting, bucket = settings.service.database, open_bucket(settings)
    if args.dry_run or not args.yes:
        would = asyncio.run(pruned(setting, bucket, days=args.days, dry=True))
        if args.dry_run:
            tell(would, args.json)
            return 0
        if (would.objects or would.rows) and not agreed(logs.escape("\n".join(would.lines())), yes=False):
            return 0
    tell(asyncio.run(pruned(setting, bucket, days=args.days, dry=False)), args.json)
    return 0
