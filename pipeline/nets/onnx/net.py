"""An ONNX model as a net: run as it is, at any batch size, fed images in either layout."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import NetError
from pipeline.nets.engines import Engine
from pipeline.nets.engines.engine import Run
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.graph.plan import unknown_blob
from pipeline.nets.net import Blobs, Net
from pipeline.nets.onnx import fingerprint as onnx_fingerprint
from pipeline.nets.onnx.graph import reads, shape_of
from pipeline.nets.onnx.rows import look
from pipeline.nets.onnx.source import OnnxSource
from pipeline.nets.verdict import Verdict

_KEPT = 4


class OnnxNet(Net):
    """inputs: as the model declares them, -1 for a dimension that is free.

    A model exported for one batch size takes any number of images all the same: they go through it in such batches,
    the last one padded.
    """

    def __init__(self, path: Path, engine: Engine, blobs: Sequence[str] | None) -> None:
        super().__init__(engine)
        self.path = path
        self.source = OnnxSource(path)
        graph = self.source.graph().graph
        self.name = graph.name or path.stem
        weights = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name: shape_of(value) for value in graph.input if value.name not in weights}
        self._outputs = tuple(value.name for value in graph.output)
        made = [name for node in graph.node for name in node.output if name]
        self._blobs = tuple(dict.fromkeys([*self.inputs, *made]))
        self._sources = {name: tuple(reads(node)) for node in graph.node for name in node.output}
        self._kinds = {value.name: _kind(value) for value in graph.input}
        self.default = tuple(blobs) if blobs is not None else self._outputs
        self._check(self.default)
        self._compiled: OrderedDict[tuple[object, ...], Run] = OrderedDict()
        self._lock = Lock()

    @property
    def blobs(self) -> tuple[str, ...]:
        return self._blobs

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    def inputs_of(self, blob: str) -> list[str]:
        found = self.needed([blob])
        return [name for name in self.inputs if name in found]

    def needed(self, blobs: Sequence[str]) -> set[str]:
        """The names of all values that these depend on, and their own."""
        self._check(blobs)
        found: set[str] = set()
        open_names = list(blobs)
        while open_names:
            name = open_names.pop()
            if name not in found:
                found.add(name)
                open_names += self._sources.get(name, ())
        return found

    def shape(self, blob: str, shapes: Mapping[str, Shape]) -> Shape:
        zeros = {name: np.zeros(shapes.get(name, self.inputs[name]), np.float32) for name in self.inputs_of(blob)}
        try:
            return self.forward(zeros, [blob])[blob].shape
        except NetError:
            raise
        except Exception as error:  # what engines raise has no base but Exception
            batch = next((array.shape[0] for array in zeros.values() if array.ndim), 1)
            says = str(error).strip().splitlines()[-1]
            raise NetError(
                f"the model {self.path} does not compute a batch of {batch}",
                says,
                "give the size that it was made for (input_size), or try another engine",
            ) from error

    def ready(self, blob: str, shapes: Mapping[str, Shape]) -> None:
        """A model of a fixed batch size is compiled for that."""
        given = {name: (self.batch_of(name) or shape[0], *shape[1:]) for name, shape in shapes.items()}
        with self._lock:
            self._compile((blob,), given)

    def rows(self, blob: str, shapes: Mapping[str, Shape]) -> Verdict:
        names = self.inputs_of(blob)
        if len(names) != 1:
            return Verdict("unknown", f"it has {len(names)} inputs")
        shape = shapes[names[0]]
        if not shape:
            return Verdict("mixed", f"its input '{names[0]}' is one number, not a batch")
        batch = self.batch_of(names[0]) or max(2, shape[0])
        return look(self.source.model([blob]).proto, names[0], (batch, *shape[1:]))

    def batch_of(self, name: str) -> int:
        """The batch size that the model was exported for; 0: any."""
        shape = self.inputs[name]
        return max(0, shape[0]) if shape else 0

    def fingerprint(self, blob: str, shapes: Mapping[str, Shape]) -> str:
        return onnx_fingerprint.of_model(self.source.model([blob]), blob)

    def forward(self, feeds: Mapping[str, ArrayLike], blobs: Sequence[str] | None = None) -> Blobs:
        names = tuple(self.default if blobs is None else blobs)
        self._check(names)
        arrays = self._arrays(feeds, {name for blob in names for name in self.inputs_of(blob)})
        fixed = {self.inputs[name][0] for name in arrays if self.inputs[name] and self.inputs[name][0] > 0}
        with self._lock:
            if len(arrays) == 1 and len(fixed) == 1:
                return self._in_batches(*next(iter(arrays.items())), fixed.pop(), names)
            return self._compile(names, {name: array.shape for name, array in arrays.items()})(arrays)

    def _in_batches(self, name: str, array: Any, size: int, blobs: tuple[str, ...]) -> Blobs:
        parts: list[Blobs] = []
        for first in range(0, len(array), size):
            batch = array[first : first + size]
            padded = np.concatenate([batch, np.zeros((size - len(batch), *array.shape[1:]), array.dtype)])
            out = self._compile(blobs, {name: padded.shape})({name: padded})
            parts.append({blob: values[: len(batch)] if values.ndim else values for blob, values in out.items()})
        return {blob: np.concatenate([part[blob] for part in parts]) for blob in blobs}

    def _compile(self, names: tuple[str, ...], shapes: Mapping[str, Shape]) -> Run:
        key = (names, tuple(sorted(shapes.items())))
        if key not in self._compiled:
            self._compiled[key] = self._engine.compile_model(self.source.model(names), shapes, list(names))
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return self._compiled[key]

    def _arrays(self, feeds: Mapping[str, ArrayLike], needed: set[str]) -> Blobs:
        found: Blobs = {}
        for name in feeds:
            if name not in self.inputs:
                raise NetError(f"the net has no input '{name}'", f"its inputs: {', '.join(self.inputs)}")
        for name in sorted(needed):
            if name not in feeds:
                raise NetError(f"input '{name}' is not fed", f"its declared shape is {self.inputs[name]}")
            array = _as(np.asarray(feeds[name], order="C"), self._kinds[name])
            declared = self.inputs[name]
            if 0 in array.shape:
                raise NetError(f"input '{name}' holds no values", f"its shape is {array.shape}", "feed some items")
            fits = array.ndim == len(declared)
            if not fits or any(d not in (-1, n) for d, n in zip(declared[1:], array.shape[1:], strict=True)):
                raise NetError(f"input '{name}' has the shape {array.shape}", f"declared: {declared}")
            found[name] = array
        return found

    def _check(self, blobs: Sequence[str]) -> None:
        for blob in blobs:
            if blob not in self._blobs:
                raise unknown_blob(blob, [*self._outputs, *self._blobs])


def _kind(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    """How an input is fed: floats of any width as float32 (an engine narrows them), others as they are declared."""
    number = value.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
    try:
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, TypeError) as error:
        raise NetError(
            f"input '{value.name}' has a type that Hathi cannot feed", f"element type {number}", "export it anew"
        ) from error
    return kind if kind.kind in "iub" else np.dtype(np.float32)


def _as(array: NDArray[Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """Whole numbers are rounded and held to their range: engines would each do it in a way of their own."""
    if kind.kind in "iu" and array.dtype.kind == "f":
        limits = np.iinfo(kind)
        array = np.clip(np.rint(array), limits.min, limits.max)
    return np.ascontiguousarray(array, kind)
