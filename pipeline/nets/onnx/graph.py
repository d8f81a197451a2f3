"""What the parts of an ONNX graph say of themselves."""

from __future__ import annotations

import onnx

from pipeline.nets.graph.lowered import Shape


def reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads: its inputs, and what the graphs within it (of an If, a Loop) take from around them."""
    found = list(node.input)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            own = {value.name for value in [*graph.input, *graph.initializer]}
            own.update(name for one in graph.node for name in one.output)
            taken = [*(name for one in graph.node for name in reads(one)), *(value.name for value in graph.output)]
            found += [name for name in taken if name not in own]
    return found


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """As declared; -1 for a size that is free."""
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1
                 for d in value.type.tensor_type.shape.dim)  # fmt: skip


def trouble_of(model: onnx.ModelProto) -> str:
    """What makes it no graph: a name that is no text, a value that two make or that is read before it is made."""
    graph = model.graph
    texts = [one.domain for one in model.opset_import]
    texts += [value.name for value in [*graph.input, *graph.output, *graph.initializer]]
    texts += [text for node in graph.node for text in (node.name, node.op_type, node.domain)]
    texts += [name for node in graph.node for name in [*node.input, *node.output]]
    texts += [attribute.name for node in graph.node for attribute in node.attribute]
    # Where a text is no UTF-8, protobuf gives its bytes.
    damaged = next((text for text in texts if not isinstance(text, str)), None)
    if damaged is not None:
        return f"a name is no UTF-8: {damaged!r}"
    known = {value.name for value in [*graph.input, *graph.initializer]}
    for node in graph.node:  # ONNX wants them in the order in which they can be computed, so there are no circles
        if not any(node.output):
            return f"a node of type {node.op_type} has no output"
        missing = next((name for name in reads(node) if name and name not in known), None)
        if missing is not None:
            return f"'{missing}' is read by a node of type {node.op_type} before anything makes it"
        twice = next((name for name in node.output if name and name in known), None)
        if twice is not None:
            return f"'{twice}' is made twice"
        known.update(node.output)
    return ""
