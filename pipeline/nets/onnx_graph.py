"""What the parts of an ONNX graph say of themselves."""

from __future__ import annotations

import onnx

from pipeline.nets.lowered import Shape


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
