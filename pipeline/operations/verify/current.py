"""Compacted tables under a set's root, against their own manifests."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import FormatError, PermanentError
from pipeline.ledger.layout import Root
from pipeline.ledger.protocol import Context
from pipeline.operations.verify.finding import Finding, Say
from pipeline.operations.verify.folder import whole
from pipeline.operations.verify.listing import read_if_good
from pipeline.stages.compact.standing import table, tables
from pipeline.stores.store import Lake


def current(say: Say, context: Context, lake: Lake, root: Root, *, deep: bool) -> Iterator[Finding]:
    """Every table of every partner, and what the index names of them; one manifest in memory at a time."""
    named = read_if_good(lake, root)
    for partner_id, one in named.current.items() if named is not None else ():
        if lake.stat(f"{root.root}/{one.folder}") is None and _still_named(lake, root, partner_id, one.folder):
            yield say("index_lacks", root.index, f"the index names {one.folder}, and this folder does not exist")
    for partner, numbers in tables(lake, root).items():
        for number in numbers:
            context.safe_point()
            yield from _table(say, lake, root, partner, number, deep)
            context.progress("verify", 1, 0)


def _still_named(lake: Lake, root: Root, partner: str, folder: str) -> bool:
    """A second look: the table was passed and pruned meanwhile."""
    index = read_if_good(lake, root)
    return index is not None and partner in index.current and index.current[partner].folder == folder


def _table(say: Say, lake: Lake, root: Root, partner: int, number: int, deep: bool) -> Iterator[Finding]:
    folder = root.current(partner, number)
    try:
        stands = table(lake, root, partner, number)
    except (FormatError, PermanentError) as error:
        yield say("folder_strange", folder, error.detail or error.message)
        return
    if stands is None:
        return  # pruned meanwhile
    body = stands.body
    if (body.partner_id, body.number) != (partner, number):
        yield say("folder_strange", folder, f"its manifest belongs to table {body.number} of partner {body.partner_id}")
        return
    there = {entry.key.removeprefix(f"{folder}/"): entry.size for entry in lake.list(f"{folder}/")}
    if not there:
        return
    yield from whole(say, lake, folder, there, body.files, deep=deep)
