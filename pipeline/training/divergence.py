"""Why a training diverged: the iteration, the layer and the blob, and the images that it met there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import Diverged
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.training import rates
from pipeline.training.network import Feeds, LearnedBlob, Network
from pipeline.training.rates import Policy

_UNDERFLOWN = -math.log(np.finfo(np.float32).tiny)
"""87.3365: SoftmaxWithLoss of an example whose probability is too small for a float32."""
_LOWER = "lower base_lr, raise iter_size, or set clip_gradients; check the scale and the mean of the data"
_NEAR, _DISPLAYS, _SHORT = 0.01, 5, 10
"""A loss this near to a known one is that one.  It is said after so many displays in a row, and at the end of a
training of so many iterations."""


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


def unmoved(policy: Policy, learned: Iterable[LearnedBlob]) -> Iterator[str]:
    """What there is to say, before the first iteration, of a rate that becomes 0 and stays so."""
    begin = rates.zero_from(policy)
    if begin is None or begin >= policy.max_iter or not any(one.lr_mult for one in learned):
        return
    if begin == 0:
        yield "base_lr is 0: no weight will change. Set base_lr in the solver, e.g. base_lr: 0.01"
    else:
        yield (
            f"gamma is 0: the rate is 0 from iteration {begin} on, and no weight will change any more. "
            "Set gamma in the solver, e.g. gamma: 0.1"
        )


class Hints:
    """What a loss that does not move means, said once each."""

    def __init__(self, graph: CaffeGraph) -> None:
        self._classes = sorted(set(_classes(graph)))
        self._since: dict[str, int] = {}
        self._displays = 0
        self._said: set[str] = set()

    def of(self, iteration: int, loss: float) -> Iterator[str]:
        """What there is to say after the display of this smoothed loss."""
        self._displays += 1
        for name, value, says in self._known():
            self._since[name] = self._since.get(name, 0) + 1 if _is_near(loss, value) else 0
            if self._since[name] >= (1 if name == "underflow" else _DISPLAYS):
                yield from self._once(name, iteration, says)

    def ended(self, iteration: int, trained: int, loss: float) -> Iterator[str]:
        """What there is to say after the last iteration, where the displays were too few.

        trained: iterations of this process.  loss: the smoothed one of the end.
        """
        for name, value, says in self._known():
            stayed = not self._displays or self._since.get(name, 0) > 0
            if trained >= _SHORT and stayed and _is_near(loss, value):
                yield from self._once(name, iteration, says)

    def _once(self, name: str, iteration: int, says: str) -> Iterator[str]:
        if name not in self._said:
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


def _is_near(loss: float, value: float) -> bool:
    return bool(value) and abs(loss - value) <= _NEAR * value


def _classes(graph: CaffeGraph) -> Iterator[int]:
    """The classes that each SoftmaxWithLoss tells apart."""
    for step in graph.plan.steps:
        if step.layer.spec.type == "SoftmaxWithLoss":
            shape = graph.declared.get(step.reads[0].view, ())
            axis = step.layer.spec.softmax_param.axis
            if -len(shape) <= axis < len(shape) and shape[axis] > 1:
                yield shape[axis]
