"""What the open batches of a window take, in memory and on the local disk, and when that is too much."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.extraction.host_queues import OpenBatch
from pipeline.stores.local import typed

SPILL_DOWN_TO = 0.75
"""Of the bytes that are allowed in memory: what is spilled is enough for a while, so that writes are few and large."""


@dataclass(frozen=True)
class Bounds:
    """What a window may take on.

    batches: open at once.  ahead: URLs in the fetcher.  memory: bytes of refs and features of open batches.
    spill, disk: a folder on the local disk for features that are too much for memory, and its bytes; None: no such.
    decoding: images that are decoded or wait to be.  batch_seconds: from a batch's first ref until it ends.
    """

    batches: int
    memory: int
    batch_seconds: float
    decoding: int
    ahead: int = 20_000
    spill: Path | None = None
    disk: int = 0


class Load:
    """What the open batches take, in memory and on the disk, and what they may still come to take."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.refs = 0
        """Bytes of refs in memory."""
        self.features = 0
        """Bytes of features in memory."""
        self._spilled = 0
        self._promised = 0
        """Bytes of features if each ref of the open batches has one."""
        self._most_refs = self._most = 0

    def takes_another(self, open_now: int) -> bool:
        """A batch as large as the largest so far fits: no open one can come to need what is not there."""
        if not open_now:
            return True
        return (
            open_now < self._bounds.batches
            and self.refs + self._most_refs <= self._bounds.memory / 2
            and self.refs + self._promised + self._most <= self._bounds.memory + self._disk()
        )

    def _disk(self) -> int:
        if self._bounds.spill is None:
            return 0
        try:
            free = shutil.disk_usage(self._bounds.spill).free
        except OSError as error:
            raise typed(error, self._bounds.spill) from error
        return min(self._bounds.disk, self._spilled + free)

    def opened(self, batch: OpenBatch[Any]) -> None:
        self.refs += batch.refs_bytes
        self._promised += batch.promise
        self._most_refs = max(self._most_refs, batch.refs_bytes)
        self._most = max(self._most, batch.refs_bytes + batch.promise)

    def less_refs(self, batch: OpenBatch[Any], size: int) -> None:
        batch.refs_bytes -= size
        self.refs -= size

    def closed(self, batch: OpenBatch[Any]) -> None:
        self.refs -= batch.refs_bytes
        self._promised -= batch.promise
        self._spilled -= batch.features.spilled
        self.features -= batch.features.held

    def spill(self, batches: Iterable[OpenBatch[Any]]) -> None:
        """Where there is more in memory than is allowed, the batches with most features go to the disk first."""
        if self._bounds.spill is None or self.refs + self.features <= self._bounds.memory:
            return
        for batch in sorted(batches, key=lambda one: one.features.held, reverse=True):
            if self.refs + self.features <= SPILL_DOWN_TO * self._bounds.memory or not batch.features.held:
                return
            held, spilled = batch.features.held, batch.features.spilled
            batch.features.spill()
            self.features -= held
            self._spilled += batch.features.spilled - spilled
