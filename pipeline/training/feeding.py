"""What one net is fed, pass after pass: batches of its data layers, and what its layers draw."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.training.data.loading import Loader
from pipeline.training.data.source import Source
from pipeline.training.draws.draws import Draws
from pipeline.training.network import Draw, Mask

Feeds = dict[str, NDArray[np.float32]]


class Feeding:
    """The passes of one net, from a batch number on.

    drawn: what a pass draws that is fed these values.  mine: which passes are taken here, by their numbers.
    number: of the next batch.  examples: seen since the start.  waited: seconds in which the net stood still for data.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        drawn: Callable[[Feeds], Sequence[Draw]],
        draws: Draws,
        first: int,
        threads: int,
        mine: Callable[[int], bool] = lambda number: True,
    ) -> None:
        self._sources, self._drawn, self._draws = sources, drawn, draws
        self._loader = Loader(sources, first, threads, mine=mine)
        self.examples = 0
        self._before = (0, 0.0)

    @property
    def number(self) -> int:
        return self._loader.number

    @property
    def waited(self) -> float:
        return self._loader.waited

    def take(self, layers: Collection[str] | None = None) -> Feeds:
        """What the next pass is fed.  Draws are taken in Caffe's order: data layers, then layer by layer.

        layers: those that the pass goes through (None: all); nothing is drawn for others.
        """
        number = self.number
        feeds = dict(self._loader.take())
        feeds |= self._drawn_of(feeds, number, layers)
        self.examples += next((values.shape[0] for values in feeds.values() if values.ndim), 0)
        return feeds

    def drawn(self, layers: Collection[str]) -> Feeds:
        """What these layers draw for a pass that begins behind the data: no batch is taken."""
        return self._drawn_of({}, self.number, layers)

    def _drawn_of(self, given: Feeds, number: int, layers: Collection[str] | None) -> Feeds:
        feeds: Feeds = {}
        for at, one in enumerate(self._drawn(given)):
            if layers is not None and one.layer not in layers:
                feeds[one.feed] = np.zeros(one.shape, np.float32)
            elif isinstance(one, Mask):
                feeds[one.feed] = self._draws.mask(one, number)
            else:
                feeds[one.feed] = self._draws.filler(one.filler, one.shape, one.layer, at, number)
        return feeds

    def skip(self, passes: int) -> None:
        """The next passes are of others: what they draw is drawn, and their batches are not made."""
        for _ in range(passes):
            for at, one in enumerate(self._drawn({})):
                if isinstance(one, Mask):
                    self._draws.pass_over_mask(one)
                else:
                    self._draws.filler(one.filler, one.shape, one.layer, at, self.number)
            self._loader.skip()

    def keys(self) -> dict[str, list[str]]:
        """The keys of the examples that were fed last, by data layer."""
        return {source.layer: source.keys(self.number - 1) for source in self._sources if source.count}

    def lately(self, seconds: float) -> tuple[float, float]:
        """Examples a second, and the part of the time that went on waiting for data, since this was asked last."""
        examples, waited = self._before
        self._before = (self.examples, self.waited)
        return (self.examples - examples) / seconds, (self.waited - waited) / seconds

    def close(self) -> None:
        """Ends its threads."""
        self._loader.close()
