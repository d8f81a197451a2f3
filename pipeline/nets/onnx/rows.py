"""Whether each row of a net's output is its own image's alone: found by following the batch through the graph.

Where a net's rows depend on each other, a feature depends on which images happen to stand beside it.  Every value of
the graph is in one of four states; a rule of each operation (row_layers.py, row_moves.py) says what it makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import defs, helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from pipeline.nets.graph.lowered import Shape
from pipeline.nets.onnx import row_layers, row_moves  # noqa: F401  (importing them fills RULES)
from pipeline.nets.onnx.graph import reads
from pipeline.nets.onnx.row_states import RULES, Free, Mixed, Node, Rows, State, Unknown
from pipeline.nets.verdict import OWN, Verdict

_SMALL = 1 << 16  # numbers: what is computed here, of shapes and indices
_SPREAD = 1 << 24  # and what is only spread over a batch: a token, a place's numbers
_RANDOM = frozenset(("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
                     "RandomUniformLike"))  # fmt: skip


Label = Callable[[onnx.NodeProto], str]


def label_of(node: onnx.NodeProto) -> str:
    """How messages name a node."""
    return f"node '{node.name or next(iter(node.output), '')}' ({node.op_type})"


def look(model: onnx.ModelProto, name: str, shape: Shape, label: Label = label_of) -> Verdict:
    """Follow the batch, the first axis of input `name`, through a model of one output; shape: the input's, whole."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)
    chance = next(_chances(model.graph, label, version), "")
    if chance:
        return Verdict("random", chance)
    if shape[0] < 2:
        return OWN  # one image at a time
    state, last = _Walk(model, name, shape, label, version).state_of(model.graph.output[0].name)
    if isinstance(state, Mixed):
        return Verdict("mixed", state.why)
    if isinstance(state, Unknown) or last is None:
        return Verdict("unknown", state.why if isinstance(state, Unknown) else "its shape is not known")
    if isinstance(state, Free) or state != Rows(0, 1, 1) or last[0] != shape[0]:
        return Verdict("mixed", "its first axis is not the batch")
    return OWN


def _chances(
    graph: onnx.GraphProto, label: Label, version: int, outer: Mapping[str, onnx.TensorProto] | None = None
) -> Iterator[str]:
    """What draws numbers, in the graphs within nodes too.  outer: constants of the graph around it."""
    known = {**(outer or {}), **{one.name: one for one in graph.initializer}}
    for node in graph.node:
        if node.op_type == "Constant":
            known.update((node.output[0], one.t) for one in node.attribute if one.HasField("t"))
        elif node.op_type == "Identity" and node.input[0] in known:  # exporters write equal constants once
            known[node.output[0]] = known[node.input[0]]
    for node in graph.node:
        if node.op_type in _RANDOM or (node.op_type == "Dropout" and _drops(node, known, version)):
            yield f"{label(node)} draws random numbers"
        for attribute in node.attribute:
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _chances(inner, label, version, known)


def _drops(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto], version: int) -> bool:
    """A Dropout as in training."""
    if version < 7:
        return not any(one.name == "is_test" and one.i for one in node.attribute)
    if version < 12 or len(node.input) < 3 or not node.input[2]:
        return False
    given = constants.get(node.input[2])
    return given is None or bool(numpy_helper.to_array(given).any())


class _Walk:
    """The states and shapes of all values, node by node."""

    def __init__(self, model: onnx.ModelProto, name: str, shape: Shape, label: Label, version: int) -> None:
        self._opsets = list(model.opset_import)
        self._version, self._batch, self._label = version, shape[0], label
        self._states: dict[str, State] = {"": Free()}
        self._types: dict[str, onnx.TypeProto] = {}
        for value in model.graph.input:
            self._types[value.name] = value.type
        kind = self._types[name].tensor_type.elem_type if name in self._types else onnx.TensorProto.FLOAT
        self._types[name] = helper.make_tensor_type_proto(kind or onnx.TensorProto.FLOAT, shape)
        self._states.update((value.name, Unknown("it has other inputs")) for value in model.graph.input)
        for tensor in model.graph.initializer:
            self._types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            self._states[tensor.name] = Free(_array(tensor))
        self._states[name] = Rows(0, 1, 1)
        for node in model.graph.node:
            self._enter(node)

    def state_of(self, name: str) -> tuple[State, Shape | None]:
        return self._states.get(name, Unknown("nothing makes it")), self._shape(name)

    def _shape(self, name: str) -> Shape | None:
        kind = self._types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        sizes = kind.tensor_type.shape.dim
        return tuple(one.dim_value for one in sizes) if all(one.HasField("dim_value") for one in sizes) else None

    def _enter(self, node: onnx.NodeProto) -> None:
        states = [self._states.get(name, Unknown("nothing makes it")) for name in reads(node)]
        arrays = self._computed(node, states)
        if arrays is not None:
            for name, array in zip(node.output, arrays, strict=False):
                self._states[name] = Free(array)
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                self._types[name] = helper.make_tensor_type_proto(kind, array.shape)
            return
        for name, kind in self._inferred(node).items():
            self._types[name] = kind
        made = self._made(node, states)
        for place, name in enumerate(node.output):
            self._states[name] = made[min(place, len(made) - 1)]

    def _made(self, node: onnx.NodeProto, states: Sequence[State]) -> Sequence[State]:
        bad = [one for one in states if isinstance(one, Mixed)] + [one for one in states if isinstance(one, Unknown)]
        if bad:
            return bad[:1]
        if all(isinstance(one, Free) for one in states) or _asks_shape(node):
            return [Free()]
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            return [Unknown(f"{self._label(node)}: what it does to a batch is not known here")]
        inputs = states[: len(node.input)]
        if len(states) > len(inputs):
            return [Unknown(f"{self._label(node)} holds graphs of its own")]
        seen = Node(
            node.op_type, tuple(inputs), tuple(self._shape(name) for name in node.input),
            tuple(self._shape(name) for name in node.output if name),  # the optional ones come last
            {one.name: helper.get_attribute_value(one) for one in node.attribute}, self._version, self._batch,
        )  # fmt: skip
        try:
            made = rule(seen)
        except Exception:  # a damaged node holds anything: what it does then only an engine can say
            return [Unknown(f"{self._label(node)} is not as its operation asks for")]
        found = made if isinstance(made, list) else [made]
        return [
            type(one)(f"{self._label(node)} {one.why}") if isinstance(one, Mixed | Unknown) else one for one in found
        ]

    def _computed(self, node: onnx.NodeProto, states: Sequence[State]) -> list[NDArray[Any]] | None:
        """What a node of known values gives: of shapes, indices and what is spread over a batch."""
        if _asks_shape(node):
            shape = self._shape(node.input[0])
            if shape is None:
                return None  # what picks values by what they are gives as many as there are: that is no shape
            if node.op_type == "Size":
                return [np.array(math.prod(shape), np.int64)]
            ends = {one.name: one.i for one in node.attribute}
            return [np.array(shape[ends.get("start", 0) : ends.get("end", len(shape))], np.int64)]
        arrays = [one.array if isinstance(one, Free) else None for one in states]
        known = all(array is not None or not name for array, name in zip(arrays, reads(node), strict=True))
        if not known or node.op_type in _RANDOM or sum(one.size for one in arrays if one is not None) > _SMALL:
            return None
        if node.op_type in _GROWS and not self._stays_small(node, arrays):
            return None
        try:
            graph = helper.make_graph(
                [node], "one", [helper.make_value_info(name, self._types[name]) for name in set(node.input) if name],
                [onnx.ValueInfoProto(name=name) for name in node.output if name],
            )  # fmt: skip
            one = helper.make_model(graph, opset_imports=self._opsets)
            fed = {name: array for name, array in zip(node.input, arrays, strict=False) if name}
            found = ReferenceEvaluator(one).run(None, fed)
        except Exception:  # an operation that the reference lacks or refuses: then its value is not known here
            return None
        return [np.asarray(array) for array in found] if all(isinstance(one, np.ndarray) for one in found) else None

    def _stays_small(self, node: onnx.NodeProto, arrays: Sequence[NDArray[Any] | None]) -> bool:
        numbers = [array for array in arrays if array is not None and array.dtype.kind in "iu"]
        if not numbers:
            return False
        sizes = np.concatenate([array.astype(np.float64).ravel() for array in numbers])
        first = arrays[0].size if arrays[0] is not None else 1
        return bool(np.prod(np.maximum(np.abs(sizes), 1)) * max(first, 1) <= _SPREAD)

    def _inferred(self, node: onnx.NodeProto) -> Mapping[str, onnx.TypeProto]:
        try:
            schema = defs.get_schema(node.op_type, self._version, "" if node.domain == "ai.onnx" else node.domain)
            types = {name: self._types[name] for name in node.input if name in self._types}
            data = {}
            for name in node.input:
                state = self._states.get(name)
                if name and isinstance(state, Free) and state.array is not None and state.array.size <= _SMALL:
                    data[name] = numpy_helper.from_array(state.array, name)
            return dict(shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=self._opsets))
        except Exception:  # C++ errors of many kinds: then its shape is not known here
            return {}


def _asks_shape(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx")


_GROWS = frozenset(("ConstantOfShape", "Expand", "Tile", "Range", "Pad", "OneHot", "Resize", "Upsample"))


def _array(tensor: onnx.TensorProto) -> NDArray[Any] | None:
    if np.prod(tensor.dims, dtype=np.float64) > _SPREAD or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError):
        return None
