"""A set of images on a cluster: the tasks keep the bytes, and a gateway delivers them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.integration.conftest import ROOT, picture
from tests.integration.following_hosts import Hosts
from tests.spark.conftest import demand_spark, spark_environ

ITEMS = ("a", "bb", "ccc", "dddd", "eeeee")
SETS = 'net = "image"\nshort_side = 0\nroot = "pictures"'


def test_tasks_keep_images_as_they_were_fetched(tmp_path: Path) -> None:
    demand_spark()
    hosts = Hosts(tmp_path)
    hosts.write("gateway", sets=SETS)
    hosts.write("box", sets=SETS)
    hosts.refs("a.jsonl", *ITEMS)
    hosts.well("gateway", "run", "ship")
    words = ["spark", "--master", "local[2]", "--config", f"{hosts.folder}/box/hathi.toml"]
    command = [sys.executable, "-m", "pipeline.cli.main", *words]
    done = subprocess.run(command, cwd=ROOT, env=spark_environ(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    hosts.well("gateway", "run", "deliver")
    files = (hosts.folder / "lake" / "pictures").glob("*/*/features/*.parquet")
    rows = [one for file in files for one in pq.read_table(file).to_pylist()]
    assert {one["external_id"]: one["image"] for one in rows} == {
        item: picture(len(item) + at) for at, item in enumerate(ITEMS)
    }
    assert all(one["content_sha256"] == hashlib.sha256(one["image"]).digest() for one in rows)
    hosts.well("gateway", "verify", "--deep")
