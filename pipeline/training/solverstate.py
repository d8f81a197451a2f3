"""A .solverstate: what a solver needs beside the weights, byte for byte as Caffe writes it and as Caffe's own reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NetError, SolverError
from pipeline.nets.caffe.caffemodel import BYTES, VARINT, Caffemodel, StoredBlob, StoredLayer, Walker, opened
from pipeline.nets.caffe.writing import (
    LARGEST,
    Hashed,
    Written,
    begun,
    field,
    fill_blob,
    length,
    length_of_blob,
    replacing,
    varint,
)  # fmt: skip
from pipeline.nets.graph.lowered import Shape

Array = NDArray[np.float32]
_ITERATION, _LEARNED_NET, _HISTORY, _STEP = 1, 2, 3, 4  # numbers of SolverState's fields
SUFFIX = ".solverstate"


@dataclass(frozen=True)
class SolverState:
    """learned_net: the path of the weights as the run wrote it; "" where the file names none.  step: current_step."""

    iteration: int
    learned_net: str
    step: int
    history: Sequence[Array]


@dataclass(frozen=True, slots=True)
class Head:
    """A state without its history."""

    iteration: int
    learned_net: str
    step: int


def write(path: Path, head: Head, shapes: Sequence[Shape], history: Iterable[Array]) -> Written:
    """Puts the state at `path`, whole or not at all.

    history: float32, of these shapes, each let go before the next one is asked for.
    Raises NetError for more than a protobuf message holds, and where the file cannot be written.
    """
    first = _number(_ITERATION, head.iteration) + field(_LEARNED_NET, head.learned_net.encode())
    last = _number(_STEP, head.step)
    size = len(first) + len(last) + sum(length(_HISTORY, length_of_blob(shape)) for shape in shapes)
    if size > LARGEST:
        hint = "write it as HDF5: snapshot_format: HDF5"
        raise NetError(f"the history is too large for a .solverstate: {path}", f"{size} bytes", hint)
    values = iter(history)
    try:
        with replacing(path) as opened:
            file = Hashed(opened)
            file.write(first)
            for shape in shapes:
                file.write(begun(_HISTORY, length_of_blob(shape)))
                fill_blob(file, shape, values)
            file.write(last)
    except OSError as error:
        hint = "free some space, or name another folder"
        raise NetError(f"the state {path} cannot be written", error.strerror or str(error), hint) from error
    return file.written()


def read(path: Path) -> SolverState:
    """The state at `path`, in Caffe's binary form.

    Raises SolverError: no such file, truncated (with the offset), a .caffemodel in its place.
    """
    try:
        with opened(path, "state", SUFFIX) as file:
            size = file.seek(0, 2)
            head, blobs = _index(Walker(file, size, path, "state", SUFFIX))
        history = list(Caffemodel(path, (StoredLayer("history", tuple(blobs)),)).read(blobs))
    except NetError as error:
        raise SolverError(error.message, error.detail, error.hint) from error
    shaped = [values.reshape(blob.shape) for values, blob in zip(history, blobs, strict=True)]
    return SolverState(head.iteration, head.learned_net, head.step, shaped)


def _index(walker: Walker) -> tuple[Head, list[StoredBlob]]:
    iteration, learned, step = 0, "", 0
    blobs: list[StoredBlob] = []
    known = False
    for number, wire, begin, end in walker.fields(0, walker.size):
        if number == _ITERATION and wire == VARINT:
            iteration, known = walker.varint(begin, end)[0], True
        elif number == _LEARNED_NET and wire == BYTES:
            learned = walker.text(begin, end)
        elif number == _HISTORY and wire == BYTES:
            blobs.append(walker.blob(begin, end, f"history {len(blobs)}"))
        elif number == _STEP and wire == VARINT:
            step = walker.varint(begin, end)[0]
        elif wire == BYTES and number in (1, 100):
            raise SolverError(
                f"{walker.path} is no .solverstate",
                "it begins like a .caffemodel: weights without iteration and history",
                "give it with --weights, or name the .solverstate beside it",
            )
    if not known:
        raise walker.broken(0, "no iteration in it")
    return Head(iteration, learned, step), blobs


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)
