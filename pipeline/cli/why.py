"""Tell an item's story: when it was shipped, what was tried, what became of it, where it was delivered, what is next.

ITEM is an item id as an unsigned decimal, or an external id; Hathi tries digits as both.  With --url it tells of each
item with that image.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext

from pipeline.amounts import counted
from pipeline.app.contexts import sighted
from pipeline.app.stories import Asked, as_tree, stories, without_secrets
from pipeline.cli.output.progress import shown
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError
from pipeline.ledger.protocol import silent_progress
from pipeline.operations.why import Story
from pipeline.operations.why.story import Chapter, Outcome, Ref, shown_time
from pipeline.process import logs
from pipeline.settings import load

USAGE = "`hathi why PARTNER ITEM` (a list without partners has partner 0), or `hathi why [PARTNER] --url URL`"
NOT_READ = 20
"""Paths that are not read, of those that are named."""
KINDS = {
    "source": "first try",
    "retry": "retry",
    "release": "release of a held batch",
    "again": "shipped again",
    "backfill": "back-fill",
    "": "ledger pruned",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi why`."""
    parser.add_argument("partner", nargs="?", type=_partner, metavar="PARTNER", help="the number of the partner")
    parser.add_argument("item", nargs="?", metavar="ITEM", help="an item id (unsigned decimal) or an external id")
    parser.add_argument("--url", help="show the items that have this image (of PARTNER, or of all partners)")
    parser.add_argument("--lake", action="append", default=[], help="only this lake")
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object for each lake and item")


def _partner(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no partner: {USAGE}") from error


def run(args: argparse.Namespace) -> int:
    """0, also where nothing is known."""
    if (args.url is None) == (args.item is None) or (args.url is None and args.partner is None):
        raise ConfigError("hathi why needs a partner and an item, or a URL", "", USAGE)
    settings = load(place_of(args), os.environ)
    with shown() if sys.stderr.isatty() else nullcontext(silent_progress) as show:
        found = stories(sighted(settings, "why", args.lake, show), Asked(args.partner, args.item, args.url))
    for told in found:
        told = without_secrets(told) if settings.logs.redact_queries else told
        if args.json:
            print(json.dumps(as_tree(told), sort_keys=True))
        else:
            print("\n".join(logs.escape(line) for line in _lines(told)))
    if not found and not args.json:
        print("Hathi found no item with that URL")
    sys.stdout.flush()
    return 0


def _lines(told: Story) -> Iterator[str]:
    ids = " or ".join(f"{item} ({how})" for item, how in told.items.items())
    yield f"partner {told.partner}, item {ids}, lake {told.lake}"
    if not told.lake_seen:
        yield "this host cannot see the lake; the following comes from the bucket alone"
    for chapter in told.chapters:
        yield ""
        yield from _chapter(chapter, several=len(told.items) > 1)
    yield ""
    for row in told.rejected:
        yield f"rejected: row {row.row + 1} of {row.file} ({row.shipment}): {row.why}: {row.sample}"
    if not told.chapters and not told.rejected:
        yield f"Hathi found nothing about this item in {counted(told.looked_at, 'shipment')}"
        if told.unsampled:
            yield f"Hathi keeps no sample of {counted(told.unsampled, 'rejected row')} of this partner's sources"
    if told.not_read:
        yield f"the item may stand in files that Hathi does not read at the sources ({told.not_read_number:,}):"
        yield from (f"  {path}: {why}" for path, why in list(told.not_read.items())[:NOT_READ])
    for seen in told.consumers_see():
        what = "the feature" if seen.outcome.kind == "feature" else f"no feature, but {seen.outcome.reason}"
        of = f" of item {seen.outcome.item_id}" if len(told.items) > 1 else ""
        yield f"consumers see{of} in set {seen.set}: {what} of {seen.shipment}{_from(seen.outcome)}"
    if told.chapters and not told.consumers_see():
        yield "consumers do not see the item yet"


def _from(outcome: Outcome) -> str:
    return f", from {outcome.url}" if outcome.url and outcome.kind == "feature" else ""


def _chapter(chapter: Chapter, several: bool) -> Iterator[str]:
    kind = KINDS.get(chapter.kind, chapter.kind)
    of = f", parent {chapter.parent}" if chapter.parent else ""
    yield f"{chapter.shipment}  set {chapter.set}, {kind}{of}"
    if chapter.source:
        yield f"  snapshot   {chapter.source}, version {shown_time(chapter.version)} UTC"
    for ref in chapter.refs:
        rival = next((one for one in chapter.refs if one.wins and one.item_id == ref.item_id), None)
        yield from _ref(ref, len(chapter.refs) > 1, several, rival)
    for row in chapter.delivered:
        head = f"delivered  {shown_time(chapter.delivered_at)} UTC" if chapter.delivered_at else "merged    "
        yield f"  {head} {chapter.folder}: {_outcome(row)}"
    if chapter.next:
        yield f"  next       {chapter.next}"
    for note in chapter.notes:
        yield f"  note       {note}"


def _ref(ref: Ref, duplicates: bool, several: bool, rival: Ref | None) -> Iterator[str]:
    end = f"to {ref.last_row}" if ref.last_row >= 0 else "to the end"
    where = f"from {ref.file}, rows {ref.first_row} {end}, " if ref.file else ""
    mark = ("; of these it wins" if ref.wins else "; a duplicate") if duplicates else ""
    if mark and rival and rival.external_id and ref.external_id and ref.external_id != rival.external_id:
        mark += f": its id differs from {rival.external_id} in letter case or percent-coding only"
    of = f", item {ref.item_id}" if several else ""
    yield f"  shipped    {shown_time(ref.shipped)} UTC {where}in batch {ref.batch}{of}{mark}"
    image = f"{counted(ref.inline_bytes, 'byte')}, sent with the ref" if ref.inline_bytes else ref.url
    named = f" (external id {ref.external_id})" if ref.external_id and ref.external_id != ref.url else ""
    yield f"  image      {image}{named}"
    for made in ref.tries:
        alone = ", alone" if made.alone else ""
        ended = f": {made.ended}" if made.ended else ""
        yield f"  attempt    {made.number} by {made.process}{alone}{ended}"
    yield f"  computed   {_outcome(ref.outcome)}" if ref.outcome.kind else "  computed   not yet"


_REUSED = {
    "not_modified": "; computed before, and the host said that the image did not change",
    "equal_bytes": "; computed before, and the host sent the same bytes",
}


def _outcome(outcome: Outcome) -> str:
    if outcome.kind == "feature":
        fetched = f", fetched {outcome.fetched_at} UTC" if outcome.fetched_at else ""
        damaged = f"; a part of its picture is missing ({outcome.detail})" if outcome.detail else ""
        return f"feature{fetched}{_REUSED.get(outcome.reused, '')}{damaged}"
    kind = "retriable" if outcome.retriable else "final"
    detail = f" ({outcome.detail})" if outcome.detail else ""
    return f"no feature: {outcome.reason}{detail}: {outcome.meaning}; {kind}"
