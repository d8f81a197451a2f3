"""From delivery back to the source: what is written is there, whole, and adds up (`hathi verify`)."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.ledger.layout import Root
from pipeline.ledger.protocol import Context
from pipeline.operations.verify.archive import archive
from pipeline.operations.verify.delivered import delivered
from pipeline.operations.verify.finding import KINDS, Finding, Level, saying
from pipeline.operations.verify.listing import IndexView, index_findings
from pipeline.operations.verify.made import made
from pipeline.operations.verify.promotions import promoted
from pipeline.operations.verify.shipments import shipments
from pipeline.operations.verify.strays import strays
from pipeline.stages.snapshots import takes
from pipeline.stores.sight import seen

__all__ = ["KINDS", "Finding", "Level", "roots", "verify"]


def roots(context: Context) -> list[Root]:
    """The target roots of the sets that serve a lake."""
    sets = (one for _, one in sorted(context.settings.sets.items()) if takes(one, context.lake_name))
    return [Root(one.folder) for one in sets]


def verify(context: Context, *, deep: bool = False) -> Iterator[Finding]:
    """Everything that verify has to say of one lake, as it is found.  It only reads, beside working daemons, too.

    deep: every delivered file and every object under `d/` is read and hashed.  Memory: one shipment's manifests and
    one root's index at a time.  Raises TemporaryError when a store does not answer.
    """
    say = saying(context.lake_name)
    lake = seen(context.lake)
    if lake is None:
        url = context.settings.lakes[context.lake_name].url
        yield say("lake_not_seen", url or context.lake_name, "the lake cannot be reached from here")
    else:
        for root in roots(context):
            view = IndexView(context, lake, root)
            yield from index_findings(say, lake, root)
            yield from delivered(say, context, lake, root, view, deep=deep)
            yield from made(say, lake, root, deep=deep)
    yield from shipments(say, context, lake, deep=deep)
    yield from promoted(say, context, deep=deep)
    yield from archive(say, context, deep=deep)
    yield from strays(say, context)
