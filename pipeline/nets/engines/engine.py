"""What an engine is: it compiles a lowered graph once and runs it many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Lowered, Shape

if TYPE_CHECKING:
    from pipeline.nets.onnx.source import Model

Run = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[np.float32]]]
"""Feeds by input name -> values by blob name, C order, of the shapes that the graph has.

All are float32, save what an ONNX model's input declares as whole numbers or truths.
"""


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
        """A lowered net: fed `in:NAME`, gives blobs by name.  Raises NetError when the engine does not take it."""
        ...

    def compile_model(self, model: Model, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        """An ONNX model for inputs of these shapes, fed and asked by its own names."""
        ...


def environment(module: Any) -> str:
    return str(getattr(module, "__version__", "unknown")).split("-")[0]
