"""ONNX Runtime on the CPU: an extra engine (`pip install hathi[onnxruntime]`)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from pipeline.errors import NetError
from pipeline.nets.banded import banded
from pipeline.nets.engines.engine import EngineInfo, Run, environment
from pipeline.nets.lowered import Lowered
from pipeline.nets.onnx_file import model_of, weights_of


class OnnxRuntime:
    """LRN is rewritten as a banded convolution, which its kernels run 1.2 times faster; weights go by reference."""

    def __init__(self, precision: str, threads: int, why: str) -> None:
        if precision != "fp32":
            raise NetError(
                f"precision {precision} is not there",
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
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=["Pad_Fusion"]
            )  # it makes pads it refuses
        except Exception as error:  # its errors share no base but Exception
            raise NetError("ONNX Runtime does not take the net", str(error).strip(), "try --engine openvino") from error
        names, outputs = list(graph.inputs), list(graph.outputs)

        def run(feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
            values = session.run([f"out:{name}" for name in outputs], {name: feeds[name] for name in names})
            return dict(zip(outputs, values, strict=True))

        return run

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self.threads:
            options.intra_op_num_threads = self.threads
        return options
