"""A set that follows a model on a cluster: each shipment is computed with the promotion that its plan names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import ROOT
from tests.integration.following_hosts import Hosts
from tests.spark.conftest import demand_spark, spark_environ


def test_executors_get_the_files_of_each_promotion_that_open_shipments_name(tmp_path: Path) -> None:
    demand_spark()
    hosts = Hosts(tmp_path)
    hosts.write("gateway")
    hosts.write("box")
    hosts.refs("a.jsonl", "a", "bb", "ccc")
    hosts.promote(1)
    hosts.well("gateway", "run", "ship")
    hosts.promote(2)
    hosts.refs("b.jsonl", "dddd", "eeeee")
    hosts.well("gateway", "run", "ship")
    words = ["spark", "--master", "local[2]", "--config", f"{hosts.folder}/box/hathi.toml"]
    command = [sys.executable, "-m", "pipeline.cli.main", *words]
    done = subprocess.run(command, cwd=ROOT, env=spark_environ(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    hosts.well("gateway", "run", "deliver")
    planned = {str(one.expects.promoted): one.expects.fingerprint for one in hosts.plans() if one.expects}
    assert hosts.prints() == {planned["shoes@1"]: 3, planned["shoes@2"]: 2}
