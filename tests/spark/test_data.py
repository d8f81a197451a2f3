"""Where a training on Spark has its examples: a bucket, a lake, a DataFrame; each counts as often as any other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, FormatError, PipelineError, SolverError
from pipeline.settings import Settings, travelling
from pipeline.stores.s3.store import S3Store
from pipeline.training.assembly import How
from pipeline.training.data.parquet import open_dataset
from pipeline.training.dataset import shards
from pipeline.training.dataset.examples import read
from pipeline.training.dataset.manifest import MANIFEST
from pipeline.training.job import Wanted
from tests.servers.hdfs import HdfsServer
from tests.servers.s3 import S3Server
from tests.unit.training import shared_runs
from tests.unit.training.databases import demand_readers
from tests.unit.training.runs import Within, train

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from pipeline.cluster.training_task import Worked

demand_readers()
pytest.importorskip("torch")
HOW = How(threads=1, shards=8)
ITERATIONS = 25
BATCH = 16


def records(folder: Path) -> Iterator[shards.Record]:
    """Of the LMDB."""
    return ((one.key, one.datum) for one in read(folder / "db"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in one process, with its LMDB and the same records as a dataset of four shards."""
    folder = shared_runs.write(tmp_path_factory.mktemp("alone"), None, shared_runs.solver(ITERATIONS))
    with pytest.MonkeyPatch.context() as patched, Within(folder):
        patched.setattr(shards, "_GROUP", 7 * 588)
        patched.setattr(shards, "_SHARD", 28 * 588)
        (folder / "set").mkdir()
        shards.write(folder / "set", records(folder), "a test")
        train(Wanted(Path("solver.prototxt"), how=HOW))
    return folder


def bits(folder: Path) -> tuple[list[bytes], str]:
    """Of the weights, without the net's text, which says where its data are; of the history."""
    net = caffe_pb2.NetParameter.FromString((folder / f"s_iter_{ITERATIONS}.caffemodel").read_bytes())
    blobs = [blob.SerializeToString(deterministic=True) for layer in net.layer for blob in layer.blobs]
    assert len(blobs) >= 4
    return blobs, shared_runs.bits(folder, ITERATIONS)[f"s_iter_{ITERATIONS}.solverstate"]


def copied(folder: Path, put: Any, above: str = "") -> None:
    """A dataset as a person copies it: the manifest last."""
    for path in sorted(folder.iterdir(), key=lambda one: one.name == MANIFEST):
        put(f"{above}{path.name}", path)


def on_spark(session: SparkSession, folder: Path, settings: str, until: int | None = None) -> list[list[Worked]]:
    from pipeline.cluster.training_driver import Watching, shared, stages_of

    with Within(folder):
        wanted = Wanted(Path("solver.prototxt"), how=HOW, until=until, settings=settings)
        watching = Watching(lambda: False, lambda line: None)
        return list(stages_of(session, wanted, shared(wanted), 2, watching))


def assert_each_counts(stages: list[list[Worked]], keys: list[str]) -> None:
    """By their keys: every iteration has a batch of examples in order, each computed by one executor."""
    size = BATCH // HOW.shards
    seen: dict[int, Counter[str]] = {}
    for one in itertools.chain.from_iterable(stages):
        for number in one.passes:
            mine = [keys[at % len(keys)] for at in range(number * size, (number + 1) * size)]
            seen.setdefault(one.rank, Counter()).update(mine)
    assert set(seen) == {0, 1}, "both have computed"
    passes = [number for one in itertools.chain.from_iterable(stages) for number in one.passes]
    assert len(passes) == len(set(passes)), "no pass is computed by two"
    whole = sum(seen.values(), Counter[str]())
    assert whole.total() == BATCH * ITERATIONS
    assert set(whole.values()) == {BATCH * ITERATIONS // len(keys)}, "each example as often as any other"
    assert set(whole) == set(keys)


def test_executors_read_a_dataset_from_the_bucket_and_from_the_lake_to_the_bit(
    session: SparkSession, alone: Path, s3_server: S3Server, hdfs_server: HdfsServer, tmp_path: Path
) -> None:
    bucket = s3_server.settings("s3://shared/spark-data")
    lake = hdfs_server.store("tests/spark-data")
    copied(alone / "set", S3Store(bucket).put, "set/")
    copied(alone / "set", lake.put, "tested/")
    settings = travelling(Settings.model_validate({
        "bucket": bucket.model_copy(update={"url": "s3://shared/elsewhere"}),
        "lakes": {"shop": {"url": hdfs_server.url("tests/shop"), "hdfs": hdfs_server.settings()}},
    }))  # fmt: skip
    near = shared_runs.net()
    text = near.replace('source: "db"', 'source: "s3://shared/spark-data/set"', 1)
    text = text.replace('source: "db"', f'source: "{hdfs_server.url("tests/spark-data")}/tested"', 1)
    folder = shared_runs.write(tmp_path / "far", text, shared_runs.solver(ITERATIONS))
    for path in (folder / "db").iterdir():
        path.unlink()
    stages = on_spark(session, folder, settings)
    assert bits(folder) == bits(alone)
    with Within(alone):
        keys = [key.decode() for key in open_dataset(Path("set"), "").keys]
    assert_each_counts(stages, keys)
    secret = s3_server.secret_key
    assert all(secret not in path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())

    (folder / "net.prototxt").write_text(text.replace("spark-data/set", "spark-data/nothing"))
    with pytest.raises(SolverError, match=r"executor \d \(127\.0\.0\.1, process \d+\): .*no dataset at s3://shared/"):
        on_spark(session, folder, settings)


def test_a_dataframe_trains_to_the_bits_of_the_same_rows_as_a_dataset(
    session: SparkSession, alone: Path, tmp_path: Path
) -> None:
    from hathi.spark import Columns
    from hathi.spark import train as train_on

    rows = [
        (key.decode(), bytearray(datum.data), datum.label, datum.channels, datum.height, datum.width)
        for key, datum in records(alone)
    ]
    schema = "id string, picture binary, label int, channels int, height int, width int"
    frame = session.createDataFrame(session.sparkContext.parallelize(rows, 3), schema)
    net = shared_runs.net(source="made").replace('source: "made"', f'source: "{alone / "db"}"')
    net = net.replace(f'source: "{alone / "db"}"', 'source: "made"', 1)
    folder = shared_runs.write(tmp_path, net, shared_runs.solver(ITERATIONS))
    columns = Columns("picture", "label", "id")

    def trained(of: DataFrame, until: int | None = None) -> Any:
        with Within(folder):
            return train_on(of, "solver.prototxt", columns=columns, until=until, executors=2)

    assert trained(frame, 20).iteration == 20
    made = read(folder / "made")
    assert [(one.key, one.datum) for one in made] == list(records(alone)), (
        "no row is left out, where partitions end too"
    )
    ended = trained(frame)
    assert (ended.iteration, ended.model) == (ITERATIONS, Path(f"s_iter_{ITERATIONS}.caffemodel"))
    assert bits(folder) == bits(alone)

    few = session.createDataFrame(session.sparkContext.parallelize(rows[:2], 1), schema)
    before = sorted(path.name for path in (folder / "made").iterdir())
    with pytest.raises(ConfigError, match=r"another dataset is at .*/made"):
        trained(few)
    assert sorted(path.name for path in (folder / "made").iterdir()) == before
    refused: list[tuple[DataFrame, type[PipelineError], str]] = [
        (few.drop("label"), ConfigError, "no column 'label'"),
        (few.withColumn("label", few["label"].cast("string")), ConfigError, "column 'label' holds string"),
        (few.selectExpr("id", "picture", "int(null) label"), FormatError, "the example 00000000 has no label"),
        (few.withColumn("height", few["height"] + 1), FormatError, "the example 00000000 is no image of its sizes"),
    ]
    for one, kind, says in refused:
        with pytest.raises(kind, match=says):
            trained(one)
