"""Losses and Accuracy: what a train_val net ends in (NAME_layer.cpp).  Their tops are single numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.nets.graph.lowered import Lowered, Shape, Value
from pipeline.nets.layers.registry import Layer, register, text

TINY = float(np.finfo(np.float32).tiny)  # FLT_MIN, what Caffe takes logarithms of instead of 0
LOG_THRESHOLD = 1e-20
_MODES = caffe_pb2.LossParameter


class _Loss(Layer):
    """A loss without a top gets one without a name, so there may be none."""

    bottoms = (2, 2)
    tops = (0, 1)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        if not bottoms[0] or not bottoms[1] or bottoms[0][0] != bottoms[1][0]:
            raise self.refuse("the data and label should have the same first dimension: "
                              f"{text(bottoms[0])} and {text(bottoms[1])}")  # fmt: skip
        self.check(bottoms)
        return [()] * len(self.spec.top)

    def complete(self, spec: caffe_pb2.LayerParameter) -> None:
        """Its weight is 1 where nobody gives another."""
        if not spec.loss_weight:
            spec.loss_weight.append(1)

    def check(self, bottoms: Sequence[Shape]) -> None:
        """Refuses bottoms that do not belong together."""

    def same_count(self, bottoms: Sequence[Shape]) -> None:
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.refuse(f"its inputs must have the same count: {text(bottoms[0])} and {text(bottoms[1])}")

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        return [self.loss(graph, bottoms)] if self.spec.top else []

    def loss(self, graph: Lowered, bottoms: Sequence[Value]) -> Value:
        raise NotImplementedError

    def normalised(self, graph: Lowered, total: Value, valid: Value | None, outer: int, inner: int, mode: int) -> Value:
        """total divided as LossParameter.normalization says; by at least 1."""
        if mode == _MODES.VALID and valid is not None:
            return graph("Div", [total, graph("Max", [valid, graph.constant(1.0)], ())], ())
        by = outer if mode == _MODES.BATCH_SIZE else 1 if mode == _MODES.NONE else outer * inner
        return graph.mul(total, 1.0 / max(1, by))


def summed(graph: Lowered, x: Value) -> Value:
    """All of it, as one number."""
    flat = graph.reshape(x, (math.prod(x.shape),))
    return graph("ReduceSum", [flat, graph.constant(np.array([0]))], (), keepdims=0)


class Labelled(_Loss):
    """Scores with one label for each place; outer x classes x inner."""

    def class_axis(self, bottom: Shape) -> int:
        return 1

    def extents(self, bottom: Shape) -> tuple[int, int, int]:
        axis = self.class_axis(bottom)
        return math.prod(bottom[:axis]), bottom[axis], math.prod(bottom[axis + 1 :])

    def check(self, bottoms: Sequence[Shape]) -> None:
        outer, _, inner = self.extents(bottoms[0])
        if outer * inner != math.prod(bottoms[1]):
            raise self.refuse(f"number of labels must match number of predictions: {math.prod(bottoms[1])} labels for "
                              f"{outer * inner} places of {text(bottoms[0])}")  # fmt: skip

    def picked(self, graph: Lowered, scores: Value, labels: Value) -> tuple[Value, Value, Value]:
        """Scores as (outer, classes, inner), labels as (outer, 1, inner), and each place's score of its label."""
        outer, classes, inner = self.extents(scores.shape)
        flat = graph.reshape(scores, (outer, classes, inner))
        label = graph.reshape(labels, (outer, 1, inner))
        safe = graph("Clip", [label, graph.constant(0.0), graph.constant(float(classes - 1))], label.shape)
        index = graph("Cast", [safe], label.shape, to=7)
        return flat, label, graph("GatherElements", [flat, index], label.shape, axis=1)

    @staticmethod
    def kept(graph: Lowered, label: Value, ignore: int | None) -> Value | None:
        """1 where the label counts, else 0; None when all do."""
        if ignore is None:
            return None
        same = graph("Equal", [label, graph.constant(float(ignore))], label.shape)
        return graph("Sub", [graph.constant(1.0), graph("Cast", [same], label.shape, to=1)], label.shape)


@register("Accuracy")
class Accuracy(Labelled):
    """The part of places whose label is among the top_k scores; a second top has it for each class."""

    tops = (1, 2)

    def complete(self, spec: caffe_pb2.LayerParameter) -> None:
        """It is no loss to Caffe."""

    def class_axis(self, bottom: Shape) -> int:
        return self.axis(self.spec.accuracy_param.axis, bottom)

    def check(self, bottoms: Sequence[Shape]) -> None:
        super().check(bottoms)
        top_k, classes = self.spec.accuracy_param.top_k, self.extents(bottoms[0])[1]
        if top_k > classes:
            raise self.refuse(f"top_k {top_k} must be at most the number of classes, {classes}")

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        """It looks at the number of labels alone, where a loss looks at the first axis as well."""
        self.check(bottoms)
        return [(), (self.extents(bottoms[0])[1],)][: len(self.spec.top)]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        p = self.spec.accuracy_param
        scores, label, true = self.picked(graph, *bottoms)
        at_least = graph("GreaterOrEqual", [scores, true], scores.shape)
        better = graph("ReduceSum", [graph("Cast", [at_least], scores.shape, to=1), graph.constant(np.array([1]))],
                       label.shape, keepdims=1)  # fmt: skip
        right = graph("Less", [better, graph.constant(p.top_k + 1.0)], label.shape)
        right = graph("Cast", [right], label.shape, to=1)
        kept = self.kept(graph, label, p.ignore_label if p.HasField("ignore_label") else None)
        kept = kept or graph.constant(np.ones(label.shape, np.float32))
        tops = [_ratio(graph, summed(graph, graph.mul(right, kept)), summed(graph, kept))]
        if len(self.spec.top) == 2:
            tops.append(self._each(graph, label, graph.mul(right, kept), kept, scores.shape[1]))
        return tops

    def _each(self, graph: Lowered, label: Value, right: Value, kept: Value, classes: int) -> Value:
        names = graph.constant(np.arange(classes, dtype=np.float32).reshape(1, classes, 1))
        shape = (label.shape[0], classes, label.shape[2])
        mine = graph("Cast", [graph("Equal", [label, names], shape)], shape, to=1)
        axes = graph.constant(np.array([0, 2]))
        sums = [graph("ReduceSum", [graph.mul(mine, part), axes], (classes,), keepdims=0) for part in (right, kept)]
        return _ratio(graph, *sums)


def _ratio(graph: Lowered, part: Value, whole: Value) -> Value:
    """part / whole; 0 where the whole is 0 (then so is the part)."""
    return graph("Div", [part, graph("Max", [whole, graph.constant(1.0)], whole.shape)], whole.shape)


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(Labelled):
    """The mean of -log softmax(score)[label]; a second top has the softmax."""

    tops = (0, 2)

    def class_axis(self, bottom: Shape) -> int:
        return self.axis(self.spec.softmax_param.axis, bottom)

    def shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        super().shapes(bottoms)
        return [(), bottoms[0]][: len(self.spec.top)]

    def lower(self, graph: Lowered, bottoms: Sequence[Value], parameters: Sequence[Value]) -> list[Value]:
        scores, p = bottoms[0], self.spec.loss_param
        outer, _, inner = self.extents(scores.shape)
        prob = graph("Softmax", [scores], scores.shape, axis=self.class_axis(scores.shape))
        label = graph.reshape(bottoms[1], (outer, 1, inner))
        kept = self.kept(graph, label, p.ignore_label if p.HasField("ignore_label") else None)
        total = self.total(graph, prob, bottoms, kept)
        valid = None if kept is None else summed(graph, kept)
        return [self.normalised(graph, total, valid, outer, inner, self.mode), prob][: len(self.spec.top)]

    @property
    def mode(self) -> int:
        """What the sum is divided by: LossParameter.normalization, or what the older `normalize` says."""
        p = self.spec.loss_param
        old = not p.HasField("normalization") and p.HasField("normalize")
        return (_MODES.VALID if p.normalize else _MODES.BATCH_SIZE) if old else p.normalization

    def total(self, graph: Lowered, prob: Value, bottoms: Sequence[Value], kept: Value | None) -> Value:
        """The sum over all places that are kept."""
        _, _, true = self.picked(graph, prob, bottoms[1])
        lost = graph("Log", [graph("Max", [true, graph.constant(TINY)], true.shape)], true.shape)
        lost = graph("Neg", [lost], true.shape)
        return summed(graph, lost if kept is None else graph.mul(lost, kept))


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(Labelled):
    """The mean of -log p[label]: an item's values are all its classes."""

    def extents(self, bottom: Shape) -> tuple[int, int, int]:
        return bottom[0], math.prod(bottom[1:]), 1

    def loss(self, graph: Lowered, bottoms: Sequence[Value]) -> Value:
        _, _, true = self.picked(graph, *bottoms)
        logs = graph("Log", [graph("Max", [true, graph.constant(LOG_THRESHOLD)], true.shape)], true.shape)
        return graph.mul(summed(graph, logs), -1.0 / bottoms[0].shape[0])


@register("HingeLoss")
class HingeLoss(Labelled):
    """The mean over items of the sum (L2: of squares) of max(0, 1 - s) for the label, else max(0, 1 + s)."""

    def extents(self, bottom: Shape) -> tuple[int, int, int]:
        return bottom[0], math.prod(bottom[1:]), 1

    def loss(self, graph: Lowered, bottoms: Sequence[Value]) -> Value:
        scores, label, _ = self.picked(graph, *bottoms)
        names = graph.constant(np.arange(scores.shape[1], dtype=np.float32).reshape(1, -1, 1))
        mine = graph("Cast", [graph("Equal", [label, names], scores.shape)], scores.shape, to=1)
        sign = graph("Sub", [graph.constant(1.0), graph.mul(mine, 2.0)], scores.shape)
        margin = graph("Relu", [graph.add(graph.mul(scores, sign), 1.0)], scores.shape)
        if self.spec.hinge_loss_param.norm == caffe_pb2.HingeLossParameter.L2:
            margin = graph.mul(margin, margin)
        return graph.mul(summed(graph, margin), 1.0 / scores.shape[0])


@register("EuclideanLoss")
class EuclideanLoss(_Loss):
    """Half the mean over items of the squared distance."""

    def check(self, bottoms: Sequence[Shape]) -> None:
        self.same_count(bottoms)

    def loss(self, graph: Lowered, bottoms: Sequence[Value]) -> Value:
        first, second = bottoms
        gap = graph("Sub", [first, graph.reshape(second, first.shape)], first.shape)
        return graph.mul(summed(graph, graph.mul(gap, gap)), 0.5 / first.shape[0])


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(_Loss):
    """Sum of max(x, 0) - x t + log(1 + exp(-|x|)), by default divided by the batch."""

    def check(self, bottoms: Sequence[Shape]) -> None:
        self.same_count(bottoms)

    def loss(self, graph: Lowered, bottoms: Sequence[Value]) -> Value:
        x, p = bottoms[0], self.spec.loss_param
        target = graph.reshape(bottoms[1], x.shape)
        small = graph("Exp", [graph("Neg", [graph("Abs", [x], x.shape)], x.shape)], x.shape)
        logs = graph("Log", [graph.add(small, 1.0)], x.shape)
        lost = graph.add(graph("Sub", [graph("Relu", [x], x.shape), graph.mul(x, target)], x.shape), logs)
        valid = None
        if p.HasField("ignore_label"):
            whole = graph("Cast", [graph("Cast", [target], x.shape, to=7)], x.shape, to=1)
            kept = Labelled.kept(graph, whole, p.ignore_label)
            assert kept is not None
            lost, valid = graph.mul(lost, kept), summed(graph, kept)
        return self.normalised(graph, summed(graph, lost), valid, x.shape[0], math.prod(x.shape[1:]), self.mode)

    @property
    def mode(self) -> int:
        """What the sum is divided by: the batch where nothing else is said."""
        p = self.spec.loss_param
        if p.HasField("normalization"):
            return p.normalization
        return _MODES.VALID if p.HasField("normalize") and p.normalize else _MODES.BATCH_SIZE


@register("ContrastiveLoss")
class ContrastiveLoss(_Loss):
    """Half the mean of d^2 for pairs that belong together and max(0, margin - d)^2 for others."""

    bottoms = (3, 3)

    def check(self, bottoms: Sequence[Shape]) -> None:
        if bottoms[0] != bottoms[1]:
            raise self.refuse(f"its first two bottoms differ: {text(bottoms[0])} and {text(bottoms[1])}")
        if math.prod(bottoms[2]) != bottoms[0][0]:
            raise self.refuse(f"its third bottom must hold one number a pair: {text(bottoms[2])}")

    def loss(self, graph: Lowered, bottoms: Sequence[Value]) -> Value:
        p, items = self.spec.contrastive_loss_param, bottoms[0].shape[0]
        gap = graph("Sub", list(bottoms[:2]), bottoms[0].shape)
        flat = graph.reshape(graph.mul(gap, gap), (items, math.prod(gap.shape[1:])))
        square = graph("ReduceSum", [flat, graph.constant(np.array([1]))], (items,), keepdims=0)
        near = square if p.legacy_version else graph("Sqrt", [square], (items,))
        apart = graph("Relu", [graph("Sub", [graph.constant(p.margin), near], (items,))], (items,))
        apart = apart if p.legacy_version else graph.mul(apart, apart)
        label = graph("Cast", [graph("Cast", [graph.reshape(bottoms[2], (items,))], (items,), to=7)], (items,), to=9)
        return graph.mul(summed(graph, graph("Where", [label, square, apart], (items,))), 0.5 / items)
