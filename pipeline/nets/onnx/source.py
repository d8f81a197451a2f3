"""An ONNX model's files: the model, and those beside it that hold its weights.  Read here, for every engine alike.

They are read each time they are needed and not kept; each read gives what the first one gave, or raises.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from pipeline.errors import NetError
from pipeline.nets.caffe.caffemodel import changed
from pipeline.nets.onnx.file import LARGE
from pipeline.nets.onnx.graph import reads, trouble_of

_INLINE_BYTES = 3 * 2**29  # a message of more than 2 GiB cannot be written
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Model:
    """A model whole: `proto`, and the weights that it cannot hold itself, by name; `name` stands in messages.

    The initializers of `apart` are marked as stored outside.
    """

    proto: onnx.ModelProto
    apart: Mapping[str, NDArray[Any]]
    name: str


class OnnxSource:
    """Raises NetError: a file that is missing, truncated, outside of the model's folder, or changed since it was read
    first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[str, bytes] = {}
        """What was read -> its SHA-256 when it was read first."""

    def graph(self) -> onnx.ModelProto:
        """The model without the weights that it keeps in other files."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise NetError(
                f"the model {self.path} cannot be read", error.strerror or str(error), "give the path of an .onnx model"
            ) from error
        model = onnx.ModelProto()
        try:
            model.ParseFromString(content)
        except DecodeError as error:
            raise NetError(
                f"the model {self.path} is truncated, or is not ONNX", str(error), "fetch the file again"
            ) from error
        trouble = trouble_of(model)
        if trouble:
            raise NetError(f"the model {self.path} is damaged", trouble, "fetch the file again, or export it anew")
        self._same("", content, f"the model {self.path}")
        return model

    def model(self, blobs: Iterable[str]) -> Model:
        """What computes these values, and no more, with all its weights."""
        proto = pruned(self.graph(), blobs)
        outside = [(tensor, self._read(tensor)) for tensor in _tensors(proto.graph) if _is_outside(tensor)]
        large = sum(len(content) for _, content in outside) + proto.ByteSize() > _INLINE_BYTES
        own = {tensor.name for tensor in proto.graph.initializer}
        apart: dict[str, NDArray[Any]] = {}
        while outside:
            tensor, content = outside.pop()
            if large and len(content) > LARGE and tensor.data_type in _FLOATS and tensor.name in own:
                kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
                apart[tensor.name] = np.frombuffer(bytearray(content), kind).reshape(tuple(tensor.dims))
            else:
                tensor.raw_data = content
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
        return Model(proto, apart, str(self.path))

    def beside(self) -> dict[str, Path]:
        """The other files that hold its weights, by the names that the model has for them."""
        found = {_entries(tensor)["location"] for tensor in _tensors(self.graph().graph) if _is_outside(tensor)}
        return {location: self._place(location) for location in sorted(found)}

    def renamed(self, names: Mapping[str, str]) -> bytes:
        """The model with other names for those files."""
        model = self.graph()
        for tensor in _tensors(model.graph):
            for entry in tensor.external_data if _is_outside(tensor) else ():
                if entry.key == "location":
                    entry.value = names[entry.value]
        content: bytes = model.SerializeToString()
        return content

    def _read(self, tensor: onnx.TensorProto) -> bytes:
        entries = _entries(tensor)
        location = entries["location"]
        path = self._place(location)
        wants = _bytes_of(tensor)
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", wants))
        except ValueError as error:
            raise NetError(f"the model {self.path} is damaged", str(error), "fetch the file again") from error
        if offset < 0 or length < 0 or (wants and length != wants):
            detail = f"'{tensor.name}' is said to be {length} bytes from byte {offset} on; its shape wants {wants}"
            raise NetError(f"the model {self.path} is damaged", detail, "export it anew")
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if offset + length > size:
                    raise NetError(
                        f"the model's second file {path} is truncated",
                        f"'{tensor.name}' lies from byte {offset} to {offset + length}; the file ends at {size}",
                        "fetch it again: it must be of the same export as the model",
                    )
                file.seek(offset)
                content = file.read(length)
        except OSError as error:
            raise NetError(f"{path} cannot be read", error.strerror or str(error), f"{self.path} needs it") from error
        if len(content) != length:
            raise changed(str(path))
        self._same(f"{location} {offset} {length}", content, str(path))
        return content

    def _place(self, location: str) -> Path:
        folder = self.path.parent
        path = folder / location
        if not location or "\0" in location:
            raise NetError(f"the model {self.path} is damaged", f"{location!r} names no file", "export it anew")
        if Path(location).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
            raise NetError(
                f"the model {self.path} names a file outside of its folder",
                f"{location!r} is {path.resolve()}, links followed",
                "copy the file into the model's folder and export the model again: Hathi reads weights "
                "only there or below",
            )
        if not path.is_file():
            raise NetError(
                f"the model {self.path} lacks its second file {location}",
                f"it keeps weights in {path}, and no file is there",
                "copy the file there under that name: a model and its weights stay in one folder",
            )
        return path

    def _same(self, key: str, content: bytes, what: str) -> None:
        now = hashlib.sha256(content).digest()
        if self._seen.setdefault(key, now) != now:
            raise changed(what)


def pruned(model: onnx.ModelProto, blobs: Iterable[str]) -> onnx.ModelProto:
    """The model with what these values depend on alone; they are its outputs."""
    graph = model.graph
    wanted = list(dict.fromkeys(blobs))
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
    needed: set[str] = set()
    kept: set[int] = set()
    open_names = list(wanted)
    while open_names:
        name = open_names.pop()
        if name not in needed:
            needed.add(name)
            if name in makers and makers[name] not in kept:
                kept.add(makers[name])
                open_names += reads(graph.node[makers[name]])
    outputs = {value.name: value for value in graph.output}
    small = onnx.ModelProto()
    small.CopyFrom(model) if len(kept) == len(graph.node) else _copy_around(model, small)
    if len(kept) != len(graph.node):
        small.graph.node.extend(node for number, node in enumerate(graph.node) if number in kept)
        small.graph.initializer.extend(one for one in graph.initializer if one.name in needed)
        small.graph.input.extend(one for one in graph.input if one.name in needed)
        small.graph.value_info.extend(one for one in graph.value_info if one.name in needed)
    del small.graph.output[:]
    small.graph.output.extend(outputs.get(name, onnx.ValueInfoProto(name=name)) for name in wanted)
    return small


def _copy_around(model: onnx.ModelProto, small: onnx.ModelProto) -> None:
    for field, value in model.ListFields():
        if field.name == "graph":
            small.graph.name = value.name
            small.graph.sparse_initializer.extend(value.sparse_initializer)
        elif field.is_repeated:
            getattr(small, field.name).extend(value)
        else:
            setattr(small, field.name, value)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All that hold values, those of the graphs within nodes too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(inner)


def _is_outside(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {"location": "", **{entry.key: entry.value for entry in tensor.external_data}}


def _bytes_of(tensor: onnx.TensorProto) -> int:
    """What its shape wants; 0 where that is not known: an element of less than a byte, or one that numpy has not."""
    try:
        width = (
            _WIDTHS.get(tensor.data_type) or np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
        )
    except (KeyError, TypeError):
        return 0
    return width * math.prod(tensor.dims) if tensor.data_type <= onnx.TensorProto.BFLOAT16 else 0


_WIDTHS = {onnx.TensorProto.BFLOAT16: 2}
