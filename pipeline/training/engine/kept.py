"""Keeps what a pass computes, so that a program can look at any blob afterwards, or begin a backward pass there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import NetError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.plan import Place, Read
from pipeline.training.engine.ends import Loss
from pipeline.training.engine.memory import Memories
from pipeline.training.engine.program import Watch

Array = NDArray[np.float32]
Hear = Callable[[int, int, Tensor], None]


class KeptPass:
    """See training/network.Kept.  It watches each pass, and forgets the one before as the next begins.

    Who hears of gradients does not hold what was computed: a pass that held whoever watches it would never be freed.
    """

    def __init__(self, graph: CaffeGraph) -> None:
        self._graph, self._memories = graph, Memories(graph.plan)
        self.bottom_gradient: Hear = _nothing
        self.begin()

    def begin(self, graph: CaffeGraph | None = None) -> None:
        """A pass begins.  graph: the same layers where their blobs have other shapes."""
        self._graph = graph or self._graph
        self._tops: dict[Place, Tensor] = {}
        self._gradients: dict[Place, Tensor] = {}
        self.top_gradient: Hear = partial(_put, self._gradients)

    def settle(self) -> None:
        """The backward pass has ended: values and gradients stay, what computes gradients goes."""
        self._tops = {place: top if top.is_leaf else top.detach() for place, top in self._tops.items()}

    def top(self, step: int, top: int, value: Tensor) -> None:
        self._tops[Place(step, top)] = value

    def value(self, blob: str) -> Array | None:
        read = self._graph.plan.read(blob)
        written = (self._tops[one] for one in reversed(self._writers(read)) if one in self._tops)
        return self._array(next(written, None), read)

    def held(self, place: Place) -> Tensor:
        """What the memory of a top holds after the last pass, in the top's shape; zeros before the first."""
        writers = self._memories.writers.get(self._memories.of[place], [])
        found = next((self._tops[one] for one in reversed(writers) if one in self._tops), None)
        shape = self._graph.declared[place]
        return torch.zeros(shape) if found is None else found.detach().reshape(shape)

    def down_to(self, first: int) -> list[Tensor]:
        """The values that steps from `first` on read of steps before it, and that have gradients."""
        reads = {one.version for step in self._graph.plan.steps[first:] for one in step.reads}
        found = [self._tops[place] for place in reads if place.step < first and place in self._tops]
        return [one for one in found if one.requires_grad]

    def gradient(self, blob: str) -> Array | None:
        read = self._graph.plan.read(blob)
        found = next((one for one in map(self._gradient, self._writers(read)) if one is not None), None)
        return self._array(found, read)

    def _writers(self, read: Read) -> list[Place]:
        """The tops that write a blob's memory, in order."""
        return self._memories.writers.get(self._memories.of[read.view], [])

    def _gradient(self, place: Place) -> Tensor | None:
        top = self._tops.get(place)
        if top is not None and top.is_leaf and top.grad is not None:
            return top.grad
        return self._gradients.get(place)

    def _array(self, found: Tensor | None, read: Read) -> Array | None:
        if found is None:
            return None
        array: Array = found.detach().to("cpu", torch.float32).numpy()
        shape = self._graph.declared.get(read.view, array.shape)
        return array.reshape(shape) if math.prod(shape) == array.size else array

    def back(
        self, losses: Sequence[Loss], seeds: Mapping[Place, Array], last: int, ends: Sequence[Tensor] | None = None
    ) -> None:
        """Runs backward from the seeds, and from each loss up to step `last` that has none.

        ends: the tensors at which it stops; None: at all that have gradients.
        """
        begun = {one.place: torch.full_like(top, one.slope) for one in losses if one.slope and one.place.step <= last
                 and (top := self._tops.get(one.place)) is not None}  # fmt: skip
        for place, seed in seeds.items():
            if place not in self._tops:
                raise no_pass()
            top = self._tops[place]
            begun[place] = torch.from_numpy(np.array(seed, np.float32)).to(top).reshape(top.shape)
        roots = {place: seed for place, seed in begun.items() if self._tops[place].requires_grad}
        if not roots:
            raise NetError(
                "nothing that this backward pass begins with depends on anything that has gradients",
                "no learned blob that learns lies below",
                "set force_backward: true in the net's text for gradients of its data",
            )
        torch.autograd.backward([self._tops[place] for place in roots], list(roots.values()), inputs=ends)


class Both:
    """Two who watch one pass."""

    def __init__(self, one: Watch, other: Watch) -> None:
        self._two = (one, other)
        self.bottom_gradient: Hear = partial(_both, one.bottom_gradient, other.bottom_gradient)
        self.top_gradient: Hear = partial(_both, one.top_gradient, other.top_gradient)

    def top(self, step: int, top: int, value: Tensor) -> None:
        for one in self._two:
            one.top(step, top, value)


def _put(gradients: dict[Place, Tensor], step: int, top: int, gradient: Tensor) -> None:
    gradients[Place(step, top)] = gradient


def _nothing(step: int, bottom: int, gradient: Tensor) -> None:
    """What a layer gives to its bottom is a part of what the blob's maker gets."""


def _both(one: Hear, other: Hear, step: int, number: int, gradient: Tensor) -> None:
    one(step, number, gradient)
    other(step, number, gradient)


def no_pass() -> NetError:
    return NetError("there is no forward pass to go back from", "", "call forward before each backward")
