"""Snapshots: Caffe's two files, and beside them the manifest that makes a training go on to the bit.

The manifest is written last and holds the others' SHA-256, so a snapshot is whole or not there: what a kill leaves half
done has no manifest that fits, and the next start ignores it.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SolverError
from pipeline.nets.caffe.writing import Written, replacing
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape
from pipeline.nets.graph.saving import Read, save
from pipeline.training import hdf5, solverstate
from pipeline.training.solver import SnapshotPlan
from pipeline.training.solverstate import Head, SolverState

Array = NDArray[np.float32]
FORMAT = 1
_IN_FOLDER = r"(?:metrics\.jsonl|predictions\d*\.parquet)"
_BESIDE = rf"_(?:iter_.*|{_IN_FOLDER})"
"""Files of a training that a kill leaves half written under another name."""


@dataclass(frozen=True)
class Position:
    """Where a training is, beside weights and history.

    iteration: updates made.  step: of the rate.  batches: taken by the training net and by each test net.  draws: the
    state of its random numbers.  losses: of the window that display smooths.  carried: hidden states by net and name.
    """

    iteration: int = 0
    step: int = 0
    batches: tuple[int, ...] = ()
    draws: bytes = b""
    losses: tuple[float, ...] = ()
    smoothed: float = 0.0
    window: int = 0
    carried: tuple[Mapping[str, Array], ...] = field(default=())


class Places(Protocol):
    """Where a snapshot's files are."""

    def model(self, iteration: int) -> Path: ...

    def state(self, iteration: int) -> Path: ...

    def manifest(self, iteration: int) -> Path: ...

    def iterations(self) -> list[int]:
        """Of all manifests that are there, newest first."""

    def clear(self) -> None:
        """Deletes what a kill left half written."""


@dataclass(frozen=True, slots=True)
class ByPrefix:
    """As Caffe names them: PREFIX_iter_N.caffemodel and .solverstate, with .h5 in HDF5's form."""

    prefix: str
    hdf5: bool

    def _named(self, iteration: int, suffix: str) -> Path:
        return Path(f"{self.prefix}_iter_{iteration}{suffix}")

    def model(self, iteration: int) -> Path:
        return self._named(iteration, ".caffemodel.h5" if self.hdf5 else ".caffemodel")

    def state(self, iteration: int) -> Path:
        return self._named(iteration, ".solverstate.h5" if self.hdf5 else ".solverstate")

    def manifest(self, iteration: int) -> Path:
        return self._named(iteration, ".resume.json")

    def iterations(self) -> list[int]:
        folder, stem = Path(self.prefix).parent, Path(self.prefix).name
        names = re.compile(re.escape(stem) + r"_iter_(\d+)\.resume\.json")
        found = [names.fullmatch(path.name) for path in (folder.iterdir() if folder.is_dir() else ())]
        return sorted((int(one[1]) for one in found if one), reverse=True)

    def clear(self) -> None:
        _delete_torn(Path(self.prefix).parent, re.escape(Path(self.prefix).name) + _BESIDE)


@dataclass(frozen=True, slots=True)
class ByFolder:
    """A folder for each: snapshots/N/ with net.caffemodel, net.solverstate and _manifest.json."""

    root: Path
    hdf5: bool

    def model(self, iteration: int) -> Path:
        return self.root / str(iteration) / ("net.caffemodel.h5" if self.hdf5 else "net.caffemodel")

    def state(self, iteration: int) -> Path:
        return self.root / str(iteration) / ("net.solverstate.h5" if self.hdf5 else "net.solverstate")

    def manifest(self, iteration: int) -> Path:
        return self.root / str(iteration) / "_manifest.json"

    def iterations(self) -> list[int]:
        found = self.root.glob("*/_manifest.json")
        return sorted((int(path.parent.name) for path in found if path.parent.name.isdecimal()), reverse=True)

    def clear(self) -> None:
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            if folder.is_dir():
                _delete_torn(folder, ".*")
        _delete_torn(self.root.parent, _IN_FOLDER)


def _delete_torn(folder: Path, names: str) -> None:
    torn = re.compile(r"\.(?:" + names + r")\.[0-9a-f]{16}")
    for path in folder.iterdir() if folder.is_dir() else ():
        if torn.fullmatch(path.name):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Owner:
    """digest: of all that decides the numbers of a training.  solver: its type, whose history a snapshot holds."""

    digest: str
    solver: str


@dataclass(frozen=True)
class Content:
    """What a snapshot holds; `history` in the solver's order, of these shapes.  diffs: None where none are kept."""

    graph: CaffeGraph
    values: Read
    diffs: Read | None
    shapes: Sequence[Shape]
    history: Sequence[Array]
    position: Position


def probe(plan: SnapshotPlan, places: Places, size: int = 4096) -> None:
    """Raises SolverError where no snapshot could be written: found before the first iteration.

    size: the bytes of one.
    """
    path = places.state(0)
    beside = path.with_name(f".{path.name}.{'0' * 16}")
    try:
        made = isinstance(places, ByFolder) and not beside.parent.exists()
        if made:
            beside.parent.mkdir(parents=True)
        try:
            beside.write_bytes(b"\0" * 4096)
            disk = os.statvfs(beside.parent)
        finally:
            beside.unlink(missing_ok=True)
            if made:
                beside.parent.rmdir()
    except OSError as error:
        raise _unwritable(plan, f"{beside.parent}: {error.strerror or error}") from error
    free = disk.f_bavail * disk.f_frsize
    if free < size:
        says = f"{beside.parent}: a snapshot has {size:,} bytes, and {free:,} are free"
        raise _unwritable(plan, says) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unwritable(plan: SnapshotPlan, detail: str) -> SolverError:
    return SolverError(
        f"snapshots cannot be written: snapshot_prefix is '{plan.prefix}'", detail,
        "make the folder, give it space, and the right to write there",
    )  # fmt: skip


def write(places: Places, content: Content, owner: Owner, parent: int | None) -> None:
    """Puts the two files there, whole or not at all, and the manifest last.  parent: the snapshot before, if any.

    Raises OSError, or NetError for what the disk does not take and for more than the form of a file holds.
    """
    position = content.position
    model, state = places.model(position.iteration), places.state(position.iteration)
    model.parent.mkdir(exist_ok=True)
    # In a folder of its own the two lie side by side, whatever the folder is called: the same bits in any of them.
    head = Head(position.iteration, model.name if isinstance(places, ByFolder) else str(model), position.step)
    if model.suffix == ".h5":
        hdf5.write_net(model, content.graph, content.values, content.diffs)
        hdf5.write_state(state, head, content.shapes, content.history)
        files = {"model": _described(model), "state": _described(state)}
    else:
        weights = save(model, content.graph, content.values, content.diffs)
        rest = solverstate.write(state, head, content.shapes, content.history)
        files = {"model": _as_described(model, weights), "state": _as_described(state, rest)}
    body = {
        "format": FORMAT,
        "job": owner.digest,
        "solver": owner.solver,
        "parent": _parent(places, parent),
        "files": files,
        "position": _as_json(position),
    }
    with replacing(places.manifest(position.iteration)) as file:
        file.write(json.dumps(body, indent=1).encode() + b"\n")


@dataclass(frozen=True)
class Whole:
    """A snapshot that is whole.  job: the digest of the training that wrote it; solver: its type, "" if unknown."""

    iteration: int
    model: Path
    state: Path
    job: str
    position: Position
    solver: str = ""


def newest(places: Places, job: str, most: int | None = None) -> Whole | None:
    """The newest whole snapshot of this training, at most of the iteration `most`; None: there is none."""
    for iteration in places.iterations():
        found = whole(places, iteration) if most is None or iteration <= most else None
        if found is not None and found.job == job:
            return found
    return None


def whole(places: Places, iteration: int) -> Whole | None:
    """The snapshot of this iteration; None where its manifest or a file does not fit."""
    model, state = places.model(iteration), places.state(iteration)
    try:
        body = json.loads(places.manifest(iteration).read_bytes())
        if body["format"] != FORMAT or body["files"] != {"model": _described(model), "state": _described(state)}:
            return None
        solver = body.get("solver", "")
        return Whole(iteration, model, state, body["job"], _from_json(body["position"]), solver)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def beside(state: Path) -> Whole | None:
    """The snapshot that a .solverstate belongs to, where a manifest of ours lies beside it; None: none does.

    Raises SolverError where the files are not those that the manifest names: one of them is damaged.
    """
    named = re.fullmatch(r"(.*)_iter_(\d+)\.solverstate(\.h5)?", str(state))
    places: Places
    if named:
        places, iteration = ByPrefix(named[1], bool(named[3])), int(named[2])
    elif state.parent.name.isdecimal():
        places, iteration = ByFolder(state.parent.parent, state.suffix == ".h5"), int(state.parent.name)
    else:
        return None
    found = whole(places, iteration)
    if found is None and state.is_file() and places.manifest(iteration).is_file():
        manifest = places.manifest(iteration)
        raise SolverError(
            f"{state} or its weights are not what {manifest} says",
            "their SHA-256 differ from those that were written with it, or it cannot be read",
            f"take another snapshot; delete {manifest.name} if another program has written these files since",
        )
    return found


def read_state(path: Path) -> SolverState:
    """A state of either form, Caffe's own as well."""
    return hdf5.read_state(path) if hdf5.is_hdf5(path) else solverstate.read(path)


def learned_net(state: SolverState, path: Path, say: Callable[[str], None]) -> Path | None:
    """The weights that a state names: as it wrote the path, else beside the state.  None where it names none.

    Raises SolverError where they are in neither place.
    """
    if not state.learned_net:
        return None
    given = Path(state.learned_net)
    if given.is_file():
        return given
    near = path.parent / given.name
    if near.is_file():
        say(f"{path} names {given}, which is not there; its weights are taken from {near}")
        return near
    raise SolverError(
        f"the weights of {path} are missing",
        f"it names {given}; neither that nor {near} is there",
        "put the .caffemodel beside the .solverstate",
    )


def _parent(places: Places, iteration: int | None) -> dict[str, Any] | None:
    if iteration is None:
        return None
    return {"iteration": iteration, "sha256": _sha256(places.manifest(iteration))}


def _described(path: Path) -> dict[str, Any]:
    return _as_described(path, Written(path.stat().st_size, _sha256(path)))


def _as_described(path: Path, file: Written) -> dict[str, Any]:
    return {"name": path.name, "bytes": file.size, "sha256": file.sha256}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_json(position: Position) -> dict[str, Any]:
    carried = [
        {name: {"shape": list(values.shape), "values": _text(values.tobytes())} for name, values in net.items()}
        for net in position.carried
    ]
    return {
        "iteration": position.iteration, "step": position.step, "batches": list(position.batches),
        "draws": _text(position.draws), "losses": list(position.losses), "smoothed": position.smoothed,
        "window": position.window, "carried": carried,
    }  # fmt: skip


def _from_json(body: Mapping[str, Any]) -> Position:
    carried = tuple(
        {name: np.frombuffer(base64.b64decode(one["values"]), np.float32).reshape(one["shape"])
         for name, one in net.items()}
        for net in body["carried"]
    )  # fmt: skip
    return Position(
        body["iteration"], body["step"], tuple(body["batches"]), base64.b64decode(body["draws"]),
        tuple(body["losses"]), body["smoothed"], body["window"], carried,
    )  # fmt: skip


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
