"""A Caffe net that Caffe itself computes; read, checked and fingerprinted as every other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.nets.caffe_net import CaffeNet
from pipeline.nets.engines.pycaffe_engine import PyCaffe
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.graph.plan import Read
from pipeline.nets.layers.pointwise import Dropout
from pipeline.nets.net import Blobs
from pipeline.nets.verdict import Verdict


class PyCaffeNet(CaffeNet):
    """Shapes are checked here before Caffe sees them: its own checks end the process."""

    def __init__(
        self, path: Path, weights: Path | None, engine: PyCaffe, state: caffe_pb2.NetState, blobs: Sequence[str] | None
    ) -> None:
        super().__init__(path, weights, engine, state, blobs)
        self._caffe = engine.open(path, weights, state)  # Caffe itself adds the stages that the text names
        self._fill()

    def ready(self, blob: str, shapes: Mapping[str, Shape]) -> None:
        """Caffe has it ready since it was opened."""

    def rows(self, blob: str, shapes: Mapping[str, Shape]) -> Verdict:
        """Caffe drops values at random where a Dropout layer is in the TRAIN phase."""
        for number in sorted(self.plan.needed([self.plan.read(blob)])):
            layer = self.plan.steps[number].layer
            if isinstance(layer, Dropout) and layer.state.train:
                return Verdict("random", f"layer '{layer.name}' (Dropout) drops values at random, as in training")
        return super().rows(blob, shapes)

    def _fill(self) -> None:
        """Layers that the weights lack hold what our fillers draw, so that features are those of their fingerprint."""
        filled = [
            slot
            for slot, owner in self.parameters.owners.items()
            if slot == owner and slot not in self.parameters.stored and slot not in self.parameters.inline
        ]
        made = self.parameters.of(sorted({slot.step for slot in filled}), self.plan)
        for slot in filled:
            learned = self._caffe.params[self.plan.steps[slot.step].layer.name]
            learned[slot.blob].data[...] = made[slot.step][slot.blob]

    def _run(self, reads: Mapping[str, Read], arrays: Blobs) -> Blobs:
        last = max(self.plan.needed(reads.values()))
        shapes = self._fed(arrays)
        self.graph.shapes_of(set(range(last + 1)), shapes, {})
        for name, shape in shapes.items():
            self._caffe.blobs[name].reshape(*shape)
        for name, array in arrays.items():
            self._caffe.blobs[name].data[...] = array
        self._caffe.forward(**self._until(last))
        return {name: np.array(self._caffe.blobs[name].data, np.float32, order="C") for name in reads}

    def _fed(self, arrays: Blobs) -> dict[str, Shape]:
        """The shapes of all inputs; one that no wanted blob needs has the batch of the others, where it had before."""
        batches = {self.inputs[name][:1]: array.shape[:1] for name, array in arrays.items()}
        return {
            name: arrays[name].shape if name in arrays else (*batches.get(shape[:1], shape[:1]), *shape[1:])
            for name, shape in self.inputs.items()
        }

    def _until(self, last: int) -> dict[str, Any]:
        """Caffe knows a layer by its name, so the pass ends early only where that is the layer's own."""
        names = Counter(step.layer.name for step in self.plan.steps)
        name = self.plan.steps[last].layer.name
        return {"end": name} if names[name] == 1 and last + 1 < len(self.plan.steps) else {}
