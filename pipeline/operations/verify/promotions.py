"""Promotions of models: each can be read, and the files that it names are there, whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.ledger import promotions
from pipeline.ledger.promotions import PromotedFile, Promotion
from pipeline.ledger.protocol import Context
from pipeline.operations.verify.finding import Finding, Say, body_at
from pipeline.operations.verify.hashing import wrong_hash
from pipeline.operations.verify.shipments import unnamed_data

There = Mapping[str, tuple[int, float]]
"""Size and time of each object of models, by key."""


def promoted(say: Say, context: Context, *, deep: bool) -> Iterator[Finding]:
    """One finding for each file that is lost, and one for all that no promotion names."""
    keys = context.keys
    listing = context.bucket.list(keys.models_data)
    there = {entry.key: (entry.size, entry.modified) for entry in listing}
    named: set[str] = set()
    for model in promotions.models(context):
        files: dict[str, tuple[PromotedFile, str]] = {}
        for number in promotions.numbers(context, model)[0]:
            body = yield from body_at(say, context.bucket.get, keys.promotion(model, number), Promotion)
            for file in body.files if body is not None else ():
                files.setdefault(file.key, (file, f"{model}@{number}"))
        named |= files.keys()
        yield from _files(say, context, there, list(files.values()), deep=deep)
    unnamed = sorted(there.keys() - named)
    if unnamed:
        yield unnamed_data(say, unnamed, there, listing.now, context.settings.prune.orphan_days)


def _files(
    say: Say, context: Context, there: There, files: Sequence[tuple[PromotedFile, str]], *, deep: bool
) -> Iterator[Finding]:
    """The files of one model that cannot be had: where one is lost, a promotion of the same bytes stands for it."""
    wrong = {file.key: _wrong(context, there, file, deep=deep) for file, _ in files}
    good = {file.sha256 for file, _ in files if not wrong[file.key]}
    for file, of in files:
        if (why := wrong[file.key]) and file.sha256 not in good:
            yield say("model_lost", file.key, f"{of} names it as its {file.role}: {why}")


def _wrong(context: Context, there: There, file: PromotedFile, *, deep: bool) -> str:
    """What is wrong with an object, in words; "" for nothing."""
    found = there.get(file.key)
    if found is None or not file.key.startswith(context.keys.models_data):
        return "it is not there"
    if found[0] != file.size:
        return f"it has {found[0]:,} bytes in place of {file.size:,}"
    return wrong_hash(context.bucket, file.key, file.sha256) if deep else ""
