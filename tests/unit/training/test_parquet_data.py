"""A Data layer that reads a dataset of our own: the batches of an LMDB with the same records, from their row groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError, SolverError
from pipeline.training.data import parquet
from pipeline.training.data.make import make
from pipeline.training.data.source import Source
from pipeline.training.dataset import shards
from pipeline.training.dataset.manifest import MANIFEST
from pipeline.training.draws.draws import OurDraws
from tests.unit.training import shared_runs
from tests.unit.training.databases import demand_readers, lmdb_of
from tests.unit.training.made_sets import clouds, made

demand_readers()
COUNT = 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same records as an LMDB and as a dataset of several shards and row groups."""
    draws = np.random.default_rng(5)
    records = {f"{number:08d}": shared_runs.example(draws, number) for number in range(COUNT)}
    lmdb_of(tmp_path / "db", records)
    monkeypatch.setattr(shards, "_GROUP", 3 * 588)
    monkeypatch.setattr(shards, "_SHARD", 10 * 588)
    (tmp_path / "set").mkdir()
    shards.write(tmp_path / "set", ((key.encode(), datum) for key, datum in records.items()), "a test")
    return tmp_path


def layer(folder: Path, source: str, batch: int = 16) -> Source:
    spec = caffe_pb2.LayerParameter()
    text_format.Parse(
        f'name: "data" type: "Data" top: "data" top: "label" {shared_runs.TRANSFORM} '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}', spec
    )  # fmt: skip
    return make(spec, True, OurDraws(3), folder)


def test_the_batches_are_those_of_an_lmdb_and_go_over_the_end(folder: Path) -> None:
    ours, caffes = layer(folder, "set"), layer(folder, "db")
    assert (ours.count, ours.shapes) == (caffes.count, caffes.shapes)
    for number in (0, 3, 1, 2, 7):
        one, other = ours.batch(number), caffes.batch(number)
        assert {top: values.tobytes() for top, values in one.items()} == {
            top: values.tobytes() for top, values in other.items()
        }
        assert ours.keys(number) == caffes.keys(number)
    assert list(ours.examine({}, range(COUNT))) == []
    ours.close()
    caffes.close()


def test_a_batch_reads_the_row_groups_that_hold_it_and_no_other(folder: Path) -> None:
    read: list[tuple[str, int]] = []
    one = layer(folder, "set", batch=4)
    records: Any = vars(one)["_records"]
    inner, table = records._read_group, records._table

    def noted(shard: int, group: int) -> object:
        read.append((records._shards[shard].file.name, group))
        return inner(shard, group)

    records._table = noted
    one.batch(5)
    first = {name for name, _ in read}
    assert first == {"part-00001.parquet"}
    assert len(set(read)) == 2, "records 20 to 23 lie in two row groups of three"
    records._table = table
    one.close()


@pytest.mark.parametrize("what", ["features", "side", "rows", "torn"])
def test_what_is_no_dataset_of_images_is_named(what: str, folder: Path) -> None:
    if what == "features":
        made(folder / "rows", {"train": clouds(8, 3, 2)})
        with pytest.raises(SolverError, match="rows is a dataset of features"):
            layer(folder, "rows")
        return
    if what == "side":
        with pytest.raises(SolverError, match="has no side 'train'"):
            layer(folder, "set/train")
        return
    part = folder / "set" / "part-00000.parquet"
    if what == "rows":
        manifest = folder / "set" / MANIFEST
        text = manifest.read_text()
        first = text.index('"rows": 12')
        manifest.write_text(text[:first] + '"rows": 11' + text[first + 10 :].replace('"rows": 12', '"rows": 13', 1))
        with pytest.raises(FormatError, match=r"part-00000\.parquet has changed since it was written"):
            layer(folder, "set")
    else:
        part.write_bytes(part.read_bytes()[:-20])
        with pytest.raises(FormatError, match=r"part-00000\.parquet cannot be read"):
            layer(folder, "set")
    assert parquet.is_dataset(folder / "set")
