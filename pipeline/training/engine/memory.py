"""Which layers read, in their backward pass, what a later layer has written in place: Caffe's gradient is wrong there.

In place, Caffe has one memory for a bottom and its top (and for what Flatten, Reshape and Split make of a blob).  A
layer whose Backward reads its own bottom or top then reads what the last in-place layer has left in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pipeline.errors import SolverError
from pipeline.nets.graph.plan import Place, Plan
from pipeline.nets.layers import Layer
from pipeline.nets.layers.inputs import Source


class Reads(NamedTuple):
    """What a Backward reads of the data that its forward pass saw: bottoms and tops, by number."""

    bottoms: tuple[int, ...] = ()
    tops: tuple[int, ...] = ()


def _eltwise(layer: Layer) -> Reads:
    p = layer.spec.eltwise_param
    return Reads(tuple(range(len(layer.spec.bottom)))) if p.operation == p.PROD else Reads()


def _power(layer: Layer) -> Reads:
    p = layer.spec.power_param
    if p.power in (0, 1) or p.scale == 0:
        return Reads()
    return Reads((0,)) if p.power == 2 else Reads((0,), (0,))


def _pooling(layer: Layer) -> Reads:
    return Reads((), (1,)) if len(layer.spec.top) == 2 else Reads()


def _own_copy_in_place(layer: Layer) -> Reads:
    """Scale and PReLU keep a copy of the bottom that they overwrite."""
    own = layer.spec.bottom[0] == layer.spec.top[0]
    return Reads(tuple(range(1 if own else 0, len(layer.spec.bottom))))


def _reduction(layer: Layer) -> Reads:
    p = layer.spec.reduction_param
    return Reads((0,)) if p.operation in (p.ASUM, p.SUMSQ) else Reads()


def _mvn(layer: Layer) -> Reads:
    return Reads((), (0,)) if layer.spec.mvn_param.normalize_variance else Reads()


def _all_bottoms(layer: Layer) -> Reads:
    return Reads(tuple(range(len(layer.spec.bottom))))


def _prob(layer: Layer) -> Reads:
    return Reads((1,), (1,) if len(layer.spec.top) == 2 else ())


_READS: dict[str, Callable[[Layer], Reads]] = {
    "AbsVal": lambda layer: Reads((0,)), "BNLL": lambda layer: Reads((0,)), "Clip": lambda layer: Reads((0,)),
    "Convolution": _all_bottoms, "Deconvolution": _all_bottoms, "ELU": lambda layer: Reads((0,), (0,)),
    "Eltwise": _eltwise, "Embed": _all_bottoms, "Exp": lambda layer: Reads((), (0,)),
    "BatchReindex": lambda layer: Reads((1,)), "InfogainLoss": _prob, "InnerProduct": _all_bottoms,
    "LRN": lambda layer: Reads((0,), (0,)), "LSTM": _all_bottoms, "Log": lambda layer: Reads((0,)), "MVN": _mvn,
    "MultinomialLogisticLoss": _all_bottoms, "PReLU": _own_copy_in_place, "Pooling": _pooling, "Power": _power,
    "RNN": _all_bottoms, "ReLU": lambda layer: Reads((0,)), "Reduction": _reduction, "Scale": _own_copy_in_place,
    "Sigmoid": lambda layer: Reads((), (0,)), "SigmoidCrossEntropyLoss": lambda layer: Reads((1,)),
    "Softmax": lambda layer: Reads((), (0,)), "SoftmaxWithLoss": _prob, "Swish": lambda layer: Reads((), (0,)),
    "TanH": lambda layer: Reads((), (0,)), "HingeLoss": lambda layer: Reads((1,)),
    "ContrastiveLoss": lambda layer: Reads((2,)),
}  # fmt: skip
"""By type; one that is not here reads none, or keeps its own copy."""


def reads(layer: Layer) -> Reads:
    """What a layer's Backward reads of its bottoms and tops."""
    found = _READS.get(layer.spec.type)
    return found(layer) if found else Reads()


HAS_CAFFES = frozenset({
    "BNLL", "Clip", "ContrastiveLoss", "ELU", "Exp", "InfogainLoss", "LRN", "Log", "MVN", "MultinomialLogisticLoss",
    "Power", "ReLU", "Sigmoid", "SigmoidCrossEntropyLoss", "Softmax", "SoftmaxWithLoss", "Swish", "TanH",
})  # fmt: skip
"""The types whose gradient from overwritten blobs can be had as Caffe computes it (backward.OVERWRITTEN)."""


class Overwritten(NamedTuple):
    """The bottoms and tops that a Backward reads after others have written there: number -> who writes it last."""

    bottoms: dict[int, Place]
    tops: dict[int, Place]


class Memories:
    """Of a plan: the memory of each top, and who writes it last.

    of: the memory of each top, named by the top that owns it.  writers: the tops that write each memory, in order.
    """

    def __init__(self, plan: Plan) -> None:
        self.of: dict[Place, Place] = {}
        self.writers: dict[Place, list[Place]] = {}
        self._plan = plan
        for number, step in enumerate(plan.steps):
            spec = step.layer.spec
            for index, blob in enumerate(spec.top):
                here = Place(number, index)
                own = here
                if not isinstance(step.layer, Source):
                    if index < len(spec.bottom) and spec.bottom[index] == blob:
                        own = self.of[step.reads[index].view]
                    elif step.layer.is_shared():
                        own = self.of[step.reads[0].view]
                self.of[here] = own
                if not step.layer.is_shared():
                    self.writers.setdefault(own, []).append(here)

    def overwritten(self, number: int) -> Overwritten:
        """What the step's Backward reads after others have written there.

        Writing that leaves what Backward looks at as it is counts for nothing: Dropout and ReLU keep the signs that
        ReLU looks at, and a Dropout layer that drops nothing writes what was there.
        """
        step = self._plan.steps[number]
        found = Overwritten({}, {})
        wanted = reads(step.layer)
        for index in wanted.bottoms:
            read = step.reads[index]
            memory = self.of[read.view]
            if self._changed(step.layer, memory, read.version.step):
                found.bottoms[index] = self.writers[memory][-1]
        for index in wanted.tops:
            memory = self.of[Place(number, index)]
            if self._changed(step.layer, memory, number):
                found.tops[index] = self.writers[memory][-1]
        return found

    def _changed(self, layer: Layer, memory: Place, after: int) -> bool:
        return any(not self._harmless(layer, writer) for writer in self.writers[memory] if writer.step > after)

    def _harmless(self, layer: Layer, writer: Place) -> bool:
        other = self._plan.steps[writer.step].layer
        kind, spec = other.spec.type, other.spec
        if kind == "Dropout" and not other.state.train:
            return True
        signs = (kind == "ReLU" and spec.relu_param.negative_slope >= 0) or kind == "Dropout"
        if layer.spec.type == "ReLU":
            return signs
        return other is layer and kind == "ELU" and spec.elu_param.alpha >= 0


def refusal(plan: Plan, number: int, over: Overwritten, as_caffe: bool) -> SolverError:
    """The error of a layer whose gradient in Caffe is wrong.  as_caffe: that gradient can be had."""
    layer = plan.steps[number].layer
    writer = next(iter((*over.tops.values(), *over.bottoms.values())))
    last = plan.steps[writer.step].layer
    who = "the layer itself" if last is layer else f"layer '{last.name}' ({last.spec.type})"
    return SolverError(
        f"the gradient of layer '{layer.name}' ({layer.spec.type}) reads the blob '{last.spec.top[writer.top]}', "
        f"which {who} overwrites in place",
        "Caffe accepts this and computes a wrong gradient",
        f"give the top of layer '{last.name}' a name of its own"
        + (", or choose as_caffe (--as-caffe on the command line) to have Caffe's gradient" if as_caffe else ""),
    )
