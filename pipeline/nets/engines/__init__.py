"""Engines by name, and which one "auto" means."""

from __future__ import annotations

import importlib.util

from pipeline.errors import NetError
from pipeline.nets.engines.engine import Engine, EngineInfo

__all__ = ["NAMES", "Engine", "EngineInfo", "choose", "installed"]

NAMES = ("openvino", "onnxruntime")
_MODULES = {"pycaffe": "caffe"}
_WHY_OPENVINO = "the fastest on CPUs in our measurements"


def installed() -> list[str]:
    """The engines that can be chosen here, the one that "auto" means first."""
    return [name for name in NAMES if importlib.util.find_spec(_MODULES.get(name, name))]


def choose(name: str = "auto", precision: str = "fp32", threads: int = 0) -> Engine:
    """The engine of that name; threads: cores that it may use, 0 for all.

    Raises NetError when it is not installed or lacks the precision.
    """
    if name not in (*NAMES, "auto"):
        raise NetError(f"unknown engine {name!r}", f"known: auto, {', '.join(NAMES)}")
    why = "asked for" if name != "auto" else ""
    if name in ("auto", "openvino") and importlib.util.find_spec("openvino"):
        from pipeline.nets.engines.openvino_engine import OpenVino

        return OpenVino(precision, threads, why or f"auto: {_WHY_OPENVINO}")
    if name in ("auto", "onnxruntime") and importlib.util.find_spec("onnxruntime"):
        from pipeline.nets.engines.onnxruntime_engine import OnnxRuntime

        return OnnxRuntime(precision, threads, why or "auto: OpenVINO is not installed")
    raise NetError(f"engine {name} is not installed", "", "pip install openvino, or the extra hathi[onnxruntime]")
