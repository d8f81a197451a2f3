"""Batches made ahead of the training, by threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from pipeline.training.data.source import Batch, Source

AHEAD = 4  # batches, as Caffe's prefetch
_REACH = 1024  # so far ahead batches are looked for that are taken here


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
        mine: Callable[[int], bool] = lambda number: True,
    ) -> None:
        """mine: which batches are taken, by their numbers; the others are skipped."""
        self.number, self.waited = first, 0.0
        self._now, self._ahead, self._mine = now, max(1, ahead), mine
        self._next = first
        self._in_order = [source for source in sources if source.in_order]
        self._others = [source for source in sources if not source.in_order]
        self._pool = ThreadPoolExecutor(max(1, threads), "hathi-data")
        self._made: dict[int, list[Future[Batch]]] = {}
        self._order()

    def _order(self) -> None:
        while len(self._made) < self._ahead and self._next < self.number + self._ahead * _REACH:
            if self._mine(self._next):
                self._made[self._next] = [self._pool.submit(source.batch, self._next) for source in self._others]
            self._next += 1

    def take(self) -> Batch:
        """The values of all tops of the next batch.  Raises what its making raised; then nothing more is made."""
        begin = self._now()
        found: Batch = {}
        try:
            made_ahead = self._made.pop(self.number, None)
            for made in made_ahead or [self._pool.submit(one.batch, self.number) for one in self._others]:
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

    def skip(self) -> None:
        """The next batch is not taken here."""
        self.number += 1
        self._order()

    def close(self) -> None:
        """Ends the threads, after the batches that they have begun.  The sources stay open."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
