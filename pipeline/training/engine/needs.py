"""What a backward pass computes: gradients only where a parameter that learns lies below and a loss above (Net::Init).

Caffe stops where a gradient would flow into what has none (labels, a selector, ArgMax); the same is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.caffe.splits import with_splits
from pipeline.nets.graph.caffe_graph import CaffeGraph

_LABELS: dict[str, tuple[int, ...]] = {
    "SoftmaxWithLoss": (1,), "MultinomialLogisticLoss": (1,), "InfogainLoss": (1, 2), "HingeLoss": (1,),
    "SigmoidCrossEntropyLoss": (1,), "Embed": (0,), "BatchReindex": (1,), "Filter": (-1,), "LSTM": (1,), "RNN": (1,),
    "Accuracy": (0, 1),
}  # fmt: skip
"""Bottoms into which Caffe's Backward refuses to write a gradient."""
_NONE = ("ArgMax", "Threshold")
"""Types without any Backward."""


@dataclass(frozen=True, slots=True)
class LayerNeeds:
    """One layer as Caffe sets it up, its automatic Split layers among the others.

    step: of the plan; -1 for an automatic Split.  backward: its Backward is called.  bottoms: the gradients that this
    computes, one by one; parameters likewise.  weights: the loss weight of each top.
    """

    spec: caffe_pb2.LayerParameter
    step: int
    backward: bool
    bottoms: tuple[bool, ...]
    parameters: tuple[bool, ...]
    weights: tuple[float, ...]


def taught(needs: LayerNeeds) -> tuple[bool, ...]:
    """The learned blobs whose gradient its Backward computes: LSTM and RNN do for all, whatever their rates are."""
    recurrent = needs.spec.type in ("LSTM", "RNN") and needs.backward
    return (True,) * len(needs.parameters) if recurrent else needs.parameters


@dataclass
class _Open:
    spec: caffe_pb2.LayerParameter
    step: int
    weights: tuple[float, ...]
    backward: bool = False
    bottoms: list[bool] = field(default_factory=list)
    parameters: list[bool] = field(default_factory=list)


def needs(graph: CaffeGraph, force: bool) -> list[LayerNeeds]:
    """Of each layer in order.  force: the net's force_backward: every gradient is computed.

    Raises SolverError where the text gives loss_weight or propagate_down another number of times than Caffe takes.
    """
    layers = _ahead(graph)
    _back(layers)
    if force:
        _forced(layers)
    return [
        LayerNeeds(one.spec, one.step, one.backward, tuple(one.bottoms), tuple(one.parameters), one.weights)
        for one in layers
    ]


def refuse_no_loss(graph: CaffeGraph, layers: Sequence[LayerNeeds]) -> None:
    """Raises SolverError for a net that nothing could train."""
    if not any(any(one.weights) for one in layers):
        raise SolverError(f"the net {graph.name} has no loss", "no layer has a loss_weight in phase TRAIN",
                          "add a loss layer, e.g. SoftmaxWithLoss")  # fmt: skip


def refuse_labels(graph: CaffeGraph, layers: Sequence[LayerNeeds]) -> None:
    """Raises SolverError for the first layer of which Caffe's Backward would stop the training."""
    for refusal in without_gradient(graph, layers):
        raise refusal


def without_gradient(graph: CaffeGraph, layers: Sequence[LayerNeeds]) -> Iterator[SolverError]:
    """The error of each layer of which Caffe's Backward would stop the training."""
    for one in layers:
        if one.step < 0 or not one.backward:
            continue
        layer, kind = graph.plan.steps[one.step].layer, one.spec.type
        if kind in _NONE:
            yield SolverError(
                f"layer '{layer.name}' ({kind}) has no gradient, but what it reads depends on parameters that learn",
                "Caffe stops here, too",
                "set lr_mult: 0 below it, or propagate_down: false where its result is no part of the loss",
            )
        for index in _LABELS.get(kind, ()):
            index %= len(one.bottoms)
            if one.bottoms[index : index + 1] == (True,):
                yield SolverError(
                    f"layer '{layer.name}' ({kind}) cannot give a gradient to its bottom '{layer.spec.bottom[index]}'",
                    "the blob depends on parameters that learn, and the layer takes it as given; Caffe stops here, too",
                    f"set propagate_down: false for bottom {index}, or feed the blob as data",
                )


def _ahead(graph: CaffeGraph) -> list[_Open]:
    """Layers in order: what lies above a parameter that learns."""
    layers: list[_Open] = []
    needed: dict[str, bool] = {}
    for number, (own, *splits) in enumerate(with_splits([step.layer.spec for step in graph.plan.steps])):
        given = [param.lr_mult != 0 for param in own.param]
        graph.plan.steps[number].layer.complete(own)
        for step, spec in ((number, own), *((-1, split) for split in splits)):
            one = _Open(spec, step, _weights(spec))
            one.bottoms = [needed[blob] for blob in spec.bottom]
            one.backward = any(one.bottoms)
            if spec.propagate_down:
                if len(spec.propagate_down) != len(spec.bottom):
                    raise SolverError(
                        f"layer '{spec.name}' ({spec.type}): propagate_down is given {len(spec.propagate_down)} times",
                        f"it takes none, or one for each of {len(spec.bottom)} bottoms",
                    )
                one.bottoms = list(spec.propagate_down)
            count = len(graph.parameters.slots(number)) if step >= 0 else 0
            one.parameters = [given[index] if index < len(given) else True for index in range(count)]
            one.backward |= any(one.parameters)
            for top in spec.top:
                needed[top] = needed.get(top, False) or one.backward
            layers.append(one)
    return layers


def _weights(spec: caffe_pb2.LayerParameter) -> tuple[float, ...]:
    """The loss weight of each top; a loss whose top has no name has one top all the same."""
    if not spec.loss_weight:
        return (0.0,) * len(spec.top)
    tops = max(1, len(spec.top))
    if len(spec.loss_weight) != tops:
        raise SolverError(
            f"layer '{spec.name}' ({spec.type}) has {len(spec.loss_weight)} loss_weight for {tops} tops",
            "a loss has loss_weight 1 where its text gives none",
            "loss_weight must be unspecified or specified once per top blob",
        )
    return tuple(spec.loss_weight)


def _back(layers: list[_Open]) -> None:
    """Layers from the last one: what lies below a loss, and is asked for."""
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for one in reversed(layers):
        tops = list(one.spec.top) or ["(automatic)"]
        counts = any(weight != 0 for weight in one.weights) or any(top in under_loss for top in one.spec.top)
        if one.backward and all(top in skipped for top in tops):
            one.backward = False
            one.bottoms = [False] * len(one.bottoms)
        if not counts:
            one.backward = False
        for index, blob in enumerate(one.spec.bottom):
            if counts:
                under_loss.add(blob)
            else:
                one.bottoms[index] = False
            if not one.bottoms[index]:
                skipped.add(blob)


def _forced(layers: list[_Open]) -> None:
    for one in layers:
        one.backward = True
        taken = {1} if one.spec.type.endswith("Loss") or one.spec.type in ("LSTM", "RNN") else set[int]()
        taken = {2} if one.spec.type == "ContrastiveLoss" else set() if one.spec.type == "EuclideanLoss" else taken
        one.bottoms = [has or index not in taken for index, has in enumerate(one.bottoms)]
        one.parameters = [True] * len(one.parameters)
