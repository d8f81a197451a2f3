"""Look at batches that were given up, and release them (try again) or drop them (never again)."""

from __future__ import annotations

import argparse
import json
import os

from pipeline.cli.consent import add_yes, agreed, need_terminal
from pipeline.cli.wiring.assembly import add_place, contexts, place_of
from pipeline.errors import ConfigError
from pipeline.ledger.manifest import Batch
from pipeline.ledger.protocol import Context, body_at, load_data, state_of
from pipeline.process import logs
from pipeline.process.redaction import redact_query
from pipeline.settings import load
from pipeline.stages import operator_requests
from pipeline.stages.operator_requests import HeldBatch

SHOWN = 10
"""Batches that are named before a question."""
ACTIONS = ("list", "show", "release", "drop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi quarantine`."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("batches", nargs="*", metavar="SHIPMENT.BATCH", help="as `list` prints them; for list: none")
    parser.add_argument("--all", action="store_true", help="every batch that nobody has answered yet")
    add_yes(parser)
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="one object a line")


def run(args: argparse.Namespace) -> int:
    """0, also where a person says no; 2 when a batch that is named is not held, or nobody can be asked.

    `drop --all` asks first; batches that are named one by one are dropped as they are named.
    """
    asks = args.action == "drop" and args.all
    if asks:
        need_terminal("hathi quarantine drop --all", args.yes, "hathi quarantine list")
    settings = load(place_of(args), os.environ)
    where = contexts(settings, ["compute"], lambda: False, "quarantine")
    found = [(context, one) for context in where for one in operator_requests.held(context)]
    if args.action == "list":
        _list(found, args.json)
        return 0
    chosen = [(c, one) for c, one in found if _name(one) in args.batches or (args.all and not one.answered)]
    missing = set(args.batches) - {_name(one) for _, one in chosen}
    if missing or not chosen:
        what = ", ".join(sorted(missing)) or "no batch was named"
        raise ConfigError(f"not held: {what}", "", "`hathi quarantine list` names those that are")
    if asks and not agreed(_what_goes([one for _, one in chosen]), args.yes):
        return 0
    for context, one in chosen:
        if args.action == "show":
            _show(context, one)
            continue
        child = operator_requests.answer(context, one.name, one.batch, args.action)
        print(f"{_name(one)}: {args.action} announced as {child}; the next compute run takes it up")
        logs.log("quarantine").info("%s of %s announced as %s", args.action, _name(one), child)
    return 0


def _what_goes(chosen: list[HeldBatch]) -> str:
    lines = [logs.escape(f"{_name(one)}  {one.refs} refs  {one.reason}") for one in chosen[:SHOWN]]
    if len(chosen) > SHOWN:
        lines.append(f"and {len(chosen) - SHOWN:,} more (`hathi quarantine list` names them all)")
    refs, number = sum(one.refs for one in chosen), len(chosen)
    batches = "1 batch" if number == 1 else f"{number:,} batches"
    return "\n".join([*lines, f"{batches} with {refs:,} refs would be given up for good; no run tries them again"])


def _name(one: HeldBatch) -> str:
    return f"{one.name}.{one.batch}"


def _list(found: list[tuple[Context, HeldBatch]], as_json: bool) -> None:
    if not as_json and not found:
        print("nothing is held")
    for context, one in found:
        if as_json:
            body = {"lake": context.lake_name, "batch": _name(one), "refs": one.refs, "reason": one.reason}
            print(json.dumps({**body, "answered": one.answered}, sort_keys=True))
        else:
            answered = f" ({one.answered} is announced)" if one.answered else ""
            print(logs.escape(f"{_name(one)}  {one.refs} refs  {one.reason}{answered}"))


def _show(context: Context, one: HeldBatch) -> None:
    """The attempts and the first refs of a held batch."""
    print(logs.escape(f"{_name(one)}: {one.refs} refs held: {one.reason}"))
    state = state_of(context, one.name)
    for task, tries in sorted(state.tries.items(), key=lambda pair: pair[0].path):
        if task.path.endswith(f"t/{one.batch:05d}"):
            for made in tries:
                ended = f"{made.end.kind}: {made.end.cause}" if made.end else "stopped without a word"
                alone = " alone" if made.alone else ""
                print(logs.escape(logs.redact(f"  attempt {made.number} by {made.process}{alone}: {ended}")))
    batch = body_at(context, context.keys.batch(one.name, one.batch), Batch)
    for ref in context.forms.decode(load_data(context, batch.data), 0)[:10]:
        url, known_as = ref.url, ref.external_id
        if context.settings.logs.redact_queries:
            url, known_as = redact_query(url), redact_query(url) if known_as == url else logs.redact(known_as)
        print(f"  partner {ref.partner_id} item {ref.item_id} {logs.escape(known_as)} {logs.escape(url)}")
    if batch.refs > 10:
        print(f"  and {batch.refs - 10} more")
