"""A lowered graph as an ONNX model: what the engines read, and what `hathi net export` writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.nets.graph.lowered import OPSET, Lowered

LARGE = 1024  # bytes; a float constant of more is a weight that an engine may take from memory


def weights_of(graph: Lowered) -> dict[str, NDArray[Any]]:
    """The constants that are large enough to be handed over apart from the model."""
    return {
        name: array for name, array in graph.constants.items() if array.dtype == np.float32 and array.nbytes > LARGE
    }


def model_of(graph: Lowered, apart: Iterable[str] = (), name: str = "net") -> onnx.ModelProto:
    """The model; inputs `in:NAME`, outputs `out:NAME`.  Constants named in `apart` become inputs of it."""
    apart = set(apart)
    nodes = [
        helper.make_node(
            operation.kind, operation.inputs, operation.outputs, name=operation.outputs[0], **operation.attributes
        )
        for operation in graph.operations
    ]
    outputs = []
    for blob, value in graph.outputs.items():
        nodes.append(helper.make_node("Identity", [value.name], [f"out:{blob}"], name=f"out:{blob}"))
        outputs.append(helper.make_tensor_value_info(f"out:{blob}", TensorProto.FLOAT, value.shape))
    shapes = {**graph.inputs, **{key: graph.constants[key].shape for key in graph.constants if key in apart}}
    inputs = [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in shapes.items()]
    inline = [
        numpy_helper.from_array(np.asarray(array, order="C"), key)
        for key, array in graph.constants.items()
        if key not in apart
    ]
    model = helper.make_model(
        helper.make_graph(nodes, name, inputs, outputs, inline),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="hathi",
    )
    model.ir_version = 8  # the lowest that has this opset: read by engines of any age
    return model


def with_plain_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its inputs and outputs named as the blobs are, wherever two would not be the same."""
    graph = model.graph
    taken = {name for node in graph.node for name in node.output}
    names: dict[str, str] = {}
    for value in [*graph.input, *graph.output]:
        plain = value.name.partition(":")[2]
        if plain not in taken:
            names[value.name] = plain
            taken.add(plain)
    for value in [*graph.input, *graph.output]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model
