"""torch: the engine for GPUs; it computes on the CPU where there is none.

Channels last, TF32 off, half precision by choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import NetError
from pipeline.nets.engines.engine import EngineInfo, Run, environment
from pipeline.nets.engines.torch_operations import OPERATIONS
from pipeline.nets.lowered import Lowered, Operation, Shape

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Torch:
    def __init__(self, precision: str, threads: int, why: str) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if precision == "fp16" and self.device.type == "cpu":
            raise NetError("precision fp16 is not there", "torch has no GPU here", "use precision fp32 or bf16")
        torch.backends.cuda.matmul.allow_tf32 = False  # fp32 means fp32
        torch.backends.cudnn.allow_tf32 = False
        if threads and self.device.type == "cpu":
            torch.set_num_threads(threads)
        self.dtype = _DTYPES[precision]
        where = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        self.info = EngineInfo("torch", f"{environment(torch)} on {where}", precision, why)

    def compile(self, graph: Lowered) -> Run:
        missing = sorted({operation.kind for operation in graph.operations} - OPERATIONS.keys())
        if missing:
            raise NetError("torch does not take the net", f"operations {', '.join(missing)}", "use another engine")
        indices = {
            name for operation in graph.operations if operation.kind == "Gather" for name in operation.inputs[1:]
        }
        constants = {name: self._placed(array, name in indices) for name, array in graph.constants.items()}
        done = _last_uses(graph)
        wanted = {blob: value.name for blob, value in graph.outputs.items()}

        def run(feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
            with torch.inference_mode():
                values = {**constants, **{name: self._fed(feeds[name]) for name in graph.inputs}}
                for number, operation in enumerate(graph.operations):
                    _compute(operation, values)
                    for name in done.get(number, ()):
                        del values[name]
                return {blob: values[name].float().contiguous().cpu().numpy().copy() for blob, name in wanted.items()}

        return run

    def compile_model(self, path: Path, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        raise NetError("torch runs Caffe nets only", str(path), "use engine openvino or onnxruntime for ONNX models")

    def _placed(self, array: NDArray[np.float32] | NDArray[np.int64], index: bool) -> Tensor:
        """Weights go to the device; shapes and counts stay here, where they are read as numbers."""
        tensor = torch.from_numpy(np.array(array))
        if array.dtype == np.int64:
            return tensor.to(self.device) if index else tensor
        return self._laid(tensor.to(self.device, self.dtype))

    def _fed(self, array: NDArray[np.float32]) -> Tensor:
        """Images in the net's precision; what is no image may hold numbers of classes or words, and stays exact."""
        tensor = torch.from_numpy(np.array(array)).to(self.device)
        return self._laid(tensor.to(self.dtype) if tensor.ndim == 4 else tensor)

    @staticmethod
    def _laid(tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _compute(operation: Operation, values: dict[str, Tensor]) -> None:
    found = OPERATIONS[operation.kind]([values[name] for name in operation.inputs], operation.attributes)
    outputs = [found] if isinstance(found, Tensor) else found
    values.update(zip(operation.outputs, outputs, strict=True))


def _last_uses(graph: Lowered) -> dict[int, list[str]]:
    """After which operation each computed value is needed no more."""
    kept = {value.name for value in graph.outputs.values()}
    last: dict[str, int] = {}
    for number, operation in enumerate(graph.operations):
        for name in (*operation.outputs, *operation.inputs):
            if name in graph.shapes and name not in kept:
                last[name] = number
    found: dict[int, list[str]] = {}
    for name, number in last.items():
        found.setdefault(number, []).append(name)
    return found
