"""Forgetting: what a person has a right to, of an item or of a whole partner (docs/protocol.md 18).

A request is a key that every host sees.  A pass looks at everything for each open request: data in the bucket, the
archive, delivered folders, current tables, what commands made of them.  It deletes and rewrites what it can, says what
waits, and is harmless to repeat: whoever is cut begins again.  The request is done when a pass found nothing that waits
and saw the lake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.amounts import counted
from pipeline.errors import PermanentError, Stopped
from pipeline.ledger.forgetting import Request, cut_requests, finish, forget_pages, open_requests
from pipeline.ledger.layout import version_of
from pipeline.ledger.protocol import Context
from pipeline.operations.forget import bucket, folders, made, packs, tables
from pipeline.operations.forget.whose import Pass
from pipeline.operations.verify import roots

__all__ = ["Outcome", "forget"]

_PAGE = "page"


@dataclass(frozen=True)
class Outcome:
    """What a pass did for one request.  waiting: what keeps it open, in words; none: it is done.  notes: what a person
    has to know.
    """

    number: int
    request: Request
    removed: dict[str, int]
    waiting: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def gone(self) -> str:
        """What was deleted, in words."""
        plurals = {made.INDEX: "indexes"}
        some = (counted(number, what, plurals.get(what, f"{what}s")) for what, number in sorted(self.removed.items()))
        return ", ".join(some) or "nothing new"

    @property
    def met(self) -> bool:
        """Whether anything of the item was there: pages and indexes go in any case, whatever is in them."""
        return bool(self.removed.keys() - {_PAGE, made.INDEX})


def forget(context: Context) -> Iterator[Outcome]:
    """A pass for each open request, the oldest first.  Without one it costs two lists, and one for each root.

    Folders that are in no place are put there in any case: a rename may arrive long after it was asked for.
    """
    if context.lake is not None:
        for root in roots(context):
            folders.take_up(context.lake, root)
        for number, request in cut_requests(context).items():
            _finish(Pass(context, request), number)
    for number, request in open_requests(context).items():
        yield _forget(context, number, request)


def _forget(context: Context, number: int, request: Request) -> Outcome:
    one = Pass(context, request)
    for step in (bucket.shipments, packs.archive, _lake, _pages, made.indexes):
        try:
            step(one)
        except Stopped:
            raise
        except PermanentError as error:
            one.waiting[step.__name__] = f"{error.message}: {error.detail}"
    if not one.waiting:
        _finish(one, number)
    return Outcome(number, request, dict(one.removed), tuple(one.waiting.values()), tuple(one.notes))


def _finish(one: Pass, number: int) -> None:
    now = one.context.bucket.list(one.context.keys.forget).now
    finish(one.context, number, one.request, version_of(now), lambda: _look_again(one))


def _look_again(one: Pass) -> None:
    """What boxes and compact wrote meanwhile, which had read the item before it went."""
    forget_pages(one.context, one.partner)
    if (lake := one.context.lake) is not None:
        for root in roots(one.context):
            tables.table(one, lake, root, late=True)


def _pages(one: Pass) -> None:
    """Features to be used again: after all else, since whoever is at work on the item writes them as it ends."""
    pages = forget_pages(one.context, one.partner)
    if pages:
        one.removed[_PAGE] += pages


def _lake(one: Pass) -> None:
    """All that is delivered; a host that does not see it leaves the request to one that does."""
    context = one.context
    if context.lake is None:
        one.waiting["lake"] = "this host does not see the lake: a gateway's daily prune goes on, or hathi forget there"
        return
    for root in roots(context):
        folders.folders(one, context.lake, root)
        tables.table(one, context.lake, root)
        folders.leftovers(one, context.lake, root)
        made.made(one, context.lake, root)
