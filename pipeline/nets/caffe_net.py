"""A Caffe net: read, checked, lowered for each set of input shapes, run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets import fingerprint
from pipeline.nets.engines import Engine
from pipeline.nets.engines.engine import Run
from pipeline.nets.graph import caffe_graph
from pipeline.nets.graph.binding import bound
from pipeline.nets.graph.folding import folded
from pipeline.nets.graph.lowered import Lowered, Shape
from pipeline.nets.graph.plan import Read
from pipeline.nets.layers.selecting import Filter
from pipeline.nets.net import Blobs, Net
from pipeline.nets.verdict import OWN, Verdict

_KEPT = 4  # compiled shapes; each holds its own copy of the weights in the engine's layout

_WASTE = 2  # a batch is padded to at most so many times its size rather than compiled for
_PART = 8  # and goes through in parts that are no smaller

_Key = tuple[tuple[tuple[str, Read], ...], tuple[tuple[str, Shape], ...], tuple[tuple[str, int], ...]]


class CaffeNet(Net):
    """graph: the net without its engine."""

    def __init__(
        self, path: Path, weights: Path | None, engine: Engine, state: caffe_pb2.NetState, blobs: Sequence[str] | None
    ) -> None:
        super().__init__(engine)
        self.graph = caffe_graph.read(path, weights, state, blobs, self._warn)
        self.name, self.inputs = self.graph.name, self.graph.inputs
        self.plan, self.parameters = self.graph.plan, self.graph.parameters
        self._compiled: OrderedDict[_Key, Run] = OrderedDict()
        self._lock = Lock()

    @property
    def blobs(self) -> tuple[str, ...]:
        return tuple(self.plan.blobs)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(self.plan.outputs)

    def forward(self, feeds: Mapping[str, ArrayLike], blobs: Sequence[str] | None = None) -> Blobs:
        reads = self.graph.reads(self.graph.default if blobs is None else blobs)
        self.plan.computable(reads.values())
        arrays = self._arrays(feeds, self.plan.inputs_for(reads.values()))
        with self._lock:
            return self._run(reads, arrays)

    def lower(self, blobs: Sequence[str], shapes: Mapping[str, Shape] | None = None) -> Lowered:
        """The operations that compute `blobs` for inputs of `shapes` (by default the declared ones), optimised."""
        return self._lower(self.graph.reads(blobs), {**self.inputs, **(shapes or {})}, {})

    def shape(self, blob: str, shapes: Mapping[str, Shape]) -> Shape:
        read = self.plan.read(blob)
        return self.graph.shapes_of(self.plan.computable([read]), shapes, {})[read.view]

    def inputs_of(self, blob: str) -> list[str]:
        return list(self.plan.inputs_for([self.plan.read(blob)]))

    def ready(self, blob: str, shapes: Mapping[str, Shape]) -> None:
        reads = {blob: self.plan.read(blob)}
        self.plan.computable(reads.values())
        with self._lock:
            self._compile(reads, shapes, {})

    def rows(self, blob: str, shapes: Mapping[str, Shape]) -> Verdict:
        reads = {blob: self.plan.read(blob)}
        (name,) = self.plan.inputs_for(reads.values())
        given = {name: (max(2, shapes[name][0]), *shapes[name][1:])}
        try:
            if self.graph.by_item(reads, given):
                return OWN
            graph = self._bound(reads, given, {})
        except NetError as error:  # of a batch of 1 alone, say
            return Verdict("unknown", error.message)
        from pipeline.nets.onnx.file import model_of
        from pipeline.nets.onnx.rows import label_of, look

        model = model_of(graph)
        return look(model, f"in:{name}", given[name], lambda node: graph.layers.get(node.output[0]) or label_of(node))

    def lacking(self, blob: str) -> list[str]:
        slots = self.parameters.lacking(self.plan.needed([self.plan.read(blob)]))
        return list(dict.fromkeys(self.plan.steps[slot.step].layer.name for slot in slots))

    def fingerprint(self, blob: str, shapes: Mapping[str, Shape]) -> str:
        return fingerprint.of_net(self.plan, self.parameters, blob, shapes)

    def _arrays(self, feeds: Mapping[str, ArrayLike], needed: Iterable[str]) -> Blobs:
        for name in feeds:
            if name not in self.inputs:
                raise NetError(f"the net has no input '{name}'", f"its inputs: {', '.join(self.inputs)}")
        found: Blobs = {}
        for name in needed:
            if name not in feeds:
                shape = " x ".join(map(str, self.inputs[name]))
                raise NetError(f"input '{name}' is not fed", f"its declared shape is {shape}")
            array = np.asarray(feeds[name], np.float32, order="C")
            if 0 in array.shape:
                raise NetError(f"input '{name}' holds no values", f"its shape is {array.shape}", "feed some items")
            if array.ndim != len(self.inputs[name]):
                raise NetError(
                    f"input '{name}' has the shape {array.shape}",
                    f"declared: {self.inputs[name]}; the batch and the sizes may differ, the number of axes may not",
                )
            found[name] = array
        return found

    def _run(self, reads: Mapping[str, Read], arrays: Blobs) -> Blobs:
        counts: dict[str, int] = {}
        for number in sorted(self.plan.needed(reads.values())):
            layer = self.plan.steps[number].layer
            if isinstance(layer, Filter):  # what follows it has shapes only once its selector is known
                selector = {layer.name: self.plan.steps[number].reads[-1]}
                feeds = {name: arrays[name] for name in self.plan.inputs_for(selector.values())}
                run = self._compile(selector, {name: array.shape for name, array in feeds.items()}, counts)
                chosen = run({f"in:{name}": array for name, array in feeds.items()})[layer.name]
                counts[layer.name] = int(np.count_nonzero(chosen))
                if not counts[layer.name]:
                    raise layer.refuse("selects no item", "what follows it would have no values")
        shapes = {name: array.shape for name, array in arrays.items()}
        if not counts and self.graph.by_item(reads, shapes):
            return self._in_batches(reads, arrays)
        run = self._compile(reads, shapes, counts)
        return run({f"in:{name}": array for name, array in arrays.items()})

    def _in_batches(self, reads: Mapping[str, Read], arrays: Blobs) -> Blobs:
        """Through the batch size that is compiled already, where one is near enough; else one is compiled."""
        count = len(next(iter(arrays.values())))
        rest = {name: array.shape[1:] for name, array in arrays.items()}
        near = [
            batch
            for batch in self._batches(reads, rest)
            if batch <= _WASTE * count and (count <= batch or batch >= _PART)
        ]
        batch = min(near, key=lambda size: (-(-count // size) * size, -size), default=count)
        parts = []
        for first in range(0, count, batch):
            part = {name: _padded(array[first : first + batch], batch) for name, array in arrays.items()}
            run = self._compile(reads, {name: array.shape for name, array in part.items()}, {})
            found = run({f"in:{name}": array for name, array in part.items()})
            parts.append({name: values[: count - first] for name, values in found.items()})
        return parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in reads}

    def _batches(self, reads: Mapping[str, Read], rest: Mapping[str, Shape]) -> list[int]:
        """The batch sizes that are compiled for these blobs and sizes."""
        found = []
        for wanted, shapes, _ in self._compiled:
            if wanted == tuple(reads.items()) and {name: shape[1:] for name, shape in shapes} == rest:
                found.append(shapes[0][1][0])
        return found

    def _compile(self, reads: Mapping[str, Read], shapes: Mapping[str, Shape], counts: Mapping[str, int]) -> Run:
        key = (tuple(reads.items()), tuple(sorted(shapes.items())), tuple(counts.items()))
        if key not in self._compiled:
            run = self._engine.compile(self._lower(reads, shapes, counts))
            self._compiled[key] = run
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key]

    def _lower(self, reads: Mapping[str, Read], given: Mapping[str, Shape], counts: Mapping[str, int]) -> Lowered:
        """What an engine compiles: weights are constants, and what follows a convolution is folded into it."""
        return folded(self._bound(reads, given, counts))

    def _bound(self, reads: Mapping[str, Read], given: Mapping[str, Shape], counts: Mapping[str, int]) -> Lowered:
        """The operations as the layers give them, with the weights that the net was loaded with."""
        graph = self.graph.lowered(reads, given, counts)
        return bound(graph, self.parameters.values(self.plan.needed(reads.values()), self.plan))


def _padded(array: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """Rows of zeros after the last one, up to the batch."""
    if len(array) == batch:
        return array
    padded = np.zeros((batch, *array.shape[1:]), np.float32)
    padded[: len(array)] = array
    return padded
