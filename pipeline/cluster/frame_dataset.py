"""A DataFrame of labelled images becomes a dataset: each partition its shards, in the order of the partitions.

What tasks write has its content in its name, and the manifest is written last: a task that Spark tries again, or begins
twice, does no harm, and a dataset that is there already is the same one or is refused.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql.types import BinaryType, BooleanType, IntegralType

from pipeline import __version__
from pipeline.cluster.spark import given_up
from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, Exists, FormatError, PermanentError, PipelineError
from pipeline.process.host import same_version
from pipeline.process.scratch import of_a_worker
from pipeline.stores.local import LocalStore, typed
from pipeline.stores.store import Store
from pipeline.training.data.reach import Reach, is_remote
from pipeline.training.dataset import shards
from pipeline.training.dataset.manifest import MANIFEST, Manifest, ShardFile, manifest_of
from pipeline.training.dataset.shards import Record

SOURCE = "a DataFrame"
_PIXELS = ("channels", "height", "width")
_ENCODED = "encoded"
_TOLD = "partition int, manifest string, problem string"
_PART = "part-"


@dataclass(frozen=True)
class Columns:
    """Where a table has its examples.

    image: bytes of a file; or pixels, uint8 as Caffe has them (channel, row, column), where the table has the columns
    channels, height and width, as CaffeOnSpark's have, and `encoded` is not true.  label: whole numbers.  key: names
    an example in messages; empty: its partition and row do.
    """

    image: str = "data"
    label: str = "label"
    key: str = ""


@dataclass(frozen=True)
class Place:
    """source: a folder that all executors see at this path, or a URL.  settings: as of `training.job.Wanted`."""

    source: str
    settings: str = ""

    def store(self) -> Store:
        if is_remote(self.source):
            return Reach.of(self.settings).store(self.source)
        folder = Path(self.source)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typed(error, folder) from error
        return LocalStore(folder, fsync=False)


def write(frame: DataFrame, columns: Columns, place: Place) -> Manifest:
    """The rows of a table as a dataset of images; what it holds.

    Raises ConfigError for columns that are missing or of another type, and for another dataset that is there;
    FormatError for a row without an image or a label, with its partition; what the store raises.
    """
    chosen, driver = _chosen(frame, columns), __version__

    def made(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None
        yield _told(context.partitionId(), batches, place, driver)

    try:
        told = chosen.mapInArrow(made, _TOLD).collect()
    except (PySparkException, Py4JError) as error:
        raise given_up(error, "no dataset is made; the same call begins anew") from error
    parts: list[Manifest] = []
    for one in sorted(told, key=lambda row: int(row["partition"])):
        if one["problem"]:
            raise _refusal(one["problem"])
        parts.append(manifest_of(one["manifest"].encode(), place.source))
    return _committed(parts, place)


def _chosen(frame: DataFrame, columns: Columns) -> DataFrame:
    """The columns that count, under names of their own."""
    kinds = {field.name: field.dataType for field in frame.schema.fields}
    wanted: dict[str, tuple[str, type | tuple[type, ...] | None]] = {
        "data": (columns.image, BinaryType), "label": (columns.label, IntegralType),
    }  # fmt: skip
    if columns.key:
        wanted["key"] = (columns.key, None)
    if set(_PIXELS) <= set(kinds):
        wanted |= {name: (name, IntegralType) for name in _PIXELS}
        wanted |= {_ENCODED: (_ENCODED, BooleanType)} if _ENCODED in kinds else {}
    for name, kind in wanted.values():
        if name not in kinds:
            raise ConfigError(f"no column {name!r}", f"there are: {', '.join(kinds)}", "name it by Columns(...)")
        if kind is not None and not isinstance(kinds[name], kind):
            says = "images are bytes, labels and sizes whole numbers"
            raise ConfigError(f"column {name!r} holds {kinds[name].simpleString()}", says, "cast it first")
    return frame.select(*(frame[name].alias(alias) for alias, (name, _) in wanted.items()))


def _told(partition: int, batches: Iterable[pa.RecordBatch], place: Place, driver: str) -> pa.RecordBatch:
    """What a task has made of a partition, or why not: a refusal is no reason to try it again."""
    made, problem = "", ""
    try:
        same_version(driver)
        made = _shards(partition, batches, place).text()
    except PermanentError as error:
        problem = json.dumps([type(error).__name__, error.message, error.detail, error.hint])
    return pa.RecordBatch.from_pydict({
        "partition": pa.array([partition], pa.int32()), "manifest": [made], "problem": [problem],
    })  # fmt: skip


def _refusal(problem: str) -> PipelineError:
    kind, *words = json.loads(problem)
    return {one.__name__: one for one in (FormatError, ConfigError)}.get(kind, PermanentError)(*words)


def _shards(partition: int, batches: Iterable[pa.RecordBatch], place: Place) -> Manifest:
    with tempfile.TemporaryDirectory(dir=of_a_worker("frames")) as scratch:
        folder = Path(scratch)
        shards.write(folder, _records(partition, batches), SOURCE)
        found = manifest_of((folder / MANIFEST).read_bytes(), scratch)
        store, named = place.store(), []
        for number, one in enumerate(found.shards):
            name = f"{_PART}{partition:05d}-{number:03d}-{one.sha256[:12]}.parquet"
            store.put(name, folder / one.name)
            named.append(ShardFile(name=name, rows=one.rows, sha256=one.sha256))
    return found.model_copy(update={"shards": named})


def _records(partition: int, batches: Iterable[pa.RecordBatch]) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield _record(row, f"{partition:05d}_{number:08d}")
            number += 1


def _record(row: dict[str, Any], place: str) -> Record:
    key = str(row.get("key") or place)
    for name, what in (("data", "image"), ("label", "label")):
        if row[name] is None:
            where = f"partition {int(place[:5])}, row {int(place[6:]) + 1:,}"
            says = f"the example {key} has no {what}" if row.get("key") else f"a row has no {what}"
            raise FormatError(f"{SOURCE}: {says}", where, "leave such rows out first: frame.dropna(subset=[...])")
    pixels = _PIXELS[0] in row and not row.get(_ENCODED)
    datum = caffe_pb2.Datum(data=row["data"], label=row["label"])
    if not pixels:
        datum.encoded = True
    else:
        for name in _PIXELS:
            setattr(datum, name, row[name] or 0)
        if datum.channels * datum.height * datum.width != len(datum.data):
            sizes = " x ".join(str(row[name]) for name in _PIXELS)
            says = f"{len(datum.data):,} bytes, and its sizes are {sizes}"
            raise FormatError(f"{SOURCE}: the example {key} is no image of its sizes", says, "pixels are uint8, CHW")
    return key.encode(), datum


def _committed(parts: list[Manifest], place: Place) -> Manifest:
    """The manifest of all parts, where none is there yet, or the same one."""
    labels: Counter[str] = Counter()
    for one in parts:
        labels.update(one.labels)
    mine = [shard for one in parts for shard in one.shards]
    count = sum(shard.rows for shard in mine)
    ordered = {label: labels[label] for label in sorted(labels, key=int)}
    found = Manifest(source=SOURCE, examples=count, labels=ordered, shards=mine)
    store, text = place.store(), found.text().encode()
    names = {one.name for one in mine}
    try:
        store.put_new(MANIFEST, text)
    except Exists:
        there = store.get(MANIFEST)
        if there == text:
            return found
        with contextlib.suppress(FormatError):
            names -= {one.name for one in manifest_of(there, place.source).shards}
            for name in names:
                store.delete(name)
        raise ConfigError(
            f"another dataset is at {place.source}", f"this table has {count:,} examples; others, or in another order",
            "name another place in the net, or delete that dataset first",
        ) from None  # fmt: skip
    for left in [entry.key for entry in store.list(_PART)]:
        if left not in names:  # of tasks that Spark began a second time
            store.delete(left)
    return found
