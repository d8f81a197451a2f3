"""OpenVINO on the CPU: the default engine.

OpenVINO sends an event to a statistics service as it is imported, from a fork of the process that imports it, where the
package openvino_telemetry can be imported.  It cannot be imported here, whatever is installed; our locks leave it out,
too.  OpenVINO then takes a stand-in of its own, which sends nothing.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.nets.engines.engine import EngineInfo, Run, environment
from pipeline.nets.graph.lowered import Lowered, Shape
from pipeline.nets.onnx.file import model_of, weights_of
from pipeline.nets.onnx.source import Model

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # whoever imports it gets an ImportError
import openvino  # noqa: E402


@functools.cache
def _core() -> openvino.Core:
    """The only one of this process, kept to its end.

    A core gives the thread that makes it a stack for signals, and takes it away as it is deleted: of two that are not
    deleted in reverse order, the second puts back the first's stack, which is gone, and the next signal kills the
    process.
    """
    return openvino.Core()


class OpenVino:
    """Weights go over by reference: the model text that OpenVINO parses holds none of them."""

    def __init__(self, precision: str, threads: int, why: str) -> None:
        self.core = _core()
        if precision == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NetError("precision bf16 is not available", "this CPU has no bf16 instructions", "use precision fp32")
        if precision not in ("fp32", "bf16"):
            raise NetError(
                f"precision {precision} is not available",
                "OpenVINO on CPUs computes in fp32 or bf16",
                "use precision fp32, or engine torch on a GPU",
            )
        self.info = EngineInfo("openvino", environment(openvino), precision, why)
        self.settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "ENABLE_CPU_PINNING": "NO",  # the cores are shared with decoding
            **({"INFERENCE_NUM_THREADS": str(threads)} if threads else {}),
        }

    def compile(self, graph: Lowered) -> Run:
        weights = weights_of(graph)
        content = model_of(graph, apart=weights).SerializeToString()
        try:
            model = self._read(content, weights)
            compiled = self.core.compile_model(model, "CPU", self.settings)
        except RuntimeError as error:
            raise NetError("OpenVINO refuses the net", _says(error), "try --engine onnxruntime") from error
        return _runner(compiled, {name: name for name in graph.inputs}, {name: f"out:{name}" for name in graph.outputs})

    def _read(self, content: bytes, weights: Mapping[str, NDArray[Any]]) -> openvino.Model:
        """The model with its weights, which stand in it as inputs, put in by reference."""
        model = self.core.read_model(content)
        for parameter in model.get_parameters():
            name = parameter.get_friendly_name()
            if name in weights:
                constant = openvino.op.Constant(weights[name], shared_memory=True)
                parameter.output(0).replace(constant.output(0))
                model.remove_parameter(parameter)
        if weights:
            model.validate_nodes_and_infer_types()
        return model

    def compile_model(self, model: Model, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        try:
            read = self._read(_with_inputs_for(model).SerializeToString(), model.apart)
            _reshape(read, model.name, shapes)
            ready = openvino.preprocess.PrePostProcessor(read)
            for name in shapes:
                if read.input(name).get_element_type().is_real():
                    ready.input(name).tensor().set_element_type(openvino.Type.f32)
            compiled = self.core.compile_model(ready.build(), "CPU", self.settings)
        except RuntimeError as error:
            raise NetError(
                f"OpenVINO refuses the model {model.name}", _says(error), "try --engine onnxruntime"
            ) from error
        return _runner(compiled, {name: name for name in shapes}, {name: name for name in outputs})


def _reshape(read: openvino.Model, name: str, shapes: Mapping[str, Shape]) -> None:
    try:
        read.reshape({blob: list(shape) for blob, shape in shapes.items()})
    except RuntimeError as error:
        fed = ", ".join(f"{blob} {' x '.join(map(str, shape))}" for blob, shape in shapes.items())
        raise NetError(
            f"the model {name} does not compute {fed}",
            _says(error),
            "give the size that it was made for (input_size, --input-size), or another batch size",
        ) from error


def _with_inputs_for(model: Model) -> onnx.ModelProto:
    """The model with an input in the place of each weight that it does not hold itself."""
    if not model.apart:
        return model.proto
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    graph = proto.graph
    outside = [one for one in graph.initializer if one.name in model.apart]
    inside = [one for one in graph.initializer if one.name not in model.apart]
    inputs = [onnx.helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in outside]
    others = [value for value in graph.input if value.name not in model.apart]
    for field, values in (("initializer", inside), ("input", [*others, *inputs])):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    return proto


def _says(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]


def _runner(compiled: openvino.CompiledModel, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Run:
    """inputs, outputs: our names -> the model's."""
    request = compiled.create_infer_request()
    places = {name: compiled.output(inner) for name, inner in outputs.items()}

    def run(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        request.infer({inner: feeds[name] for name, inner in inputs.items()}, share_inputs=True)
        return {name: np.array(request.get_tensor(place).data, np.float32) for name, place in places.items()}

    return run
