"""A data layer's text -> its source."""

from __future__ import annotations

from pathlib import Path

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.training.data.database import Database
from pipeline.training.data.fed import Input, Memory
from pipeline.training.data.hdf5_files import Hdf5Files
from pipeline.training.data.image_list import ImageList
from pipeline.training.data.reach import NOWHERE, Reach
from pipeline.training.data.source import Source
from pipeline.training.draws.draws import Draws

_TOPS = {"Data": (1, 2), "ImageData": (2, 2), "HDF5Data": (1, None)}
_OLD = ("scale", "mean_file", "crop_size", "mirror")  # they moved to transform_param; here Caffe reads them no more


def is_data(kind: str) -> bool:
    """A layer of this type gives batches.  DummyData is none of them: the net itself fills it, from its draws."""
    return kind in _TOPS or kind in ("MemoryData", "Input", "WindowData")


def make(spec: caffe_pb2.LayerParameter, train: bool, draws: Draws, folder: Path, reach: Reach = NOWHERE) -> Source:
    """The source of a data layer, which takes its seeds from `draws` as Caffe does.  Paths are relative to `folder`.

    reach: whose settings count where a URL is named; NOWHERE: nothing is reached but this host.

    Raises SolverError for what Caffe refuses, with the field's name; FormatError for a first example that is damaged;
    NetError for a layer's shape or filler that cannot be.
    """
    where = f"layer '{spec.name}' ({spec.type})"
    if spec.bottom:
        raise SolverError(f"{where} has {len(spec.bottom)} bottom blobs; it takes none", "", "remove them")
    least, most = _TOPS.get(spec.type, (1, None))
    if len(spec.top) < least or (most is not None and len(spec.top) > most):
        raise SolverError(f"{where} has {len(spec.top)} top blobs", "", "name data, and label after it")
    for parameters in (spec.data_param, spec.image_data_param):
        for field in _OLD:
            if parameters.HasField(field):
                raise SolverError(
                    f"{where}: {field} stands outside transform_param",
                    "Caffe reads it there only in nets of the old form (layers)",
                    f"move it: transform_param {{ {field}: ... }}",
                )
    match spec.type:
        case "Data":
            return Database(spec, train, draws, folder, reach)
        case "ImageData":
            return ImageList(spec, train, draws, folder)
        case "HDF5Data":
            return Hdf5Files(spec, train, draws, folder)
        case "MemoryData":
            return Memory(spec, train, draws, folder)
        case "Input":
            return Input(spec, train, draws, folder)
    raise SolverError(
        f"{where}: Hathi does not train from {spec.type}",
        "known: Data, ImageData, HDF5Data, MemoryData, Input",
        "write the windows as images, and train from ImageData or Data" if spec.type == "WindowData" else "",
    )
