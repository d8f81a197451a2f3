"""Databases, lists and files as Caffe's tools write them, for tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.codec import caffe_pb2

GOLDEN = Path(__file__).parents[2] / "golden"


def demand_readers() -> None:
    """Skips a module of tests where a reader of databases is not installed; fails it where they are demanded."""
    if any(importlib.util.find_spec(package) is None for package in ("lmdb", "h5py", "google_crc32c")):
        if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
            pytest.fail("lmdb, h5py or google_crc32c is not installed: run scripts/training.sh", pytrace=False)
        pytest.skip(
            "LEFT OUT: lmdb, h5py or google_crc32c is not installed: scripts/training.sh", allow_module_level=True
        )


def datum(image: np.ndarray, label: int, encode: str = "") -> caffe_pb2.Datum:
    """image: (channels, height, width); encode: an extension, for encoded images."""
    channels, height, width = image.shape
    found = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label)
    if encode:
        found.encoded, found.data = True, encoded(image, encode)
    elif image.dtype == np.uint8:
        found.data = image.tobytes()
    else:
        found.float_data.extend(image.ravel().tolist())
    return found


def encoded(image: np.ndarray, kind: str = ".png") -> bytes:
    done, content = cv2.imencode(kind, np.ascontiguousarray(image.transpose(1, 2, 0)))
    assert done
    return bytes(content)


def lmdb_of(path: Path, records: Mapping[str, bytes | caffe_pb2.Datum] | Iterable[caffe_pb2.Datum]) -> Path:
    import lmdb

    if not isinstance(records, Mapping):
        records = {f"{number:08d}": record for number, record in enumerate(records)}
    with lmdb.open(str(path), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for key, record in records.items():
            transaction.put(key.encode(), record if isinstance(record, bytes) else record.SerializeToString())
    (path / "lock.mdb").unlink()
    return path


def images(count: int, shape: tuple[int, int, int] = (3, 9, 11), seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def layer(kind: str, tops: Iterable[str] = ("data", "label"), **fields: Any) -> caffe_pb2.LayerParameter:
    return caffe_pb2.LayerParameter(name="data", type=kind, top=tops, **fields)


def data_layer(source: str, batch: int = 4, transform: dict[str, Any] | None = None, **more: Any) -> Any:
    given = {"source": source, "batch_size": batch, "backend": "LMDB", **more}
    return layer("Data", data_param=given, transform_param=transform or {})
