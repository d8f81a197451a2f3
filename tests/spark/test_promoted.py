"""A set that follows a model on a cluster: each shipment is computed with the promotion that its plan names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.following_hosts import Hosts
from tests.spark.conftest import Lake
from tests.spark.test_spark import on_cluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_executors_get_the_files_of_each_promotion_that_open_shipments_name(
    session: SparkSession, tmp_path: Path
) -> None:
    hosts = Hosts(tmp_path)
    hosts.write("gateway")
    hosts.write("box")
    hosts.refs("a.jsonl", "a", "bb", "ccc")
    hosts.promote(1)
    hosts.well("gateway", "run", "ship")
    hosts.promote(2)
    hosts.refs("b.jsonl", "dddd", "eeeee")
    hosts.well("gateway", "run", "ship")
    assert on_cluster(Lake(hosts.folder / "box"), session).problems == 0
    hosts.well("gateway", "run", "deliver")
    planned = {str(one.expects.promoted): one.expects.fingerprint for one in hosts.plans() if one.expects}
    assert hosts.prints() == {planned["shoes@1"]: 3, planned["shoes@2"]: 2}
