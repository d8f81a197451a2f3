"""What a pass ends in: the losses with their weights, and the blobs that nothing of the net reads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.plan import Place
from pipeline.training.engine.lowering import Trained
from pipeline.training.engine.needs import LayerNeeds
from pipeline.training.network import Output


class Loss(NamedTuple):
    """A top with a loss weight.  slope: what its gradient begins with; 0 where a Split layer's gradient replaces it.

    blob: its name; empty where it has none.
    """

    place: Place
    blob: str
    weight: float
    slope: float


class Ends(NamedTuple):
    """sources: the blob whose values each output has: its own, or of an automatic Split layer's copy the original."""

    losses: list[Loss]
    outputs: list[Output]
    sources: dict[str, str]


def ends(graph: CaffeGraph, layers: Sequence[LayerNeeds]) -> Ends:
    """Outputs are sorted by name, as Caffe's set of blobs that are left is."""
    losses: list[Loss] = []
    left: dict[str, float] = {}
    sources: dict[str, str] = {}
    step = 0
    for index, one in enumerate(layers):
        step = step if one.step < 0 else one.step
        following = list(takewhile(lambda other: other.step < 0, layers[index + 1 :]))
        for blob in one.spec.bottom:
            left.pop(blob, None)
        tops = list(one.spec.top) or [""] * len(one.weights)
        for number, (blob, weight) in enumerate(zip(tops, one.weights, strict=True)):
            source = one.spec.bottom[0] if one.step < 0 else blob
            if blob:
                left[blob], sources[blob] = weight, source
            if weight:
                top = list(graph.plan.steps[step].layer.spec.top).index(source) if source else 0
                replaced = any(other.backward and blob in other.spec.bottom for other in following)
                place = Place(step, top if one.step < 0 else number)
                losses.append(Loss(place, source, weight, 0.0 if replaced else weight))
    shapes = graph.shapes
    outputs = [Output(blob, shapes[sources[blob]], weight) for blob, weight in sorted(left.items())]
    return Ends(losses, outputs, sources)


def value_of(net: Trained, loss: Loss) -> str:
    """The value of a loss; of a layer that shares memory, its blob's."""
    found = net.tops.get(loss.place)
    return net.graph.outputs[loss.blob].name if found is None else found
