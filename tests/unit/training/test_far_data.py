"""A dataset in a lake or a bucket as a Data layer reads it: by URL, with the configuration, shard by shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, FormatError, SolverError
from pipeline.settings import Settings
from pipeline.stores.hdfs.store import HdfsStore
from pipeline.stores.local import LocalStore
from pipeline.stores.s3.store import S3Store
from pipeline.stores.store import Store
from pipeline.training.data.database import Database
from pipeline.training.data.fetched import Fetched
from pipeline.training.data.make import make
from pipeline.training.data.parquet import Parquet
from pipeline.training.data.reach import NOWHERE, Reach
from pipeline.training.dataset import shards
from pipeline.training.dataset.manifest import MANIFEST, read_manifest
from pipeline.training.draws.draws import OurDraws
from tests.unit.training import shared_runs

COUNT = 40
SETTINGS = Settings.model_validate({
    "bucket": {"url": "s3://shop/prefix", "access_key": "who", "secret_key": "knows"},
    "lakes": {"one": {"url": "hdfs://b:9870,a:9870/lake", "hdfs": {"user": "reader"}}, "two": {"url": "/a/folder"}},
})  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of four shards."""
    draws = np.random.default_rng(5)
    records = [(f"{number:08d}".encode(), shared_runs.example(draws, number)) for number in range(COUNT)]
    monkeypatch.setattr(shards, "_GROUP", 3 * 588)
    monkeypatch.setattr(shards, "_SHARD", 10 * 588)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "set").mkdir()
    shards.write(tmp_path / "set", records, "a test")
    return tmp_path


class Asked(LocalStore):
    """A folder that notes which files are opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, fsync=False)
        self.opened: list[str] = []

    def open(self, key: str):  # type: ignore[no-untyped-def]
        self.opened.append(key)
        return super().open(key)


def far(store: Store, folder: Path) -> Parquet:
    return Parquet(Path("s3:/shop/set"), Fetched("s3://shop/set", store, read_manifest(folder)), "")


def test_records_are_those_of_the_folder_and_a_shard_is_fetched_once_when_it_is_read(folder: Path) -> None:
    store = Asked(folder / "set")
    there, here = far(store, folder / "set"), shards.read(folder / "set")
    records = {number: datum for number, (_, datum) in enumerate(here)}
    assert len(there) == COUNT
    assert store.opened == [], "nothing is fetched that nobody reads"
    for number in (25, 13, 26, 14):
        (value,) = there.read([number])
        assert bytes(value) == records[number].SerializeToString()
        assert there.key(number) == f"{number:08d}".encode()
    assert store.opened == ["part-00002.parquet", "part-00001.parquet"]
    assert [bytes(value) for value in there.read(range(COUNT))] == [
        records[n].SerializeToString() for n in range(COUNT)
    ]
    assert sorted(store.opened) == [f"part-{number:05d}.parquet" for number in range(4)]
    there.close()
    assert list((folder / "tmp").rglob("*.parquet")) == []


def test_of_an_executor_they_stay_for_its_next_stage_and_go_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(folder / "tmp"))
    for _ in range(2):
        store = Asked(folder / "set")
        one = far(store, folder / "set")
        list(one.read([0]))
        one.close()
    assert store.opened == [], "the first stage has fetched it"


@pytest.mark.parametrize("what", ["other bytes", "missing"])
def test_a_shard_that_is_not_what_the_manifest_says_is_named_by_its_url(what: str, folder: Path) -> None:
    one = far(LocalStore(folder / "set", fsync=False), folder / "set")
    shard = folder / "set" / "part-00001.parquet"
    if what == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    says = "is missing" if what == "missing" else "has changed since it was written"
    with pytest.raises(FormatError, match=f"the shard s3://shop/set/part-00001.parquet {says}"):
        list(one.read([15]))
    assert list((folder / "tmp").rglob("*part-00001*")) == []


def test_the_stores_of_the_configuration_are_reached_with_its_credentials_and_no_other() -> None:
    reach = Reach(SETTINGS)
    bucket = reach.store("s3a://shop/elsewhere/set")
    assert isinstance(bucket, S3Store)
    assert (bucket.bucket, bucket.base) == ("shop", "elsewhere/set/")
    assert bucket.connection.settings.access_key == SETTINGS.bucket.access_key
    lake = reach.store("hdfs://a:9870,b:9870/data/set/")
    assert isinstance(lake, HdfsStore)
    assert (lake.url, lake._settings.user) == ("hdfs://a:9870,b:9870/data/set", "reader")
    for url, says in (
        ("s3://other/set", "the configuration's bucket is s3://shop/prefix"),
        ("hdfs://elsewhere:9870/set", "no lake of the configuration is on elsewhere:9870"),
        ("ftp://a/set", "ftp:// is no place for a dataset"),
    ):
        with pytest.raises(ConfigError, match=says):
            reach.store(url)
    with pytest.raises(ConfigError, match="no configuration was read") as told:
        NOWHERE.store("s3://shop/set")
    assert "--config" in told.value.hint
    assert "knows" not in repr(reach)


def layer(source: str, reach: Reach) -> Database:
    spec = caffe_pb2.LayerParameter()
    text_format.Parse(
        f'name: "data" type: "Data" top: "data" top: "label" data_param {{ source: "{source}" batch_size: 4 }}', spec
    )
    found = make(spec, True, OurDraws(3), Path(), reach)
    assert isinstance(found, Database)
    return found


def test_a_layer_names_the_url_at_which_there_is_no_dataset_or_none_that_it_takes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Reach, "store", lambda self, url: LocalStore(folder / url.partition("://")[2].partition("/")[2], fsync=False)
    )
    assert layer("s3://shop/set", NOWHERE).count == COUNT
    with pytest.raises(SolverError, match=r"'data': data_param.source: there is no dataset at s3://shop/nothing"):
        layer("s3://shop/nothing", NOWHERE)
    with pytest.raises(SolverError, match="the dataset s3://shop/set has no side 'train'"):
        layer("s3://shop/set/train", NOWHERE)
    (folder / "set" / MANIFEST).write_text("{")
    with pytest.raises(FormatError, match=r"s3://shop/set: the manifest s3://shop/set/_manifest.json cannot be read"):
        layer("s3://shop/set", NOWHERE)


def test_a_configuration_is_needed_and_asked_for_by_the_layer() -> None:
    with pytest.raises(ConfigError, match=r"'data': data_param\.source: s3://shop/set: no configuration was read"):
        layer("s3://shop/set", NOWHERE)
