"""What persons asked to be forgotten (docs/protocol.md 18): a request, and that it was done.

A request names the item until it is done.  What stays then names nobody: a digest that only who knows the item finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import Field

from pipeline.errors import IGNORED, PermanentError
from pipeline.ledger.bodies import Body
from pipeline.ledger.layout import MIXED, digest, number_of, scope_of
from pipeline.ledger.protocol import Context, commit, readable
from pipeline.ledger.values import PartnerNumber, Stamp
from pipeline.records import MAX_ITEM_ID

ItemNumber = Annotated[int, Field(ge=0, le=MAX_ITEM_ID)]

_TRIES = 100


class Request(Body):
    """`f/<number>`: forget an item, or all of a partner, as far as it was planned before `at`."""

    partner_id: PartnerNumber
    items: tuple[ItemNumber, ...] = ()
    """Unsigned: the numbers that what a person typed can stand for.  Empty: all of the partner."""
    at: Stamp
    """By the store's clock."""
    by: str = ""
    why: str = ""

    @property
    def digest(self) -> str:
        return digest("forget", self.partner_id, sorted(self.items))


class Forgotten(Body):
    """`f/<number>.done`: nothing of it was left."""

    digest: str
    at: Stamp
    asked: Stamp
    by: str = ""


def open_requests(context: Context) -> dict[int, Request]:
    """Requests that are not done, by number; one that cannot be read is said once.  One list."""
    asked, done = _listed(context)
    return _bodies(context, asked.keys() - done)


def cut_requests(context: Context) -> dict[int, Request]:
    """Requests that are done and still there: whoever finished one was cut.  One list."""
    asked, done = _listed(context)
    return _bodies(context, asked.keys() & done)


def _bodies(context: Context, numbers: Iterable[int]) -> dict[int, Request]:
    bodies = {number: readable(context, context.keys.forget_request(number), Request) for number in sorted(numbers)}
    return {number: body for number, body in bodies.items() if body is not None}


def done_requests(context: Context) -> frozenset[int]:
    """Numbers of requests that are done.  One list."""
    return frozenset(_listed(context)[1])


def waiting_requests(context: Context) -> dict[int, float]:
    """Since when each request waits that is not done, by the store's clock; in their order.  One list; only reads."""
    asked, done = _listed(context)
    return {number: since for number, since in sorted(asked.items()) if number not in done}


def _listed(context: Context) -> tuple[dict[int, float], set[int]]:
    """Numbers of requests, with their time, and of those that are done."""
    asked: dict[int, float] = {}
    done: set[int] = set()
    for entry in context.bucket.list(context.keys.forget):
        text = entry.key.removeprefix(context.keys.forget)
        number = number_of(text.removesuffix(".done"), 10)
        if number is None or entry.key not in (context.keys.forget_request(number), context.keys.forgotten(number)):
            context.once(entry.key, f"{entry.key} is not a request to forget; {IGNORED}")
        else:
            if text.endswith(".done"):
                done.add(number)
            else:
                asked[number] = entry.modified
    return asked, done


def ask(context: Context, request: Request) -> int:
    """Put a request under the next number; the number.  One that says the same and is not done is that one."""
    for _ in range(_TRIES):
        for number, one in open_requests(context).items():
            if one.digest == request.digest:
                return number
        asked, done = _listed(context)
        number = max((*asked, *done), default=0) + 1
        won, _ = commit(context, context.keys.forget_request(number), request)
        if won:
            return number
    raise PermanentError("others ask without an end", f"{_TRIES} numbers were taken", "type the command again")


def finish(context: Context, number: int, request: Request, at: str, look: Callable[[], None]) -> None:
    """It is done: the key that says so, then the request goes, which names the item.

    look: deletes once more in between what others wrote meanwhile.  Who writes pages or tables looks for the key before
    it puts the last of one in its place: it sees the key, or what it wrote is seen here.
    """
    body = Forgotten(digest=request.digest, at=at, asked=request.at, by=request.by)
    commit(context, context.keys.forgotten(number), body)
    look()
    context.bucket.delete(context.keys.forget_request(number))
    context.bodies.pop(context.keys.forget_request(number), None)


def forget_pages(context: Context, partner: int) -> int:
    """Delete the features to be used again of a partner, and those that lie with other partners'; how many objects.

    A page is an aid (docs/protocol.md 19), so it goes as a whole: what else it has costs a fetch.
    """
    gone = 0
    for part in ("i", "d"):  # what tells of a page before the page
        for fingerprint in list(context.bucket.list(f"{context.keys.reuse}{part}/", folders=True)):
            for scope in (scope_of(partner), MIXED):
                for entry in list(context.bucket.list(f"{fingerprint.key}{scope}/")):
                    context.bucket.delete(entry.key)
                    gone += 1
    return gone
