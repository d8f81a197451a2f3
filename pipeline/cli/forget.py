"""Forget an item, or all of a partner: its images, its refs, and what follows from them: delivered rows, examples of
data sets, rows of files of `--out`.

It asks first, unless --yes is given.  Then it deletes what can go now, and says what waits: the daily prune of a
gateway goes on with it, and so does `hathi forget` without a partner.  What is still open is delivered before it goes.
Refs of the item that a source brings later are new, and are accepted: remove the item from the source first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext

from pipeline.app.contexts import sighted
from pipeline.app.forgetting import Told, any_open, go_on, request
from pipeline.cli.consent import add_yes, agreed, need_terminal
from pipeline.cli.output.progress import shown
from pipeline.cli.wiring.assembly import add_place, place_of, spilling
from pipeline.errors import ConfigError
from pipeline.ledger.protocol import silent_progress
from pipeline.process import logs
from pipeline.process.host import this_process
from pipeline.settings import load

_DONE = "bucket and lake, and the data sets, databases and files that Hathi made of them, hold nothing of it"
_NEXT = (
    "what Hathi does not know of (copies, backups, trainings: docs/archive.md) is yours to look after",
    "a source that still names it brings it back with its next snapshot: remove it there",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi forget`."""
    parser.add_argument(
        "partner", nargs="?", metavar="PARTNER", help="the number of the partner; none: go on with what was asked"
    )
    parser.add_argument(
        "item", nargs="?", default="", metavar="ITEM", help="an item id or an external id; none: all of the partner"
    )
    parser.add_argument("--why", default="", help="the reason, for the record; it must not name the person")
    parser.add_argument("--lake", action="append", default=[], help="only this lake")
    add_yes(parser)
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0, also where something waits, and where a person says no; 2 where nobody can be asked."""
    partner = None if args.partner is None else _partner(args.partner)
    settings = load(place_of(args), os.environ)
    if partner is not None:
        need_terminal("hathi forget", args.yes, "hathi why PARTNER ITEM")
    logs.open_log("forget", settings.logs, echo=False)
    new: frozenset[tuple[str, int]] = frozenset()
    own = spilling(settings, this_process())  # what dead processes left here goes
    try:
        with own, shown() if sys.stderr.isatty() else nullcontext(silent_progress) as show:
            lakes = sighted(settings, "forget", args.lake, show)
            if partner is None:
                if not any_open(lakes):
                    print("no request to forget is open")
            elif agreed(_question(partner, args.item), args.yes):
                new = request(lakes, partner, args.item, args.why)
            else:
                return 0
            for told in go_on(lakes):
                print(
                    "\n".join(logs.escape(line) for line in _lines(told, new=(told.lake, told.outcome.number) in new))
                )
    finally:
        logs.close_log()
    return 0


def _partner(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise ConfigError(
            f"{text!r} is no partner", "", "hathi forget PARTNER [ITEM]: the number of the partner comes first"
        )
    return int(text)


def _question(partner: int, item: str) -> str:
    what = f"Item {item!r} of partner {partner}" if item else f"Every item of partner {partner}"
    return (
        f"{what} goes for good: images of the archive, refs and shards in the bucket (with those of all other items of "
        "the same closed shipments), delivered rows, examples of data sets, rows of files of --out. Nothing "
        "brings them back."
    )


def _lines(told: Told, *, new: bool) -> Iterator[str]:
    """new: nobody has looked for it before."""
    one = told.outcome
    said = f"lake {told.lake}, request {one.number}: deleted {one.gone}"
    if one.waiting:
        yield f"{said}; it stays open, and the daily prune of a gateway goes on with it:"
        yield from (f"  {what}" for what in one.waiting)
    elif new and not one.met:
        what = "partner" if not one.request.items else "item"
        yield f"lake {told.lake}, request {one.number}: no such {what} was known: nothing of it was there"
        if one.removed:
            yield f"  {one.gone} went all the same: they are made anew, and say too little of what is in them"
    else:
        yield f"{said}; it is done: {_DONE}"
    yield from (f"  {what}" for what in (*one.notes, *(() if one.waiting else _NEXT)))
