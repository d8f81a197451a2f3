"""Features that can be used again, of images that did not change: too old, or more than there may be.

They are an aid: what goes costs a fetch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.ledger.protocol import Context
from pipeline.operations.prune.deletion import Deletion
from pipeline.times import DAY


@dataclass
class _Page:
    """What stands of one page: its index, its data, or both."""

    modified: float = 0.0
    size: int = 0
    keys: list[str] = field(default_factory=list)


def plan_reuse(context: Context, now: float) -> Iterator[Deletion]:
    """Pages that go, the oldest first, the index of each before its data.  Memory: an entry for each page."""
    limits, top = context.settings.prune, context.keys.reuse
    pages: dict[str, _Page] = {}
    for entry in context.bucket.list(top):
        page = pages.setdefault(entry.key.removeprefix(top).partition("/")[2], _Page())
        page.modified = max(page.modified, entry.modified)
        page.size += entry.size
        page.keys.append(entry.key)
    size = sum(page.size for page in pages.values())
    for _, page in sorted(pages.items(), key=lambda one: (one[1].modified, one[0])):
        if page.modified < now - limits.reuse_days * DAY:
            why = "features so old are not used again"
        elif size > limits.reuse_bytes:
            why = "there are more features to be used again than prune.reuse_bytes"
        else:
            return
        size -= page.size
        for key in sorted(page.keys, reverse=True):  # `i/` before `d/`
            yield Deletion("bucket", "delete", key, why)
