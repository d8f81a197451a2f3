"""What a pass ends in: the losses with their weights, and the blobs that nothing of the net reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.plan import Place
from pipeline.training.engine.lowering import Trained
from pipeline.training.engine.needs import LayerNeeds
from pipeline.training.network import Output


class Loss(NamedTuple):
    """A top with a loss weight.  slope: what its gradient begins with; 0 where a reader's Backward overwrites it.

    blob: its name; empty where it has none.  state: a name for its gradient, where a reader overwrites it: then it is
    the weight in the next pass, as Layer::Forward takes the weight from the top's diff; else empty.
    """

    place: Place
    blob: str
    weight: float
    slope: float
    state: str = ""


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
        for blob in one.spec.bottom:
            left.pop(blob, None)
        tops = list(one.spec.top) or [""] * len(one.weights)
        for number, (blob, weight) in enumerate(zip(tops, one.weights, strict=True)):
            source = one.spec.bottom[0] if one.step < 0 else blob
            if blob:
                left[blob], sources[blob] = weight, source
            if weight:
                top = list(graph.plan.steps[step].layer.spec.top).index(source) if source else 0
                place = Place(step, top if one.step < 0 else number)
                state = f"{one.spec.name}/{blob}" if _overwritten(blob, layers[index + 1 :]) else ""
                losses.append(Loss(place, source, weight, 0.0 if state else weight, state))
    shapes = graph.shapes
    outputs = [Output(blob, shapes[sources[blob]], weight) for blob, weight in sorted(left.items())]
    return Ends(losses, outputs, sources)


def _overwritten(blob: str, following: Sequence[LayerNeeds]) -> bool:
    """Whether the Backward of a later layer writes the blob's gradient: a Split layer's, or that of its one reader."""
    for one in following:
        reads = zip(one.spec.bottom, one.bottoms, strict=True)
        if one.backward and any(bottom == blob and has for bottom, has in reads):
            return True
        if blob in one.spec.top:
            return False
    return False


def value_of(net: Trained, loss: Loss) -> str:
    """The value of a loss; of a layer that shares memory, its blob's."""
    found = net.tops.get(loss.place)
    return net.graph.outputs[loss.blob].name if found is None else found
