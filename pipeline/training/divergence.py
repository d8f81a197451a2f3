"""Why a training diverged: the iteration, the layer and the blob, and the images that it met there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import Diverged
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.training.network import Feeds, LearnedBlob, Network

_UNDERFLOWN = -math.log(np.finfo(np.float32).tiny)
"""87.3365: SoftmaxWithLoss of an example whose probability is too small for a float32."""
_LOWER = "lower base_lr, raise iter_size, or set clip_gradients; check the scale and the mean of the data"
_NEAR, _DISPLAYS = 0.01, 5


def kept(path: Path, feeds: Feeds | None, keys: Mapping[str, Sequence[str]]) -> str:
    """Keeps a batch at `path`, with the keys of its examples; what a message says of it.

    feeds: of the batch; None where a program has computed the gradients, so that there is none.
    """
    if feeds is None:
        return "a program gave the gradients"
    first = next((key for of in keys.values() for key in of), "")
    which = f"the batch (from {first} on)" if first else "the batch"
    names = {f"keys:{layer}": np.array(list(of)) for layer, of in keys.items()}
    try:
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{**feeds, **names})
    except OSError as error:  # the divergence is what a person has to know
        return f"{which} could not be kept at {path}: {error.strerror or error}"
    return f"{which} is kept: {path}"


def explained(iteration: int, net: Network, feeds: Feeds, images: str) -> Diverged:
    """The error of a loss that is not finite.  images: what `kept` says."""
    found = net.first_not_finite(feeds)
    if found is None:
        return Diverged(f"iteration {iteration}: the loss is not finite", f"every blob is; {images}", _LOWER)
    kind = "the gradient of blob" if found.gradient else "blob"
    says = f"iteration {iteration}: {kind} '{found.blob}' of layer '{found.layer}' is the first that is not finite"
    return Diverged(says, f"the loss is not finite; {images}", _LOWER)


def update(iteration: int, blob: LearnedBlob, rate: float, images: str) -> Diverged:
    """The error of an update that is not finite, though the loss is.  images: what `kept` says."""
    says = f"iteration {iteration}: the update of learned blob {blob.slot.blob} of layer '{blob.layer}' is not finite"
    return Diverged(says, f"rate {rate:g}; {images}", _LOWER)


def weights(iteration: int, blob: LearnedBlob) -> Diverged:
    """The error of weights that are not finite: they are not written."""
    says = f"iteration {iteration}: learned blob {blob.slot.blob} of layer '{blob.layer}' is not finite"
    return Diverged(says, "no snapshot is written; the one before stays", _LOWER)


class Hints:
    """What a loss that does not move means, said once each."""

    def __init__(self, graph: CaffeGraph) -> None:
        self._classes = sorted(set(_classes(graph)))
        self._since: dict[str, int] = {}
        self._said: set[str] = set()

    def of(self, iteration: int, loss: float) -> Iterator[str]:
        """What there is to say after the display of this smoothed loss."""
        for name, value, says in self._known():
            if name in self._said:
                continue
            near = abs(loss - value) <= _NEAR * value if value else False
            self._since[name] = self._since.get(name, 0) + 1 if near else 0
            if self._since[name] >= (1 if name == "underflow" else _DISPLAYS):
                self._said.add(name)
                yield f"Iteration {iteration}: {says}"

    def _known(self) -> Iterator[tuple[str, float, str]]:
        yield (
            "underflow", _UNDERFLOWN,
            f"a loss of {_UNDERFLOWN:.4f} is -log of the smallest float32: the net gives the label no probability at "
            f"all. {_LOWER[0].upper()}{_LOWER[1:]}",
        )  # fmt: skip
        for classes in self._classes:
            yield (
                f"chance {classes}", math.log(classes),
                f"the loss stays at ln({classes}) = {math.log(classes):.4f}: the net guesses among {classes} classes. "
                "Check that labels belong to their images and are shuffled, and the rate: too low or too high",
            )  # fmt: skip


def _classes(graph: CaffeGraph) -> Iterator[int]:
    """The classes that each SoftmaxWithLoss tells apart."""
    for step in graph.plan.steps:
        if step.layer.spec.type == "SoftmaxWithLoss":
            shape = graph.declared.get(step.reads[0].view, ())
            axis = step.layer.spec.softmax_param.axis
            if -len(shape) <= axis < len(shape) and shape[axis] > 1:
                yield shape[axis]
