"""Batches made ahead of the training, by threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from pipeline.training.data.source import Batch, Source

AHEAD = 4  # batches, as Caffe's prefetch


class Loader:
    """Gives the batches of a net's data layers one after another; threads make the next ones meanwhile.

    A batch has its number, so it does not matter which thread ends first.  waited: seconds that `take` was held up.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        first: int = 0,
        threads: int = 2,
        ahead: int = AHEAD,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number, self.waited = first, 0.0
        self._now, self._ahead = now, max(1, ahead)
        self._in_order = [source for source in sources if source.in_order]
        self._others = [source for source in sources if not source.in_order]
        self._pool = ThreadPoolExecutor(max(1, threads), "hathi-data")
        self._made: dict[int, list[Future[Batch]]] = {}
        self._order()

    def _order(self) -> None:
        for number in range(self.number, self.number + self._ahead):
            if number not in self._made:
                self._made[number] = [self._pool.submit(source.batch, number) for source in self._others]

    def take(self) -> Batch:
        """The values of all tops of the next batch.  Raises what its making raised; then nothing more is made."""
        begin = self._now()
        found: Batch = {}
        try:
            for made in self._made.pop(self.number):
                found.update(made.result())
            for source in self._in_order:
                found.update(source.batch(self.number))
        except BaseException:
            self.close()
            raise
        self.waited += self._now() - begin
        self.number += 1
        self._order()
        return found

    def close(self) -> None:
        """Ends the threads, after the batches that they have begun.  The sources stay open."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
