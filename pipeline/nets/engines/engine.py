"""What an engine is: it compiles a lowered graph once and runs it many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.lowered import Lowered

Run = Callable[[Mapping[str, NDArray[np.float32]]], dict[str, NDArray[np.float32]]]
"""Feeds by input name -> values by blob name; arrays float32, C order, of the shapes that the graph has."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which engine runs a net, and why that one."""

    name: str
    version: str
    precision: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}, {self.precision} ({self.why})"


class Engine(Protocol):
    info: EngineInfo

    def compile(self, graph: Lowered) -> Run:
        """Raises NetError when the engine does not take the graph."""
        ...


class ModelEngine(Engine, Protocol):
    """An engine that reads ONNX models too."""

    def compile_model(self, model: bytes | str, shapes: Mapping[str, tuple[int, ...]], outputs: list[str]) -> Run: ...


def environment(module: Any) -> str:
    return str(getattr(module, "__version__", "unknown")).split("-")[0]
