"""Weights and states in HDF5, as Caffe writes them with snapshot_format: HDF5, and reads them.  It needs h5py."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SolverError
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.graph.saving import Read, layers
from pipeline.training.packages import demand
from pipeline.training.solverstate import Head, SolverState

Array = NDArray[np.float32]
Blobs = dict[int, Callable[[], Array]]
"""A layer's blobs by number, each read when it is asked for."""
SIGNATURE = b"\x89HDF"
_LOOKED_AT, _SHOWN = 512, 60  # bytes of a file that is no HDF5, characters of its first line


def is_hdf5(path: Path) -> bool:
    """Whether the file at `path` has HDF5's form; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == SIGNATURE
    except OSError:
        return False


def unreadable(path: Path, error: Exception) -> str:
    """Why h5py cannot read what lies at `path`.  error: what it says, in the C library's words."""
    if path.is_dir():
        return "it is a folder"
    try:
        if path.exists() and not path.is_file():
            return "it is no file"
        with path.open("rb") as file:
            first = file.read(_LOOKED_AT)
    except OSError as found:
        return found.strerror or str(found)
    if not first:
        return "it is empty"
    if first.startswith(SIGNATURE):
        return f"it is cut or damaged: {error}"
    line = first.decode(errors="replace").splitlines()[0][:_SHOWN]
    if line.isprintable() and "\ufffd" not in line:
        return f"it is a text, which begins with {line!r}"
    return "its first bytes are not those of HDF5"


def library() -> Any:
    """h5py.  Raises SolverError where it is missing, with the command that installs it."""
    return demand("h5py", "an HDF5 file")


def write_net(path: Path, graph: CaffeGraph, values: Read, diffs: Read | None = None) -> int:
    """A group for each layer, Caffe's own Split layers among them, and in it the blobs that it does not share.

    With `diffs` every blob's `diff` stands in a second tree, shared ones as well.  Returns the file's size.
    """
    learned = graph.parameters
    by_name = {step.layer.name: number for number, step in reversed(list(enumerate(graph.plan.steps)))}
    with _replacing(path) as file:
        trees = [file.create_group(name) for name in (["data"] if diffs is None else ["data", "diff"])]
        for layer in layers(graph):
            groups = [tree.require_group(layer.spec.name) for tree in trees]
            for slot in learned.slots(by_name[layer.spec.name]) if layer.shapes else ():
                owner = learned.owners[slot]
                if owner == slot:
                    groups[0][str(slot.blob)] = values(owner).reshape(learned.shapes[slot])
                if diffs is not None:
                    groups[1][str(slot.blob)] = diffs(owner).reshape(learned.shapes[slot])
    return path.stat().st_size


def write_state(path: Path, head: Head, shapes: Sequence[Shape], history: Iterable[Array]) -> int:
    """As `solverstate.write`, in this form."""
    with _replacing(path) as file:
        file["iter"] = np.array([head.iteration], np.int32)
        _put_text(file, "learned_net", head.learned_net)
        file["current_step"] = np.array([head.step], np.int32)
        group = file.create_group("history")
        for number, (shape, values) in enumerate(zip(shapes, history, strict=True)):
            group[str(number)] = values.reshape(shape)
    return path.stat().st_size


def read_state(path: Path) -> SolverState:
    """Raises SolverError: a file that is damaged, or that is no solver's state."""
    with _opened(path) as file:
        if "iter" not in file or "history" not in file:
            kind = "it holds weights, without iteration and history" if "data" in file else "no `iter` and `history`"
            raise SolverError(f"{path} is no .solverstate", kind, "give weights with --weights")
        group = file["history"]
        history = [np.asarray(group[str(number)], np.float32) for number in range(len(group))]
        learned = file["learned_net"][()] if "learned_net" in file else b""
        text = learned.decode(errors="surrogateescape") if isinstance(learned, bytes) else str(learned)
        step = int(file["current_step"][0]) if "current_step" in file else 0
        return SolverState(int(file["iter"][0]), text.rstrip("\0"), step, history)


@contextlib.contextmanager
def net_layers(path: Path) -> Iterator[list[tuple[str, Blobs]]]:
    """The layers that the file names, with their blobs, readable while the context lasts."""
    with _opened(path) as file:
        if "data" not in file:
            raise SolverError(f"the weights {path} hold no layers", "no group `data` in it")
        yield list(_layers(file["data"], ""))


def _layers(group: Any, name: str) -> Iterator[tuple[str, Blobs]]:
    """A name with a slash is a group within a group."""
    blobs: Blobs = {}
    inner = []
    for key, one in group.items():
        if hasattr(one, "shape"):
            blobs[int(key)] = lambda one=one: np.asarray(one, np.float32)  # type: ignore[misc]
        else:
            inner.append((f"{name}/{key}" if name else key, one))
    if name and (blobs or not inner):
        yield name, blobs
    for key, one in inner:
        yield from _layers(one, key)


def _put_text(file: Any, name: str, text: str) -> None:
    """As H5LTmake_dataset_string: of one fixed length, with its NUL."""
    h5py = library()
    content = os.fsencode(text) + b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(content))
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(content, f"S{len(content)}"), mtype=kind)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with library().File(path, "r") as file:
            yield file
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        hint = "give a file of HDF5; if it was one, fetch it again and compare its size or checksum"
        raise SolverError(f"{path} cannot be read as HDF5", unreadable(path, error), hint) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A new file, which gets the name once it is whole and on the disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with library().File(temporary, "x", libver="earliest") as file:
            yield file
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        hint = "free some space, or name another folder"
        raise SolverError(f"{path} cannot be written", error.strerror or str(error), hint) from error
    finally:
        temporary.unlink(missing_ok=True)
