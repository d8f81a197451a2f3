"""What operations that compute do to a batch (row_states.py).  Of one without a rule a probe has to tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pipeline.nets.onnx.row_states import (
    ACROSS,
    NO_SHAPE,
    PLACES,
    Free,
    Mixed,
    Node,
    Rows,
    State,
    Unknown,
    alone,
    rule,
    spread,
    unequal,
)


@rule("Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike "
      "Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Expand Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish "
      "Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal "
      "Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh "
      "ThresholdedRelu Where Xor")  # fmt: skip
def each_value(node: Node) -> State:
    """One value of each input, with numpy's broadcasting."""
    out = node.outs[0]
    if out is None:
        return NO_SHAPE
    if node.version < 7 and node.attribute("broadcast", 0):
        return Unknown("puts numbers beside images as before opset 7")
    pairs = list(zip(node.inputs, node.shapes, strict=True))
    return spread(node, pairs[:1] if node.kind in ("Expand", "Clip", "CastLike") else pairs, out)


@rule("AveragePool Conv ConvInteger ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool "
      "GroupNormalization InstanceNormalization LRN LpPool MaxPool QLinearConv Resize SpaceToDepth Upsample "
      "ImageScaler")  # fmt: skip
def each_item(node: Node) -> list[State]:
    """Whatever it does, it does to each item of the first axis."""
    state = alone(node)
    if not isinstance(state, Rows):
        return [state]
    if state.axis != 0:
        return [Unknown("is given the batch on another axis than the first")]
    before, after = node.shapes[0], node.outs[0]
    if before is None or after is None:
        return [NO_SHAPE]
    if before[0] != after[0]:
        return [ACROSS]
    if node.kind in ("Resize", "Upsample") and _moves_batch(node, len(before)):
        return [Unknown("may move values along the batch")]
    return [state, Unknown("counts places through the whole batch")]  # the second output of MaxPool


def _moves_batch(node: Node, rank: int) -> bool:
    """A batch may keep its length and yet be scaled, by less than one item; or be cut out of a part of itself."""
    axes = [axis % rank for axis in node.attribute("axes", range(rank))]
    if 0 not in axes:
        return False
    if node.attribute("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return True
    if node.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        return True
    if len(node.shapes) > 3 and node.shapes[3]:
        return False  # by sizes, and the batch has kept its own
    scales = node.attribute("scales")
    if scales is None:
        scales = node.array(1 if node.kind == "Upsample" or node.version < 11 else 2)
    return scales is None or len(scales) != len(axes) or float(scales[axes.index(0)]) != 1.0


@rule("BatchNormalization")
def batch_normalization(node: Node) -> State | list[State]:
    if node.version >= 14:
        training = bool(node.attribute("training_mode", 0))
    elif node.version >= 7:
        training = len(node.outs) > 1
    else:
        training = not node.attribute("is_test", 0)
    if training:
        return Mixed("takes mean and variance from the batch, as in training")
    return each_item(node)


@rule("Dropout")
def dropout(node: Node) -> State:
    return alone(node)


def _axes(node: Node, rank: int, default: Sequence[int] | None) -> list[int] | None:
    """The axes that an operation names, by attribute or as its second input; None: not known."""
    given = node.attribute("axes")
    if given is None and len(node.inputs) > 1 and node.shapes[1] is not None:
        array = node.array(1)
        if array is None:
            return None
        given = array.ravel().tolist()
    if not given:
        given = [] if node.attribute("noop_with_empty_axes", 0) else default if default is not None else range(rank)
    return [axis % rank for axis in given if -rank <= axis < rank]


@rule("ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
      "ReduceSumSquare")  # fmt: skip
def reduced(node: Node) -> State:
    state, shape = alone(node), node.shapes[0]
    if not isinstance(state, Rows) or shape is None:
        return NO_SHAPE if shape is None else state
    axes = _axes(node, len(shape), None)
    return Unknown("has axes that are not known") if axes is None else _without(node, state, axes)


def _without(node: Node, rows: Rows, axes: Sequence[int]) -> State:
    if rows.axis in axes:
        return Mixed("sums up or compares over the batch")
    before = 0 if node.attribute("keepdims", 1) else sum(axis < rows.axis for axis in set(axes))
    return Rows(rows.axis - before, rows.outer, rows.inner)


@rule("ArgMax ArgMin")
def argument(node: Node) -> State:
    state, shape = alone(node), node.shapes[0]
    if not isinstance(state, Rows) or shape is None:
        return NO_SHAPE if shape is None else state
    return _without(node, state, [node.attribute("axis", 0) % len(shape)])


@rule("Softmax LogSoftmax Hardmax LayerNormalization RMSNormalization LpNormalization MeanVarianceNormalization CumSum "
      "TopK SimplifiedLayerNormalization")  # fmt: skip
def along(node: Node) -> State:
    """It reads whole axes, and keeps them."""
    state, shape = alone(node), node.shapes[0]
    if not isinstance(state, Rows) or shape is None:
        return NO_SHAPE if shape is None else state
    rank = len(shape)
    if node.kind == "MeanVarianceNormalization":
        axes: Iterable[int] = [axis % rank for axis in node.attribute("axes", (0, 2, 3))]
    elif node.kind == "CumSum":
        array = node.array(1)
        if array is None:
            return Unknown("has an axis that is not known")
        axes = [int(array.ravel()[0]) % rank]
    else:
        old = node.version < 13 and node.kind in ("Softmax", "LogSoftmax", "Hardmax")
        axis = node.attribute("axis", 1 if old else -1) % rank
        to_the_end = old or node.kind in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
        axes = range(axis, rank) if to_the_end else [axis]
    return Mixed("reads along the batch") if state.axis in axes else state


@rule("QuantizeLinear DequantizeLinear")
def quantized(node: Node) -> State:
    state, shape, scales = alone(node), node.shapes[0], node.shapes[1]
    if not isinstance(state, Rows) or shape is None or scales is None:
        return NO_SHAPE if isinstance(state, Rows) else state
    if len(scales) > 1:
        return Unknown("has scales for blocks of values")
    many = math.prod(scales) > 1
    return PLACES if many and state.axis == node.attribute("axis", 1) % len(shape) else state


@rule("DynamicQuantizeLinear")
def dynamic(node: Node) -> State:
    return Mixed("takes its scale from the whole batch")


@rule("NonMaxSuppression NonZero Unique")
def chosen(node: Node) -> State:
    return Mixed("gives as many rows as the whole batch has places that it picks")


@rule("Compress")
def compressed(node: Node) -> State:
    state, shape, axis = alone(node), node.shapes[0], node.attribute("axis")
    if not isinstance(state, Rows) or shape is None or axis is None or axis % len(shape) == state.axis:
        return Mixed("gives as many rows as the whole batch has places that it picks")
    return state


@rule("LSTM GRU RNN")
def recurrent(node: Node) -> list[State]:
    state = node.inputs[0]
    if not isinstance(state, Rows) or not all(isinstance(one, Free) for one in node.inputs[1:]):
        return [Unknown("is given states by images")]
    batch_first = bool(node.attribute("layout", 0))
    if state.axis != (0 if batch_first else 1):
        return [Mixed("takes the items of the batch as steps in time")]
    for place in (4, 5, 6):  # lengths and first states, along the batch
        one = node.inputs[place] if place < len(node.inputs) else None
        shape = node.shapes[place] if place < len(node.shapes) else None
        if isinstance(one, Free) and shape:
            trouble = unequal(one, shape, 0 if place == 4 or batch_first else 1, state, node.batch)
            if trouble is not None:
                return [trouble]
    last = Rows(0 if batch_first else 1, state.outer, state.inner)
    return [last if batch_first else Rows(2, state.outer, state.inner), last, last]


@rule("Trilu")
def trilu(node: Node) -> State:
    state, shape = alone(node), node.shapes[0]
    if not isinstance(state, Rows) or shape is None:
        return NO_SHAPE if shape is None else state
    return state if state.axis < len(shape) - 2 else PLACES
