"""What an ONNX model is made of: the facts behind `hathi net show`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import shape_inference

from pipeline.nets.graph.lowered import Shape
from pipeline.nets.inspection import LayerRow
from pipeline.nets.onnx.graph import shape_of
from pipeline.nets.onnx.net import OnnxNet


def layers(net: OnnxNet, blobs: Sequence[str], size: tuple[int, int] | None = None) -> list[LayerRow]:
    """One row a node, for images of `size` (height, width) where the model leaves that free.

    -1: a size that is free.  None: a shape that ONNX cannot infer, or a cost that depends on it.  A weight counts with
    the first node that reads it.  Multiply-adds are those of one image.
    """
    model = net.source.graph()
    if size is not None:
        _of_size(model, net.inputs, size)
    shapes = _shapes(model)
    batch = _for_one_image(model, net.inputs_of(blobs[0]) if blobs else ())
    for_one = _shapes(model)
    weights: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    needed = net.needed(blobs)
    rows, counted = [], set[str]()
    for node in model.graph.node:
        tops = tuple(name for name in node.output if name)
        own = [name for name in dict.fromkeys(node.input) if name in weights and name not in counted]
        counted.update(own)
        cost = _multiply_adds(node, {**for_one, **weights})
        rows.append(
            LayerRow(
                name=node.name or tops[0],
                kind=node.op_type,
                tops=tops,
                shapes=tuple(shapes.get(top, for_one.get(top)) for top in tops),
                parameters=sum(math.prod(weights[name]) for name in own),
                multiply_adds=None if cost is None else cost // batch,
                needed=any(top in needed for top in tops),
            )
        )
    return rows


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except (shape_inference.InferenceError, ValueError):  # what it cannot follow, or more than 2 GB: as declared
        graph = model.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: shape_of(value) for value in values if value.type.tensor_type.HasField("shape")}


def _for_one_image(model: onnx.ModelProto, names: Sequence[str]) -> int:
    """Makes a free batch 1, without which shapes that are computed are not known; the batch that the model has then."""
    batch = 1
    for value in model.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if value.name in names and sizes:
            if not sizes[0].dim_value > 0:
                sizes[0].dim_value = 1
            batch = max(batch, sizes[0].dim_value)
    for value in [*model.graph.output, *model.graph.value_info]:
        value.type.tensor_type.ClearField("shape")
    return batch


def _of_size(model: onnx.ModelProto, inputs: Mapping[str, Shape], size: tuple[int, int]) -> None:
    """Gives images whose height and width are free this size."""
    for value in model.graph.input:
        shape = inputs.get(value.name, ())
        if len(shape) == 4:
            first = 1 if shape[3] == 3 and shape[1] != 3 else 2
            for axis, side in zip((first, first + 1), size, strict=True):
                if shape[axis] < 1:
                    value.type.tensor_type.shape.dim[axis].dim_value = side
    for value in [*model.graph.output, *model.graph.value_info]:
        for axis in range(1, len(value.type.tensor_type.shape.dim)):
            if not value.type.tensor_type.shape.dim[axis].dim_value:
                value.type.tensor_type.shape.dim[axis].ClearField("dim_param")


def _multiply_adds(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int | None:
    """Where weights meet values; 0 for what costs little, None where shapes are not known."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    if len(node.input) < 2 or not node.output:
        return None
    first, second, out = (shapes.get(name, ()) for name in (*node.input[:2], node.output[0]))
    if not first or not second or not out:
        return None
    if node.op_type == "MatMul":
        each, over = first[-1], out
    elif node.op_type == "Gemm":
        turned = any(one.name == "transA" and one.i for one in node.attribute)
        each, over = first[0 if turned else -1], out
    else:
        each, over = math.prod(second[1:]), first if node.op_type == "ConvTranspose" else out
    return each * math.prod(over) if each > 0 and all(size > 0 for size in over) else None
