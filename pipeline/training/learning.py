"""What a solver changes: the learned blobs of a net with their histories, and one update of them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pipeline.training import gradient_norms, updates
from pipeline.training.network import LearnedBlob, Network
from pipeline.training.updates import Blob, Clipping, Tensor, Update


class Learning:
    """The weights of a net as flat tensors, float32, and the histories that its solver's update keeps of each."""

    def __init__(self, update: Update, net: Network) -> None:
        self._update, self._net = update, net
        self.take_up()
        self.history: list[Tensor] = []
        """As in a .solverstate: of each blob, then a second time of each blob where the solver keeps two."""
        if self._weights:
            count = updates.histories(update, len(self._weights))
            weights = [self._weights[at % len(self._weights)] for at in range(count)]
            self.history = [one.new_zeros(one.shape) for one in weights]

    def take_up(self) -> None:
        """Finds the net's weights again, after the net has come to share another's."""
        self._weights = [flat(self._net.tensor(one.slot)) for one in self._net.learned]

    def place(self, memory: Sequence[np.ndarray]) -> None:
        """The histories lie in this memory from now on, as they are: one float32 array of each blob's size for each."""
        there = [flat(self._net.over(one)) for one in memory]
        for one, before in zip(there, self.history, strict=True):
            one.copy_(before)
        self.history = there

    def restore(self, history: list[np.ndarray]) -> None:
        """history: of the solver's type, in the order of `history`; any shape."""
        for one, values in zip(self.history, history, strict=True):
            one.copy_(one.new_tensor(np.ascontiguousarray(values).ravel()))

    def norms(self) -> dict[str, float]:
        """The L2 norm of the gradients of each layer."""
        return gradient_norms.norms(self._net.learned, self._gradients())

    def update(
        self, rate: float, iteration: int, clipping: Callable[[Clipping], None], passes: int | None = None
    ) -> LearnedBlob | None:
        """ApplyUpdate after the rate is known.  clipping hears of the gradients' norm where the solver limits it.

        passes: how many the gradients are the sum of; None: the solver's iter_size.
        Returns the first blob that is no longer finite, with which the training cannot go on; None: all are.
        """
        learned, gradients = self._net.learned, self._gradients()
        how = self._update if passes is None else replace(self._update, iter_size=passes)
        clipped = updates.clipped(how, gradients)
        if clipped is not None:
            clipping(clipped)
        for at, (one, weights, gradient) in enumerate(zip(learned, self._weights, gradients, strict=True)):
            history = tuple(self.history[at :: len(learned)])
            blob = Blob(weights, gradient, history, one.lr_mult, one.decay_mult)
            if not updates.apply(how, blob, rate, iteration):
                return one
        return None

    def _gradients(self) -> list[Tensor]:
        return [flat(self._net.gradient_tensor(one.slot)) for one in self._net.learned]


def flat(tensor: Tensor) -> Tensor:
    """The same numbers in one row, without gradients of their own."""
    return tensor.detach().view(-1)
