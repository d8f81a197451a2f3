"""ONNX Runtime on the CPU: an extra engine (docs/nets.md).

Its official builds send events to a statistics service (names and hashes of models, what the host is) and leave an id
in the user's home, unless a variable forbids it before the library initialises.  Here it does, whatever the environment
says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from pipeline.errors import NetError
from pipeline.nets.engines.engine import EngineInfo, Run, environment
from pipeline.nets.graph.banded import banded
from pipeline.nets.graph.lowered import Lowered, Shape
from pipeline.nets.onnx.file import model_of, weights_of
from pipeline.nets.onnx.source import Model

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime


class OnnxRuntime:
    """LRN is rewritten as a banded convolution, which its kernels run 1.2 times faster; weights go by reference."""

    def __init__(self, precision: str, threads: int, why: str) -> None:
        if precision != "fp32":
            raise NetError(
                f"precision {precision} is not available",
                "ONNX Runtime on CPUs computes in fp32",
                "use engine openvino for bf16",
            )
        self.info = EngineInfo("onnxruntime", environment(onnxruntime), precision, why)
        self.threads = threads

    def compile(self, graph: Lowered) -> Run:
        graph = banded(graph)
        weights = weights_of(graph)
        model = model_of(graph, apart=weights)
        options = self._options()
        for name, array in weights.items():  # declared as stored outside; the values come from memory
            tensor = model.graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="memory")
        kept = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
        session = self._session(model.SerializeToString(), options)
        return _runner(session, {name: name for name in graph.inputs}, {name: f"out:{name}" for name in graph.outputs})

    def compile_model(self, model: Model, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        options = self._options()
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in model.apart.values()]
        options.add_external_initializers(list(model.apart), values)
        session = self._session(model.proto.SerializeToString(), options)
        return _runner(session, {name: name for name in shapes}, {name: name for name in outputs})

    def _session(self, model: bytes, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        try:
            return onnxruntime.InferenceSession(
                model,
                options,
                ["CPUExecutionProvider"],
                disabled_optimizers=["Pad_Fusion"],  # it makes pads that its own kernels refuse
            )
        except Exception as error:  # its errors share no base but Exception
            raise NetError("ONNX Runtime refuses the net", str(error).strip(), "try --engine openvino") from error

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are shared with decoding
        if self.threads:
            options.intra_op_num_threads = self.threads
        return options


def _runner(session: onnxruntime.InferenceSession, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Run:
    """inputs, outputs: our names -> the model's."""
    names = list(outputs.values())
    half = {value.name for value in session.get_inputs() if "float16" in value.type}

    def run(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        fed = {
            inner: feeds[name].astype(np.float16) if inner in half else feeds[name] for name, inner in inputs.items()
        }
        values = session.run(names, fed)
        return {name: np.asarray(value, np.float32) for name, value in zip(outputs, values, strict=True)}

    return run
