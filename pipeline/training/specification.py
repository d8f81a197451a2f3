"""A specification, as a child gets it: JSON -> what is to be trained."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.training import solver
from pipeline.training.assembly import PRECISIONS, How
from pipeline.training.job import Wanted
from pipeline.training.solver import Flags

_KINDS: dict[str, type | tuple[type, ...]] = {
    "solver": str, "folder": str, "weights": list, "snapshot": str, "seed": int, "engine": str, "threads": int,
    "data_threads": int, "shards": int, "exact": bool, "as_caffe": bool, "stage": list, "level": int, "until": int,
    "state": str, "precision": str, "gpu": str,
}  # fmt: skip


@dataclass(frozen=True)
class Specification:
    """folder: what paths are relative to.  estop: the state folder whose ESTOP counts."""

    wanted: Wanted
    folder: Path
    estop: Path | None


def read(path: Path) -> Specification:
    """The specification at `path`.

    solver: a path, which must be there.  folder: what paths are relative to; the specification's own by default.
    weights: files, or snapshot: a .solverstate.  seed, threads, data_threads, exact, as_caffe, precision, gpu, stage,
    level, until, shards: as the command's options.  engine: "torch" or "auto".  state: a folder whose ESTOP ends the
    training.
    Raises SolverError for a field that is unknown or of another kind, by its name.
    """
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SolverError(f"the specification {path} cannot be read", str(error), "give a JSON file") from error
    if not isinstance(body, dict) or "solver" not in body:
        raise SolverError(f"the specification {path} names no solver", "", 'it is {"solver": "solver.prototxt", ...}')
    for name, value in body.items():
        _check(path, name, value)
    folder = path.parent / body.get("folder", "")
    stages = tuple(str(one) for one in body.get("stage", [])) or ("",)
    given = tuple(str(one) for one in body["weights"]) if "weights" in body else None
    wanted = Wanted(
        Path(body["solver"]),
        Flags(body.get("level", 0), stages, given, body.get("seed")),
        How(
            body.get("threads", 0),
            body.get("exact", False),
            body.get("as_caffe", False),
            body.get("precision", PRECISIONS[0]),
            body.get("gpu", ""),
            body.get("shards", 1),
        ),
        Path(body["snapshot"]) if "snapshot" in body else None,
        until=body.get("until"),
        data_threads=body.get("data_threads", 2),
    )
    return Specification(wanted, folder, Path(body["state"]) if "state" in body else None)


def _check(path: Path, name: str, value: Any) -> None:
    if name not in _KINDS:
        raise SolverError(f"the specification {path} has an unknown field '{name}'", f"known: {', '.join(_KINDS)}")
    kind = _KINDS[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SolverError(f"the specification's {name} is {value!r}", f"it is {getattr(kind, '__name__', kind)}")
    if name == "shards" and isinstance(value, int) and value < 1:
        raise SolverError(f"shards is {value}", "a batch has one at least", "give 1 or more")
    if name == "precision" and value not in PRECISIONS:
        raise SolverError(f"unknown precision '{value}'", f"known: {', '.join(PRECISIONS)}")
    if name == "engine" and value not in ("auto", "torch"):
        raise SolverError(f"unknown engine '{value}'", "known: auto, torch")


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """A solver's paths are relative to the current folder, as Caffe's."""
    before = Path.cwd()
    try:
        os.chdir(folder)
    except OSError as error:
        raise SolverError(f"the folder {folder} cannot be entered", error.strerror or str(error)) from error
    try:
        yield
    finally:
        os.chdir(before)


def preprocessing(spec: Specification) -> dict[str, Any]:
    """What the data layer of the training does to an image: who uses the model must do the same."""
    with in_folder(spec.folder):
        net = solver.read(spec.wanted.solver, spec.wanted.flags).net
    for layer in net.text.layer:
        if layer.HasField("transform_param"):
            given: caffe_pb2.TransformationParameter = layer.transform_param
            found = {field.name: list(value) if field.is_repeated else value for field, value in given.ListFields()}
            return {"net": net.source.split(": ")[-1], "preprocessing": found}
    return {"net": net.source.split(": ")[-1], "preprocessing": {}}
