"""A stranger's solver and net -> what the trainer's child reads, in a folder that is its whole world.

Every text field that could name a file is refused, but a data layer's source and a mean: these name an input of the
job.  What is allowed is listed; whatever a newer Caffe may bring is refused until it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError, SolverError
from pipeline.nets.caffe import prototxt
from pipeline.training import hdf5, solver_text

WORK, SPEC, OUT, INPUTS, PREPARED = "work.json", "spec.json", "out", "inputs", "prepared.json"
SOLVER, NET = "solver.prototxt", "net.prototxt"
SERVING = "serving.json"
"""Beside each snapshot: how its net serves, which a classifier is made from."""
_FREE = frozenset({
    "name", "type", "bottom", "top", "stage", "not_stage", "input", "lr_policy", "regularization_type", "param",
})  # fmt: skip
"""Texts that name no file."""
_INPUTS = {("DataParameter", "source"), ("HDF5DataParameter", "source"), ("TransformationParameter", "mean_file"),
           ("DataParameter", "mean_file")}  # fmt: skip
_NETS = ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param", "weights", "snapshot_prefix",
         "train_state", "test_state")  # fmt: skip
_LMDB = (0xBEEFC0DE).to_bytes(4, "little")


def prepare(folder: Path) -> int:
    """Writes the specification of a training; its last iteration.

    Reads work.json, solver.prototxt, net.prototxt and inputs/.  Raises SolverError, NetError, FormatError.
    """
    work: dict[str, Any] = json.loads((folder / WORK).read_bytes())
    solver = solver_text.parse((folder / SOLVER).read_text(), "solver")
    for name in _NETS:
        if _is_set(solver, name):
            says = f"the solver sets {name}"
            raise SolverError(says, "the service knows the net, and where snapshots go", "leave it out")
    net = prototxt.parse((folder / NET).read_text(), "net")
    inputs = sorted(work["inputs"])
    for message in (solver, net):
        _refuse_files(message, inputs, "")
    for name in inputs:
        _place(folder / INPUTS, name)
    solver.net, solver.snapshot_prefix = NET, "snapshot"
    solver.solver_mode = caffe_pb2.SolverParameter.CPU
    (folder / SOLVER).write_text(text_format.MessageToString(solver))
    (folder / NET).write_text(text_format.MessageToString(net))
    spec = {"solver": SOLVER, "threads": work["threads"]}
    if work.get("seed") is not None:
        spec["seed"] = work["seed"]
    (folder / SPEC).write_text(json.dumps(spec))
    (folder / PREPARED).write_text(json.dumps({"max_iter": solver.max_iter}))
    return int(solver.max_iter)


def _is_set(message: Any, name: str) -> bool:
    return any(field.name == name for field, _ in message.ListFields())


def _refuse_files(message: Message, inputs: list[str], within: str) -> None:
    """Looks at every text of a message; a name of an input becomes its place.  Raises SolverError."""
    where = f"layer '{getattr(message, 'name', '')}': " if type(message).__name__.endswith("LayerParameter") else within
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for one in value if field.is_repeated else [value]:
                _refuse_files(one, inputs, where)
        elif field.type == FieldDescriptor.TYPE_STRING:
            _judge(message, field, value, (inputs, where))


def _judge(message: Message, field: Any, value: Any, among: tuple[list[str], str]) -> None:
    inputs, where = among
    if field.name in _FREE:
        return
    kind = message.DESCRIPTOR.name
    if (kind, field.name) not in _INPUTS:
        says = f"{where}{field.name} names a file, and the service reads none but a job's inputs"
        raise SolverError(says, str(value)[:200], "leave it out; a data layer has the name of an input as its source")
    if value not in inputs:
        raise SolverError(
            f"{where}{field.name} is {str(value)[:200]!r}, which is no input of this job",
            f"inputs are: {', '.join(inputs)}",
            "give the datafile in `inputs` under the name that stands here",
        )
    setattr(message, field.name, f"{INPUTS}/{value}")


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
