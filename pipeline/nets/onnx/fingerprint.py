"""The fingerprint of an ONNX model's output: its operations and weights, not its names, comments or order."""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.errors import NetError
from pipeline.nets.digests import digest, hashed
from pipeline.nets.onnx.graph import reads
from pipeline.nets.onnx.source import Model


def of_model(whole: Model, blob: str) -> str:
    """Hex SHA-256 of what `blob` depends on.  Operations are hashed from the inputs on, each with its attributes."""
    model = whole.proto
    graph = model.graph
    known: dict[str, Any] = {"": "absent"}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in weights:
            known[value.name] = ["input", value.name]
    makers = {name: node for node in graph.node for name in node.output if name}
    open_names = [blob]
    while open_names:
        name = open_names[-1]
        if name in known:
            open_names.pop()
        elif name in weights:
            known[name] = _tensor(weights[name], whole.apart.get(name))
        else:
            missing = [source for source in reads(makers[name]) if source not in known]
            open_names += missing
            if not missing:
                _enter(known, makers[name])
    versions = sorted((one.domain, one.version) for one in model.opset_import)
    return hashed(["onnx", versions, known[blob]])


def _enter(known: dict[str, Any], node: onnx.NodeProto) -> None:
    attributes = sorted((one.name, _attribute(one)) for one in node.attribute)
    inputs = [known[name] for name in reads(node)]
    for place, name in enumerate(node.output):
        known[name] = hashed([node.domain, node.op_type, attributes, inputs, place])


def _attribute(attribute: onnx.AttributeProto) -> str:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return hashed(_tensor(attribute.t))
    plain = onnx.AttributeProto()
    plain.CopyFrom(attribute)
    plain.doc_string = ""
    content: bytes = plain.SerializeToString(deterministic=True)
    return content.hex()


def _tensor(tensor: onnx.TensorProto, apart: NDArray[Any] | None = None) -> list[Any]:
    try:
        array = numpy_helper.to_array(tensor) if apart is None else apart
    except (ValueError, TypeError, KeyError) as error:
        raise NetError(f"the weight {tensor.name!r} is damaged", str(error), "fetch the model again") from error
    return [tensor.data_type, list(array.shape), digest(array)]
