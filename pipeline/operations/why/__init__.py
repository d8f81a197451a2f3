"""An item's story over all shipments that are still known: what happened, and what comes next (`hathi why`)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import groupby

from pipeline.errors import FormatError, NotFound
from pipeline.ledger.layout import Root, ShipmentName, number_of
from pipeline.ledger.listing import names_under
from pipeline.ledger.manifest import End, Plan
from pipeline.ledger.protocol import Context, readable, state_of
from pipeline.operations.why.chapter import Place, chapter
from pipeline.operations.why.delivered import urls_of
from pipeline.operations.why.refs import Refs
from pipeline.operations.why.story import Question, RejectedRow, Story, question_of
from pipeline.process.redaction import redact_query
from pipeline.records import item_id_of_url
from pipeline.sources.conventions import named_by
from pipeline.stages.snapshots import takes
from pipeline.stores.sight import seen
from pipeline.stores.store import Store

__all__ = ["Question", "Story", "items_of_url", "question_of", "story"]

MAX_ITEMS_OF_A_URL = 100


def story(context: Context, question: Question) -> Story:
    """One lake's part of the story, oldest shipment first.  Memory: one batch's refs, or one row group's ids.

    Raises TemporaryError when a store does not answer.
    """
    told = Story(context.lake_name, question.partner, dict(question.items))
    told.lake_seen = seen(context.lake) is not None
    for place in places(context):
        context.safe_point()
        told.looked_at += 1
        _rejected(place, question, told)
        found = chapter(place, question)
        if found is not None:
            told.chapters.append(found)
        context.bodies.clear()  # one shipment's manifests at a time
        context.progress("why", 1, 0)
    if not told.chapters:
        named = named_by(context)
        left = named.left.plus(named.later)
        told.not_read = {**named.troubles, **left.first}
        told.not_read_number = len(named.troubles) + left.number
    return told


def places(context: Context) -> Iterator[Place]:
    """Every shipment that the ledger or a root of the lake names, in the order of names."""
    lake = seen(context.lake)
    listings = [_named(context.bucket, context.keys.commits, None)]
    for _, one in sorted(context.settings.sets.items()):
        if lake is not None and takes(one, context.lake_name):
            root = Root(one.folder)
            listings.append(_named(lake, f"{root.root}/", root))
    merged = heapq.merge(*listings, key=lambda pair: pair[0])
    for name, same in groupby(merged, key=lambda pair: pair[0]):
        root_of = next((root for _, root in same if root is not None), None)
        yield Place(context, lake, name, root_of)


def _named(store: Store, prefix: str, root: Root | None) -> Iterator[tuple[ShipmentName, Root | None]]:
    return ((name, root) for name in names_under(store, prefix))


def _rejected(place: Place, question: Question, told: Story) -> None:
    """Rows of the partner's sources that are no refs, and show the text that is asked for."""
    context, name = place.context, place.name
    end = readable(context, context.keys.end(name), End)
    if end is None or not end.rejected:
        return
    plan = readable(context, context.keys.plan(name), Plan)
    if plan is None or plan.reading.partner_id not in (None, question.partner):
        return
    told.unsampled += max(0, end.rejected - len(end.rejections))
    for one in end.rejections:
        if question.text in one.sample:
            told.rejected.append(RejectedRow(str(name), one.file, one.row, one.why, one.sample))


def items_of_url(context: Context, url: str, partner: int | None) -> list[Question]:
    """Whose image a URL is, as far as batches or delivered rows still say; 100 items at the most."""
    shown = redact_query(url)
    found: dict[tuple[int, int], str] = {}
    if partner is not None:
        found[(partner, item_id_of_url(url))] = "id of the URL"
    for place in places(context):
        context.safe_point()
        for one in _pairs(place, {url, shown}):
            if partner is None or one[0] == partner:
                found.setdefault(one, "found by its URL")
        context.bodies.clear()
        context.progress("why", 1, 0)
        if len(found) >= MAX_ITEMS_OF_A_URL:
            break
    return [Question(one, {item: how}, shown) for (one, item), how in list(found.items())[:MAX_ITEMS_OF_A_URL]]


def _pairs(place: Place, urls: set[str]) -> Iterator[tuple[int, int]]:
    """(partner, item) of the refs with one of the URLs: in the batches, else in what was delivered."""
    context = place.context
    state = state_of(context, place.name)
    reader = Refs(context, state, frozenset())
    yield from ((ref.partner_id, ref.item_id) for ref in reader.all() if ref.url in urls)
    if (state.plan is None or reader.pruned) and place.lake is not None and place.root is not None:
        yield from _delivered_pairs(place, place.root, urls)


def _delivered_pairs(place: Place, root: Root, urls: set[str]) -> Iterator[tuple[int, int]]:
    lake = place.lake
    assert lake is not None
    prefix = f"{root.shipment(place.name)}/"
    for entry in lake.list(prefix, folders=True):
        partner = number_of(entry.key.removeprefix(prefix).rstrip("/"))
        if partner is None:
            continue
        names = [one.key.removeprefix(entry.key) for one in lake.list(entry.key)]
        try:
            for item in urls_of(names, lambda name, folder=entry.key: lake.open(folder + name), sorted(urls)):  # type: ignore[misc]
                yield partner, item
        except (FormatError, NotFound):
            continue
