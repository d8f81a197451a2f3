"""torch: the engine for GPUs; it computes on the CPU where there is none.

Channels last; TF32 only as a precision of its own; half precision by choice; on a GPU each shape is one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import NetError
from pipeline.nets.engines.engine import EngineInfo, Run, environment
from pipeline.nets.engines.torch_operations import OPERATIONS
from pipeline.nets.engines.torch_program import Program
from pipeline.nets.graph.lowered import Lowered, Shape

if TYPE_CHECKING:
    from pipeline.nets.onnx.source import Model

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WARM = 3  # passes before a graph is recorded: cuDNN chooses its algorithms and takes its memory in them

Arrays = dict[str, NDArray[np.float32]]


class Torch:
    """precision: "fp32"; "tf32" (a GPU's ten-bit products for fp32 values), "fp16" (GPU only), "bf16"."""

    def __init__(self, precision: str, threads: int, why: str) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if precision in ("fp16", "tf32") and self.device.type == "cpu":
            raise NetError(
                f"precision {precision} is not available",
                "torch finds no GPU on this host",
                "use precision fp32 or bf16",
            )
        if threads and self.device.type == "cpu":
            torch.set_num_threads(threads)
        self.dtype, self.tf32 = DTYPES[precision], precision == "tf32"
        where = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        self.info = EngineInfo("torch", f"{environment(torch)} on {where}", precision, why)

    def compile(self, graph: Lowered) -> Run:
        missing = sorted({operation.kind for operation in graph.operations} - OPERATIONS.keys())
        if missing:
            raise NetError(
                "torch cannot run the net", f"it has no operations {', '.join(missing)}", "use another engine"
            )
        program = Program(graph, self.device, self.dtype)
        if self.device.type == "cpu":
            return self._eager(program)
        with exact(self.tf32), torch.inference_mode():
            return _captured(program, graph.inputs)

    def compile_model(self, model: Model, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        raise NetError("torch runs Caffe nets only", model.name, "use engine openvino or onnxruntime for ONNX models")

    def _eager(self, program: Program) -> Run:
        def run(feeds: Mapping[str, NDArray[np.float32]]) -> Arrays:
            with exact(self.tf32), torch.inference_mode():
                found = program({name: torch.from_numpy(np.array(feeds[name])) for name in program.inputs})
                return {blob: value.numpy().copy() for blob, value in found.items()}

        return run


@contextmanager
def exact(tf32: bool) -> Iterator[None]:
    """fp32 means fp32 within, whatever the process has set for itself; tf32: its products may have ten bits."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    cudnn.benchmark = cudnn.deterministic = True  # one fixed shape: the fastest of those that repeat their bits
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


def _captured(program: Program, shapes: Mapping[str, Shape]) -> Run:
    """The pass as one CUDA graph: launching its kernels one by one costs more than the small ones compute.

    What is fed and what comes back goes through locked memory, which the card copies by itself.
    """
    fed = {name: torch.zeros(shapes[name], device="cuda") for name in program.inputs}
    found, recorded = _recorded(lambda: program(fed))
    sent = {name: torch.empty(shapes[name], pin_memory=True) for name in fed}
    back = {blob: torch.empty(value.shape, pin_memory=True) for blob, value in found.items()}

    def run(feeds: Mapping[str, NDArray[np.float32]]) -> Arrays:
        with torch.inference_mode():
            for name, target in fed.items():
                sent[name].numpy()[...] = feeds[name]
                target.copy_(sent[name], non_blocking=True)
            recorded.replay()
            for blob, value in found.items():
                back[blob].copy_(value, non_blocking=True)
            torch.cuda.current_stream().synchronize()
            return {blob: value.numpy().copy() for blob, value in back.items()}

    return run


def _recorded(work: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], torch.cuda.CUDAGraph]:
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        found = work()
    return found, recorded
