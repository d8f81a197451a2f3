"""A stand-in for Caffe's Python module, as far as the engine uses it; the arithmetic is ONNX Runtime's.

It shows that the module's interface is used rightly, and nothing of what real Caffe computes.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from pipeline import nets
from pipeline.nets.caffe_net import CaffeNet


class Blob:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.data = np.zeros(shape, np.float32)

    def reshape(self, *shape: int) -> None:
        if shape != self.data.shape:
            self.data = np.zeros(shape, np.float32)


class Net:
    opened: list[Net]

    def __init__(self, file: str, phase: int, level: int = 0, stages: Any = None, weights: str | None = None) -> None:
        names = {0: "TRAIN", 1: "TEST"}
        net = nets.load(file, weights, engine="onnxruntime", phase=names[phase], level=level, stages=stages or ())
        assert isinstance(net, CaffeNet)
        self.net, self.asked, self.ends = net, (names[phase], level, stages), list[str | None]()
        self.blobs = {name: Blob(shape) for name, shape in net.graph.shapes.items()}
        self.params: dict[str, list[Blob]] = {}
        for slot, shape in net.parameters.shapes.items():
            self.params.setdefault(net.plan.steps[slot.step].layer.name, []).append(Blob(shape))
        Net.opened.append(self)

    def forward(self, end: str | None = None) -> None:
        """All layers up to `end`; blobs that only later layers make stay as they are."""
        self.ends.append(end)
        names = [step.layer.name for step in self.net.plan.steps]
        last = names.index(end) if end else len(names) - 1
        made = [name for name, read in self.net.plan.blobs.items() if max(self.net.plan.needed([read])) <= last]
        inputs = {name: self.blobs[name].data for name in self.net.inputs}
        wanted = [name for name in made if name not in inputs]
        for name, values in self.net.forward(inputs, wanted).items():
            self.blobs[name].data = values


def module() -> ModuleType:
    Net.opened = []
    made = ModuleType("caffe")
    made.__version__ = "1.0.0"  # type: ignore[attr-defined]
    made.Net, made.TRAIN, made.TEST = Net, 0, 1  # type: ignore[attr-defined]
    made.set_mode_cpu = lambda: None  # type: ignore[attr-defined]
    made.__spec__ = sys.__spec__
    return made
