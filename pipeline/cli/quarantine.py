"""Look at batches that were given up, and release them (try again) or drop them (never again)."""

from __future__ import annotations

import argparse
import json
import os

from pipeline.amounts import counted
from pipeline.app import quarantine
from pipeline.app.contexts import contexts
from pipeline.app.quarantine import Held
from pipeline.cli.consent import add_yes, agreed, need_terminal
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.process import logs
from pipeline.process.redaction import redact_query
from pipeline.settings import load

SHOWN = 10
"""Batches that are named before a question."""
ACTIONS = ("list", "show", "release", "drop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi quarantine`."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument(
        "batches", nargs="*", metavar="SHIPMENT.BATCH", help="batches as `list` prints them; `list` takes none"
    )
    parser.add_argument("--all", action="store_true", help="all held batches that were not released or dropped yet")
    add_yes(parser)
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace) -> int:
    """0, also where a person says no; 2 when a batch that is named is not held, or nobody can be asked.

    `drop --all` asks first; batches that are named one by one are dropped as they are named.
    """
    asks = args.action == "drop" and args.all
    if asks:
        need_terminal("hathi quarantine drop --all", args.yes, "hathi quarantine list")
    settings = load(place_of(args), os.environ)
    where = contexts(settings, ["compute"], lambda: False, "quarantine")
    found = quarantine.held(where)
    if args.action == "list":
        _list(found, args.json)
        return 0
    chosen = quarantine.choose(found, args.batches, unanswered=args.all)
    if asks and not agreed(_what_goes(chosen), args.yes):
        return 0
    for one in chosen:
        if args.action == "show":
            _show(one)
            continue
        child = quarantine.answer(one, args.action)
        print(f"{one.name}: {args.action} is requested as {child}; the next compute run performs it")
        logs.log("quarantine").info("%s of %s is requested as %s", args.action, one.name, child)
    return 0


def _what_goes(chosen: list[Held]) -> str:
    lines = [logs.escape(f"{one.name}  {counted(one.batch.refs, 'ref')}  {one.batch.reason}") for one in chosen[:SHOWN]]
    if len(chosen) > SHOWN:
        lines.append(f"and {len(chosen) - SHOWN:,} more (`hathi quarantine list` names them all)")
    refs, number = sum(one.batch.refs for one in chosen), len(chosen)
    batches = counted(number, "batch", "batches")
    return "\n".join(
        [*lines, f"Hathi gives up {batches} with {counted(refs, 'ref')} for good; no run tries them again"]
    )


def _list(found: list[Held], as_json: bool) -> None:
    if not as_json and not found:
        print("no batch is held")
    for one in found:
        batch = one.batch
        if as_json:
            body = {"lake": one.context.lake_name, "batch": one.name, "refs": batch.refs, "reason": batch.reason}
            print(json.dumps({**body, "answered": batch.answered}, sort_keys=True))
        else:
            answered = f" ({batch.answered} is requested)" if batch.answered else ""
            print(logs.escape(f"{one.name}  {counted(batch.refs, 'ref')}  {batch.reason}{answered}"))


def _show(one: Held) -> None:
    """The attempts and the first refs of a held batch."""
    print(logs.escape(f"{one.name}: {counted(one.batch.refs, 'ref')} held: {one.batch.reason}"))
    found = quarantine.detail(one)
    for made in found.tries:
        ended = f"{made.end.kind}: {made.end.cause}" if made.end else "ended without a result (killed or crashed)"
        alone = " alone" if made.alone else ""
        print(logs.escape(logs.redact(f"  attempt {made.number} by {made.process}{alone}: {ended}")))
    for ref in found.refs:
        url, known_as = ref.url, ref.external_id
        if one.context.settings.logs.redact_queries:
            url, known_as = redact_query(url), redact_query(url) if known_as == url else logs.redact(known_as)
        print(f"  partner {ref.partner_id} item {ref.item_id} {logs.escape(known_as)} {logs.escape(url)}")
    if found.number > len(found.refs):
        print(f"  and {found.number - len(found.refs)} more")
