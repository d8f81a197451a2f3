"""Requests to forget an item or a partner, and how far they are: what `hathi forget` does."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.ledger.forgetting import Request, ask, cut_requests, open_requests
from pipeline.ledger.layout import version_of
from pipeline.ledger.protocol import Context
from pipeline.operations.forget import Outcome, forget
from pipeline.operations.why.story import question_of


@dataclass(frozen=True)
class Told:
    """What a pass over one lake did for one request."""

    lake: str
    outcome: Outcome


def items_of(context: Context, partner: int, item: str) -> tuple[int, ...]:
    """The item ids that a person's word can stand for; none where it is empty: all of the partner."""
    if not item:
        return ()
    sources = context.settings.lakes[context.lake_name].sources
    as_written = any(source.ids == "as_written" for source in sources)
    return tuple(question_of(partner, item, as_written=as_written).items)


def request(contexts: Iterable[Context], partner: int, item: str, why: str = "") -> frozenset[tuple[str, int]]:
    """Put the request into each lake.  item: an item id or an external id; "" for all of the partner.

    Returns lake and number of each that was not open before.
    """
    new = set()
    for context in contexts:
        before = open_requests(context)
        now = context.bucket.list(context.keys.forget).now
        items = items_of(context, partner, item)
        number = ask(context, Request(partner_id=partner, items=items, at=version_of(now), by=_user(), why=why))
        if number not in before:
            new.add((context.lake_name, number))
    return frozenset(new)


def go_on(contexts: Iterable[Context]) -> Iterator[Told]:
    """A pass over each lake for each request that is open."""
    for context in contexts:
        for outcome in forget(context):
            yield Told(context.lake_name, outcome)


def any_open(contexts: Iterable[Context]) -> bool:
    """Whether a request is open in one of the lakes."""
    return any(open_requests(context) or cut_requests(context) for context in contexts)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
