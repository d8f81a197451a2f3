"""A solver and a net that were judged (`service/specification`) -> what the trainer's child reads, in a folder that is
its whole world.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError
from pipeline.service.specification.words import DATABASES, INPUTS, MEAN_FILE, NET_FILE, Limits
from pipeline.training import hdf5, solver_text

WORK, SPEC, OUT, PREPARED = "work.json", "spec.json", "out", "prepared.json"
SOLVER, NET = "solver.prototxt", NET_FILE
DATASET = "dataset"
SERVING = "serving.json"
"""Beside each snapshot: how its net serves, which a classifier is made from."""
EVALUATION, EVALUATION_BYTES = "evaluation.json", 4 * 2**20
"""What the last test says of its examples; a longer file is none of ours."""
_LMDB = (0xBEEFC0DE).to_bytes(4, "little")


def prepare(folder: Path) -> int:
    """Writes the specification of a training; its last iteration.

    Reads work.json, inputs/ or dataset/, and the solver's text, which names the net, where snapshots go and no other
    file.
    Raises SolverError, FormatError.
    """
    work: dict[str, Any] = json.loads((folder / WORK).read_bytes())
    solver = solver_text.parse((folder / SOLVER).read_text(), "solver")
    for name in sorted(work["inputs"]):
        _place(folder / INPUTS, name)
    if (folder / DATASET).exists():
        _deal(folder)
    solver.solver_mode = caffe_pb2.SolverParameter.CPU
    if work.get("max_iter") is not None:
        solver.max_iter = work["max_iter"]
        solver.snapshot = solver.snapshot and max(solver.snapshot, -(-solver.max_iter // Limits().snapshots))
    (folder / SOLVER).write_text(text_format.MessageToString(solver))
    spec = {"solver": SOLVER, "threads": work["threads"]}
    if work.get("seed") is not None:
        spec["seed"] = work["seed"]
    (folder / SPEC).write_text(json.dumps(spec))
    (folder / PREPARED).write_text(json.dumps({"max_iter": solver.max_iter}))
    return int(solver.max_iter)


def _deal(folder: Path) -> None:
    """The sides of a dataset as the databases that the net reads, and its mean where the net asks for it."""
    from pipeline.training.dataset import database, examples  # whoever only names a file does without them
    from pipeline.training.dataset.manifest import read_manifest
    from pipeline.training.dataset.mean import as_binaryproto, mean_image

    dataset, net = folder / DATASET, (folder / NET).read_text()
    for phase, side in (("TRAIN", "train"), ("TEST", "test")):
        if DATABASES[phase] in net and side in read_manifest(dataset).sides:
            place = folder / DATABASES[phase]
            place.mkdir()
            database.write(place, examples.read(dataset, side))
    if MEAN_FILE in net:
        mean = mean_image(examples.read(dataset, "train"))
        (folder / MEAN_FILE).write_bytes(as_binaryproto(mean))


def _place(folder: Path, name: str) -> None:
    """Turns an uploaded file into what a layer's source is: a list of HDF5 files, a folder of LMDB, or itself."""
    path = folder / name
    with path.open("rb") as file:
        head = file.read(24)
    if head.startswith(hdf5.SIGNATURE):
        data = path.rename(folder / f"{name}.h5")
        for says in _leads_out(data):
            raise FormatError(f"the input '{name}' {says}", "", "upload a file that holds its own numbers")
        path.write_text(f"{INPUTS}/{data.name}\n")
    elif head[16:20] == _LMDB:
        data = path.rename(folder / f"{name}.mdb")
        path.mkdir()
        data.rename(path / "data.mdb")


def _leads_out(path: Path) -> Iterator[str]:
    """What of an HDF5 file would read another file of this host."""
    library = hdf5.library()
    try:
        with library.File(path, "r") as file:
            for name in file:
                link = file.get(name, getlink=True)
                if isinstance(link, library.ExternalLink | library.SoftLink):
                    yield f"has a link: {name[:100]}"
                    continue
                data = file[name]
                if isinstance(data, library.Dataset) and (data.external or data.is_virtual):
                    yield f"keeps {name[:100]} in another file"
    except (OSError, RuntimeError, KeyError) as error:
        raise FormatError("an input is no HDF5 that can be read", str(error)[:200], "upload it again") from error
