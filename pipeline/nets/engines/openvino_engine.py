"""OpenVINO on the CPU: the default engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.nets.engines.engine import EngineInfo, Run, environment
from pipeline.nets.lowered import Lowered, Shape
from pipeline.nets.onnx_file import model_of, weights_of


class OpenVino:
    """Weights go over by reference: the model text that OpenVINO parses holds none of them."""

    def __init__(self, precision: str, threads: int, why: str) -> None:
        self.core = openvino.Core()
        if precision == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise NetError("precision bf16 is not there", "this CPU has no bf16 instructions", "use precision fp32")
        if precision not in ("fp32", "bf16"):
            raise NetError(
                f"precision {precision} is not there",
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
            model = self.core.read_model(content)
            for parameter in model.get_parameters():
                name = parameter.get_friendly_name()
                if name in weights:
                    constant = openvino.op.Constant(weights[name], shared_memory=True)
                    parameter.output(0).replace(constant.output(0))
                    model.remove_parameter(parameter)
            model.validate_nodes_and_infer_types()
            compiled = self.core.compile_model(model, "CPU", self.settings)
        except RuntimeError as error:
            raise NetError("OpenVINO does not take the net", _says(error), "try --engine onnxruntime") from error
        return _runner(compiled, {name: name for name in graph.inputs}, {name: f"out:{name}" for name in graph.outputs})

    def compile_model(self, path: Path, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        try:
            model = self.core.read_model(path)
            made = {name for output in model.outputs for name in output.get_names()}
            model.add_outputs([name for name in outputs if name not in made])
            kept = [output for output in model.outputs if output.get_names() & set(outputs)]
            model = openvino.Model([output.node for output in kept], model.get_parameters())
            model.reshape({name: list(shape) for name, shape in shapes.items()})
            ready = openvino.preprocess.PrePostProcessor(model)
            for name in shapes:
                if model.input(name).get_element_type().is_real():
                    ready.input(name).tensor().set_element_type(openvino.Type.f32)
            compiled = self.core.compile_model(ready.build(), "CPU", self.settings)
        except RuntimeError as error:
            raise NetError(
                f"OpenVINO does not take the model {path}", _says(error), "try --engine onnxruntime"
            ) from error
        return _runner(compiled, {name: name for name in shapes}, {name: name for name in outputs})


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
