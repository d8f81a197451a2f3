"""Which dataset a solver's Data layers want to be made of a DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pyspark.sql import DataFrame

from pipeline.cluster.frame_dataset import Columns, Place, write
from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.nets.graph import rules
from pipeline.training.data.reach import is_remote
from pipeline.training.job import Wanted
from pipeline.training.solver import NetText

TRAIN, TEST = "TRAIN", "TEST"


def fill(wanted: Wanted, frames: Mapping[str, DataFrame | None], columns: Columns) -> None:
    """Makes the datasets that layers of these phases name as their source.

    Raises SolverError for a net without such a layer, or with several; and as `frame_dataset.write`.
    """
    read = wanted.read()
    nets = {TRAIN: [read.net], TEST: [one.net for one in read.tests.nets]}
    for phase, frame in frames.items():
        if frame is not None:
            source = _source(nets[phase], phase)
            place = source if is_remote(source) else str(Path(source).absolute())
            write(frame, columns, Place(place, wanted.settings))


def _source(nets: list[NetText], phase: str) -> str:
    found = [(layer.name, layer.data_param.source) for net in nets for layer in _kept(net) if layer.type == "Data"]
    if len({source for _, source in found}) != 1:
        says = ", ".join(f"layer '{name}': {source}" for name, source in found) or "it has none"
        raise SolverError(f"a DataFrame needs one Data layer of phase {phase}", says,
                          "its data_param.source says where the dataset is to be")  # fmt: skip
    return found[0][1]


def _kept(net: NetText) -> Sequence[caffe_pb2.LayerParameter]:
    """Its layers of its own phase."""
    return rules.keep(upgrade(net.text, lambda says: None), net.state)
