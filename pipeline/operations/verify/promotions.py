"""Promotions of models: each can be read, and the files that it names are there, whole."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.ledger import promotions
from pipeline.ledger.promotions import PromotedFile, Promotion
from pipeline.ledger.protocol import Context
from pipeline.operations.verify.finding import Finding, Say, body_at
from pipeline.operations.verify.hashing import wrong_hash
from pipeline.operations.verify.shipments import unnamed_data


def promoted(say: Say, context: Context, *, deep: bool) -> Iterator[Finding]:
    """One finding for each file that is lost, and one for all that no promotion names."""
    keys = context.keys
    listing = context.bucket.list(keys.models_data)
    there = {entry.key: (entry.size, entry.modified) for entry in listing}
    named: set[str] = set()
    for model in promotions.models(context):
        for number in promotions.numbers(context, model)[0]:
            key = keys.promotion(model, number)
            body = yield from body_at(say, context.bucket.get, key, Promotion)
            for file in body.files if body is not None else ():
                if file.key not in named:
                    named.add(file.key)
                    yield from _file(say, context, there, file, f"{model}@{number}", deep=deep)
    unnamed = sorted(there.keys() - named)
    if unnamed:
        yield unnamed_data(say, unnamed, there, listing.now, context.settings.prune.orphan_days)


def _file(
    say: Say, context: Context, there: dict[str, tuple[int, float]], file: PromotedFile, of: str, *, deep: bool
) -> Iterator[Finding]:
    found = there.get(file.key)
    if found is None or not file.key.startswith(context.keys.models_data):
        yield say("model_lost", file.key, f"{of} names it as its {file.role}, and it is not there")
    elif found[0] != file.size:
        yield say("model_lost", file.key, f"it has {found[0]:,} bytes; {of} says {file.size:,}")
    elif deep and (wrong := wrong_hash(context.bucket, file.key, file.sha256)):
        yield say("model_lost", file.key, f"{of} names it as its {file.role}: {wrong}")
