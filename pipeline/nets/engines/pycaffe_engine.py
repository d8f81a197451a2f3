"""Caffe itself, by its Python module: for whoever has it and wants its own numbers.

The interface is that of Caffe 1.0's python/caffe/_caffe.cpp and pycaffe.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.engines.engine import EngineInfo, Run, environment
from pipeline.nets.graph.lowered import Lowered, Shape

if TYPE_CHECKING:
    from pipeline.nets.onnx.source import Model


class PyCaffe:
    """On the CPU, in fp32; its BLAS takes as many threads as OPENBLAS_NUM_THREADS or OMP_NUM_THREADS say.

    It opens a net's files, not a lowered graph: `PyCaffeNet` is the net that runs on it.
    """

    def __init__(self, precision: str, threads: int, why: str) -> None:
        if precision != "fp32":
            raise NetError(f"precision {precision} is not available", "Caffe computes in fp32", "use precision fp32")
        self._caffe = _imported()
        self.info = EngineInfo("pycaffe", environment(self._caffe), precision, why)

    def compile(self, graph: Lowered) -> Run:
        raise NetError(
            "Caffe cannot run a lowered net", "it opens the net's own files", "load the net with engine pycaffe"
        )

    def compile_model(self, model: Model, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        raise NetError("pycaffe runs Caffe nets only", model.name, "use engine openvino or onnxruntime for ONNX models")

    def open(self, path: Path, weights: Path | None, state: caffe_pb2.NetState) -> Any:
        """A caffe.Net.  Raises NetError where it raises; what Caffe checks with glog ends the process instead."""
        self._caffe.set_mode_cpu()
        phase = self._caffe.TRAIN if state.phase == caffe_pb2.TRAIN else self._caffe.TEST
        given = {"weights": str(weights)} if weights else {}
        try:
            return self._caffe.Net(str(path), phase, level=state.level, stages=list(state.stage), **given)
        except RuntimeError as error:
            raise NetError(f"Caffe refuses the net {path}", str(error), "try --engine auto") from error


def _imported() -> Any:
    try:
        found = importlib.import_module("caffe")
    except ImportError as error:
        raise NetError("engine pycaffe: `import caffe` does not work", str(error), HINT) from error
    if not hasattr(found, "Net"):
        where = getattr(found, "__file__", None) or list(getattr(found, "__path__", ["unknown"]))
        raise NetError("engine pycaffe: the module that `import caffe` finds is not Caffe", f"{where} has no Net", HINT)
    return found


HINT = "build Caffe's Python module (make pycaffe) and put its folder on PYTHONPATH, or use engine auto"
