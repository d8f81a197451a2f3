"""Engines by name, and which one "auto" means."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import NetError
from pipeline.nets.engines.engine import Engine, EngineInfo
from pipeline.process.installed import to_install

__all__ = ["NAMES", "Engine", "EngineInfo", "choose", "installed"]

NAMES = ("openvino", "onnxruntime", "torch", "pycaffe")
_MODULES = {"pycaffe": "caffe"}
_CAFFE_ONLY = ("torch", "pycaffe")
_GPU = Path("/dev/nvidia0")


def installed() -> list[str]:
    """The engines that can be chosen here."""
    found = {name: importlib.util.find_spec(_MODULES.get(name, name)) for name in NAMES}
    return [name for name, spec in found.items() if spec is not None and spec.origin]


def choose(name: str = "auto", precision: str = "fp32", threads: int = 0, *, model: bool = False) -> Engine:
    """The engine of that name; threads: cores that it may use, 0 for all; model: it is to run an ONNX model.

    "auto": torch for Caffe nets where there is a GPU for it, else OpenVINO, which needs the least CPU time an image
    of the CPU engines (tests/benchmarks/nets_speed.py), else ONNX Runtime.
    Never pycaffe, which is there for its own numbers: it is several times slower than each of the others, and ends the
    whole process on whatever it does not take.
    Raises NetError when it is not installed, lacks the precision, or runs no ONNX models.
    """
    if name not in (*NAMES, "auto"):
        raise NetError(f"unknown engine {name!r}", f"known: auto, {', '.join(NAMES)}")
    here = installed()
    if model and name in _CAFFE_ONLY:
        raise NetError(f"engine {name} runs Caffe nets only", "", "use engine openvino or onnxruntime for ONNX models")
    if name != "auto":
        if name not in here:
            detail = f"installed: {', '.join(here) or 'none'}"
            raise NetError(f"engine {name} is not installed", detail, _how_to_install(name))
        return _MAKERS[name](precision, threads, "asked for")
    if "torch" in here and not model and _GPU.exists() and _cuda():
        return _torch(precision, threads, "auto: this host has a GPU")
    if "openvino" in here:
        return _openvino(precision, threads, "auto: the fastest on CPUs in our measurements")
    if "onnxruntime" in here:
        return _onnxruntime(precision, threads, "auto: OpenVINO is not installed")
    raise NetError("no engine is installed", "", to_install("onnxruntime"))


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _how_to_install(name: str) -> str:
    if name == "pycaffe":
        return "build Caffe's Python module (make pycaffe) and put its folder on PYTHONPATH, or use engine auto"
    return to_install(name)


def _openvino(precision: str, threads: int, why: str) -> Engine:
    from pipeline.nets.engines.openvino_engine import OpenVino

    return OpenVino(precision, threads, why)


def _onnxruntime(precision: str, threads: int, why: str) -> Engine:
    from pipeline.nets.engines.onnxruntime_engine import OnnxRuntime

    return OnnxRuntime(precision, threads, why)


def _torch(precision: str, threads: int, why: str) -> Engine:
    from pipeline.nets.engines.torch_engine import Torch

    return Torch(precision, threads, why)


def _pycaffe(precision: str, threads: int, why: str) -> Engine:
    from pipeline.nets.engines.pycaffe_engine import PyCaffe

    return PyCaffe(precision, threads, why)


_MAKERS: dict[str, Callable[[str, int, str], Engine]] = {
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "pycaffe": _pycaffe,
}
