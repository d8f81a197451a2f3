"""What operations that move values, and products of matrices, do to a batch (row_states.py)."""

from __future__ import annotations

import math

import numpy as np

from pipeline.nets.onnx.row_states import (
    ACROSS,
    NO_SHAPE,
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


@rule("Reshape Flatten Squeeze Unsqueeze")
def reshaped(node: Node) -> State:
    """Values stay in their order; the batch must come to lie within one axis."""
    state, shape, out = alone(node), node.shapes[0], node.outs[0]
    if not isinstance(state, Rows):
        return state
    if shape is None or out is None or 0 in (*shape, *out):
        return NO_SHAPE
    stride = state.inner * math.prod(shape[state.axis + 1 :])
    for axis in range(len(out)):
        below, whole = math.prod(out[axis + 1 :]), math.prod(out[axis:])
        if stride % below == 0 and whole % (stride * node.batch) == 0:
            return Rows(axis, whole // (stride * node.batch), stride // below)
    return Unknown("parts the batch into several axes")


@rule("Transpose")
def transposed(node: Node) -> State:
    state, shape = alone(node), node.shapes[0]
    if not isinstance(state, Rows) or shape is None:
        return NO_SHAPE if shape is None else state
    order = list(node.attribute("perm", range(len(shape))[::-1]))
    return Rows(order.index(state.axis), state.outer, state.inner)


@rule("Concat")
def concat(node: Node) -> State:
    out = node.outs[0]
    if out is None:
        return NO_SHAPE
    axis = node.attribute("axis", 1) % len(out)
    rows = next(one for one in node.inputs if isinstance(one, Rows))
    if rows.axis == axis:
        parts = [one for one in node.inputs if isinstance(one, Rows) and (one.axis, one.inner) == (axis, rows.inner)]
        if len(parts) < len(node.inputs):
            return Mixed("puts items of the batch and others into one batch")
        return Rows(axis, sum(one.outer for one in parts), rows.inner)  # batch behind batch, as for mirrored images
    return spread(node, zip(node.inputs, node.shapes, strict=True), out)


@rule("Split Slice Pad Tile")
def parted(node: Node) -> State:
    """It may take or add something along any axis but the batch."""
    state, shape, out = alone(node), node.shapes[0], node.outs[0]
    if not isinstance(state, Rows):
        return state
    if shape is None or out is None:
        return NO_SHAPE
    if out[state.axis] != shape[state.axis]:
        if node.kind == "Tile":
            return Rows(state.axis, state.outer * (out[state.axis] // shape[state.axis]), state.inner)
        if (state.outer, state.inner) != (1, 1):
            return Unknown("takes a part of what holds the batch")
        return Mixed("takes some items of the batch, or adds some")
    if node.kind == "Slice" and not _in_order(node, state.axis, len(shape)):
        return Unknown("may turn the batch round")
    if node.kind == "Pad" and not _not_shifted(node, state.axis, len(shape)):
        return Unknown("may shift the batch")
    return state


def _in_order(node: Node, axis: int, rank: int) -> bool:
    if node.version < 10 or len(node.inputs) < 5:
        return True  # no steps
    steps, axes = node.array(4), node.array(3)
    if steps is None:
        return False
    named = list(range(rank)) if axes is None else [int(one) % rank for one in axes.ravel()]
    return all(step > 0 for one, step in zip(named, steps.ravel(), strict=False) if one == axis)


def _not_shifted(node: Node, axis: int, rank: int) -> bool:
    pads = node.attribute("pads") if node.version < 11 else node.array(1)
    if pads is None or len(node.inputs) > 3:
        return False
    flat = np.asarray(pads).ravel()
    return len(flat) == 2 * rank and flat[axis] == 0 == flat[rank + axis]


@rule("Gather")
def gather(node: Node) -> State:
    """Some of an axis, by number."""
    data, index = node.inputs[:2]
    shape, out = node.shapes[0], node.outs[0]
    if shape is None or out is None or node.shapes[1] is None:
        return NO_SHAPE
    axis = node.attribute("axis", 0) % len(shape)
    if isinstance(index, Rows):
        return Rows(axis + index.axis, index.outer, index.inner) if isinstance(data, Free) else (
            Unknown("takes from images what images say"))  # fmt: skip
    assert isinstance(data, Rows)
    if data.axis == axis:
        array = node.array(1)
        same = array is not None and array.ndim == 1 and np.array_equal(array, np.arange(shape[axis]))
        return data if same else Mixed("takes items of the batch by number")
    added = len(node.shapes[1]) - 1 if axis < data.axis else 0
    return Rows(data.axis + added, data.outer, data.inner)


@rule("GatherElements")
def gather_elements(node: Node) -> State:
    shape, out = node.shapes[0], node.outs[0]
    if shape is None or out is None:
        return NO_SHAPE
    found = spread(node, zip(node.inputs, node.shapes, strict=True), out)
    if isinstance(found, Rows) and found.axis == node.attribute("axis", 0) % len(shape):
        return Mixed("takes items of the batch by number")
    return found


@rule("MatMul MatMulInteger")
def matmul(node: Node) -> State:
    (a, b), (left, right), out = node.inputs[:2], node.shapes[:2], node.outs[0]
    if left is None or right is None or out is None:
        return NO_SHAPE
    if len(left) < 2 or len(right) < 2 or not all(isinstance(one, Free) for one in node.inputs[2:]):
        return Unknown("multiplies by a vector, or by what images say")
    zeros = zip((a, b), node.shapes[2:], strict=False)
    if any(isinstance(one, Rows) and math.prod(shape or ()) > 1 for one, shape in zeros):
        return Unknown("has zero points for rows")
    if (isinstance(a, Rows) and a.axis == len(left) - 1) or (isinstance(b, Rows) and b.axis == len(right) - 2):
        return Mixed("sums up over the batch")
    own = (isinstance(a, Rows) and a.axis == len(left) - 2) or (isinstance(b, Rows) and b.axis == len(right) - 1)
    if own and isinstance(a, Rows) and isinstance(b, Rows):
        return ACROSS
    pairs = [(a, left), (b, right)]
    rows = spread(node, [pair for pair in pairs if isinstance(pair[0], Rows)], out)
    for state, shape in pairs if isinstance(rows, Rows) and not own else ():
        assert isinstance(rows, Rows)
        at = rows.axis - len(out) + len(shape)
        trouble = unequal(state, shape, at, rows, node.batch) if isinstance(state, Free) and at >= 0 else None
        if trouble is not None:
            return trouble
    return rows


@rule("Gemm")
def gemm(node: Node) -> State:
    a, b = node.inputs[:2]
    out = node.outs[0]
    if out is None:
        return NO_SHAPE
    if isinstance(a, Rows) and isinstance(b, Rows):
        return ACROSS
    if isinstance(a, Rows) or isinstance(b, Rows):
        rows, turned = (a, node.attribute("transA", 0)) if isinstance(a, Rows) else (b, not node.attribute("transB", 0))
        assert isinstance(rows, Rows)
        if rows.axis != (1 if turned else 0):
            return Mixed("sums up over the batch")
        product = Rows(0 if isinstance(a, Rows) else 1, rows.outer, rows.inner)
        return spread(node, [(product, out), *zip(node.inputs[2:], node.shapes[2:], strict=True)], out)
    return spread(node, zip(node.inputs[2:], node.shapes[2:], strict=True), out)


@rule("Einsum")
def einsum(node: Node) -> State:
    text = node.attribute("equation", b"")
    equation = text.decode(errors="replace").replace(" ", "")
    takes, arrow, gives = equation.partition("->")
    letters = takes.split(",")
    if not arrow or "." in equation or len(letters) != len(node.inputs):
        return Unknown("has an equation that is not followed here")
    found: tuple[str, int, int] | None = None
    for names, state in zip(letters, node.inputs, strict=True):
        if isinstance(state, Rows):
            here = (names[state.axis], state.outer, state.inner)
            if names.count(here[0]) > 1 or (found is not None and found != here):
                return ACROSS
            found = here
    assert found is not None
    if found[0] not in gives:
        return Mixed("sums up over the batch")
    rows = Rows(gives.index(found[0]), found[1], found[2])
    for names, state, shape in zip(letters, node.inputs, node.shapes, strict=True):
        if isinstance(state, Free) and found[0] in names:
            trouble = NO_SHAPE if shape is None else unequal(state, shape, names.index(found[0]), rows, node.batch)
            if trouble is not None:
                return trouble
    return rows
