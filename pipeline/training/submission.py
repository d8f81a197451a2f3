"""A solver's file -> the spec of a training in the bucket: everything that decides a number of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.ledger.protocol import Context
from pipeline.ledger.trainings import JobFile, JobSpec
from pipeline.nets.caffe import prototxt
from pipeline.settings.places import folder_of
from pipeline.training import solver, solver_text
from pipeline.training.assembly import How
from pipeline.training.data.parquet import open_remote
from pipeline.training.data.reach import Reach, is_remote
from pipeline.training.sharing.shards import cut
from pipeline.training.solver import Flags

SMALL = 16 * 2**20
"""Bytes of a file of data that is digested whole; of a larger one the name and the length stand in the spec."""

_NO_NUMBER = ("test_net", "snapshot_prefix", "snapshot", "snapshot_after_train", "weights", "device_id", "solver_mode")
"""Fields of a solver that decide none, or that stand in the spec beside it."""


@dataclass(frozen=True)
class Wanted:
    """What is to be trained.  salt: another one, another training."""

    solver: Path
    flags: Flags
    how: How
    salt: str = ""


def spec_of(context: Context, wanted: Wanted) -> JobSpec:
    """The spec, in the current folder; its first weights are in the bucket.

    Raises SolverError and NetError for a solver that is refused, and for weights or data that cannot be read.
    """
    read = solver.read(wanted.solver, wanted.flags)
    cut(read, wanted.how.shards)
    if read.max_iter < 1:
        raise SolverError(f"{wanted.solver}: max_iter is {read.max_iter}", "", "a training has an iteration at least")
    text = whole(wanted.solver)
    spec = JobSpec(
        model=read.net.text.name or wanted.solver.stem,
        solver=text_format.MessageToString(text),
        data=dict(sorted(_data(read, Reach(context.settings)))),
        folder=str(Path.cwd()),
        max_iter=read.max_iter,
        every=read.snapshots.interval or read.max_iter,
        seed=wanted.flags.seed,
        exact=wanted.how.exact,
        as_caffe=wanted.how.as_caffe,
        precision=wanted.how.precision,
        shards=wanted.how.shards,
        stages=wanted.flags.stages,
        level=wanted.flags.level,
        # A number of its own, not that of whichever host trains: it decides the last digits.
        threads=wanted.how.threads or (1 if wanted.how.exact else len(os.sched_getaffinity(0))),
        salt=wanted.salt,
    )
    if not read.weights:
        return spec
    files = [_file(number, path) for number, path in enumerate(read.weights)]
    keys = context.keys.job(spec.model_copy(update={"weights": tuple(files)}).name())
    stored = []
    for path, file in zip(read.weights, files, strict=True):
        stored.append(file.model_copy(update={"key": keys.file(context.process.nonce(), file.name)}))
        context.bucket.put(stored[-1].key, path)
    return spec.model_copy(update={"weights": tuple(stored)})


def whole(path: Path) -> caffe_pb2.SolverParameter:
    """The solver with its nets in it; without what decides no number."""
    text = solver_text.read(path)
    for name in ("net", "train_net"):
        if text.HasField(name):
            getattr(text, f"{name}_param").CopyFrom(prototxt.read(Path(getattr(text, name))))
            text.ClearField(name)
    for name in text.test_net:
        text.test_net_param.add().CopyFrom(prototxt.read(Path(name)))
    for name in _NO_NUMBER:
        text.ClearField(name)
    return text


def _file(number: int, path: Path) -> JobFile:
    """Of first weights; not stored yet."""
    name = f"weights-{number}.caffemodel" + (".h5" if path.suffix == ".h5" else "")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return JobFile(name=name, key="", size=path.stat().st_size, sha256=found)
    except OSError as error:
        hint = "give the path of a .caffemodel"
        raise SolverError(f"the weights {path} cannot be read", error.strerror or str(error), hint) from error


def _data(read: solver.Solver, reach: Reach) -> Iterator[tuple[str, str]]:
    """(path or URL, digest) of what data layers read."""
    for net in (read.net, *(test.net for test in read.tests.nets)):
        for layer in net.text.layer:
            for field in ("data_param", "image_data_param", "hdf5_data_param"):
                if layer.HasField(field):
                    source = getattr(layer, field).source
                    yield source, _described(source, reach)


def _far(url: str, reach: Reach) -> str:
    """Of a dataset in a lake or a bucket: of its manifest, which holds the SHA-256 of each shard."""
    with contextlib.closing(open_remote(url, reach, "data_param.source")) as found:
        return hashlib.sha256(found.manifest.text().encode()).hexdigest()


def _described(source: str, reach: Reach) -> str:
    if is_remote(source):
        return _far(source, reach)
    path = folder_of(source) or Path(source)
    hasher = hashlib.sha256()
    try:
        files = [path]
        if path.is_dir():  # of a LevelDB nothing: its files change as it is read
            known = not (path / "CURRENT").exists()
            files = sorted(one for one in path.rglob("*") if one.is_file() and known and one.name != "lock.mdb")
        for one in files:
            size = one.stat().st_size
            hasher.update(f"{one.name}\0{size}\0".encode("utf-8", "surrogatepass"))
            if size <= SMALL:
                hasher.update(one.read_bytes())
    except OSError as error:
        raise SolverError(f"the data {path} cannot be read", error.strerror or str(error), "give its path") from error
    return hasher.hexdigest()
