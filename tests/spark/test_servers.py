"""The same on real servers: the bucket on S3, the lake on HDFS."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.stores.hdfs.store import HdfsStore
from tests.servers.hdfs import HdfsServer
from tests.servers.s3 import S3Server
from tests.spark.conftest import OF_A_RUN, Lake, lines, make_lake
from tests.spark.test_spark import on_cluster
from tests.unit.training.sparse_sets import like_rcv1, write

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def moved(lake: Lake, s3_server: S3Server, hdfs_server: HdfsServer, name: str) -> HdfsStore:
    """The lake's bucket and folder are on the servers from now on, its refs too."""
    store = hdfs_server.store(f"tests/spark-{name}")
    for path in sorted((lake.folder / "lake" / "refs").iterdir()):
        store.put(f"refs/{path.name}", path)
    shutil.rmtree(lake.folder / "lake")
    text = lake.config.read_text()
    text = text.replace('url = "lake"', f'url = "{hdfs_server.url(f"tests/spark-{name}")}"\nhdfs = {{ user = "root" }}')
    text = text.replace('url = "bucket"', "\n".join(f"{key} = {json.dumps(value)}" for key, value in {
        "url": f"s3://shared/spark-{name}", "endpoint": s3_server.endpoint, "region": "us-east-1",
        "access_key": s3_server.access_key, "secret_key": s3_server.secret_key,
    }.items()))  # fmt: skip
    lake.config.write_text(text)
    return store


def delivered(store: HdfsStore) -> dict[str, Any]:
    """Each delivered file's content, less what differs between two runs, by partner and kind."""
    found: dict[str, Any] = {}
    for key in [entry.key for entry in store.list("features/2")]:
        _, shipment, partner, *rest = key.split("/")
        place = f"{shipment.partition('-')[0].partition('.')[2]}/{partner}/{'/'.join(rest)}"
        if key.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(store.get(key))).to_pylist()
            found[place] = [{k: v for k, v in row.items() if k not in OF_A_RUN | {"version"}} for row in rows]
        elif key.endswith(".txt.gz"):
            found[place] = gzip.decompress(store.get(key))
    return found


def test_on_s3_and_hdfs_the_cluster_delivers_what_one_box_delivers(
    tmp_path: Path, session: SparkSession, s3_server: S3Server, hdfs_server: HdfsServer
) -> None:
    refs = {partner: lines(partner, 40) for partner in (1, 2)}
    there, here = make_lake(tmp_path / "cluster", refs), make_lake(tmp_path / "box", refs)
    far = moved(there, s3_server, hdfs_server, "cluster")
    near = moved(here, s3_server, hdfs_server, "box")
    here.hathi("run", "ship", "compute", "aggregate", "deliver")
    there.hathi("run", "ship")
    totals = on_cluster(there, session)
    there.hathi("run", "deliver")
    assert totals.of("compute").counts.refs == 80
    assert delivered(far) == delivered(near)
    assert len(delivered(far)) == 6
    there.hathi("verify", "--deep")


def test_a_linear_model_reads_its_examples_from_hdfs_and_comes_to_the_bits_of_local_files(
    tmp_path: Path, session: SparkSession, hdfs_server: HdfsServer
) -> None:
    """Text whose lines are dealt out by bytes, and packed text beside it; a line that is wrong is named by its URL."""
    from pipeline.cluster.spark_shards import SparkShards
    from pipeline.training.descent import pieces, synchronous
    from pipeline.training.descent.descent import Wanted
    from pipeline.training.descent.losses import Loss

    folder, url = tmp_path / "examples", hdfs_server.url("tests/linear")
    folder.mkdir()
    text = write(folder / "a.svm", like_rcv1(6000, 900, 30)).read_bytes()
    lines = text.splitlines(keepends=True)
    (folder / "b.svm.gz").write_bytes(gzip.compress(b"".join([*lines[:300], b"x 1:1\n"])))
    store = hdfs_server.store("tests/linear")
    for path in sorted(folder.iterdir()):
        store.put(path.name, path)
    far, near = (pieces.plan(place, 2, None, 0) for place in (url, str(folder)))
    assert len(far.shards[0]) > 10, "the text is cut"
    wanted = Wanted(Loss.HINGE, 1e-4, passes=2, rate=0.5)
    here, there = synchronous.Here(near, tmp_path / "here"), SparkShards(session.sparkContext, far, 2)
    seen = synchronous.look(there, far, url, 0.0)
    assert seen.count == 6300
    assert seen.left_out.sentences == [f"{url}/b.svm.gz, line 301: its label is no whole number: it names no class; "
                                       "it is left out"]  # fmt: skip
    found = synchronous.train(there, seen, wanted, 0)
    alone = synchronous.train(here, synchronous.look(here, near, "files", 0.0), wanted, 0)
    assert np.abs(alone.weights).max() > 0.01
    assert np.array_equal(found.weights, alone.weights)
    assert np.array_equal(found.bias, alone.bias)
