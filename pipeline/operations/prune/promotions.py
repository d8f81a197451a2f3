"""Files of models that no promotion names: of a promotion that was cut, or that came second.

What a promotion names stays, however old: it is the way back, and open shipments may have been planned with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import PermanentError
from pipeline.ledger import promotions
from pipeline.ledger.manifest import Promoted
from pipeline.ledger.protocol import Context
from pipeline.operations.prune.deletion import Deletion
from pipeline.times import DAY


def plan_promotions(context: Context, now: float) -> Iterator[Deletion]:
    """What is to be forgotten of the models of a lake; nothing while one of its promotions cannot be read here."""
    old = now - context.settings.prune.orphan_days * DAY
    stale = [entry.key for entry in context.bucket.list(context.keys.models_data) if entry.modified < old]
    if not stale:
        return
    try:
        kept = named(context)  # after the listing: what is named from now on was written after it
    except PermanentError as error:
        context.once("prune models", f"prune deletes no file of a model: {error}")
        return
    for key in stale:
        context.safe_point()
        if key not in kept:
            yield Deletion("bucket", "delete", key, "no promotion names it")


def named(context: Context) -> frozenset[str]:
    """Keys of all files that promotions name.  Raises PermanentError where one of them cannot be read here."""
    found: set[str] = set()
    for model in promotions.models(context):
        for number in promotions.numbers(context, model)[0]:
            body = promotions.read(context, Promoted(model=model, number=number))
            found.update(file.key for file in body.files)
    return frozenset(found)
