"""A linear model on Spark: the bits of one process on 1, 2 and 4 executors; what is refused; the pod of a dry run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("numba", reason="LEFT OUT: linear models: scripts/linear.sh installs numba")

from pipeline.errors import ConfigError, PipelineError
from pipeline.training.descent import pieces, saving
from pipeline.training.descent import synchronous as together
from pipeline.training.descent.descent import Wanted
from pipeline.training.descent.losses import Loss
from pipeline.training.descent.synchronous import Here
from tests.integration.conftest import ROOT
from tests.spark.conftest import spark_environ
from tests.unit.training.sparse_sets import like_rcv1, write
from tests.unit.training.test_descent_shards import dense_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_tasks_on_executors_come_to_the_bits_of_one_process(form: str, session: SparkSession, tmp_path: Path) -> None:
    from pipeline.cluster.spark_shards import SparkShards

    if form == "sparse":
        path = write(tmp_path / "a.svm", like_rcv1(2000, 300, 12))
    else:
        path = dense_table(tmp_path / "a.parquet", 900, 90)
    plan = pieces.plan(str(path), 8, None, 0)
    wanted = Wanted(Loss.HINGE, 1e-3, passes=1, rate=0.5, held=0.2)
    here = Here(plan, tmp_path / "here")
    alone = together.train(here, together.look(here, plan, "a set", 0.2), wanted, 100)
    assert np.abs(alone.weights).max() > 0.01
    for tasks in (1, 4) if form == "sparse" else (2,):
        spark = SparkShards(session.sparkContext, plan, tasks)
        assert len(spark.blocks) == tasks
        found = together.train(spark, together.look(spark, plan, "a set", 0.2), wanted, 100)
        assert np.array_equal(found.weights, alone.weights)
        assert np.array_equal(found.bias, alone.bias)
        assert found.objective == alone.objective
        assert [one.validation for one in found.passes] == [one.validation for one in alone.passes]


def test_what_a_task_raises_arrives_as_it_is_and_what_kills_it_is_named(session: SparkSession, tmp_path: Path) -> None:
    from pipeline.cluster.spark_shards import SparkShards

    path = tmp_path / "a.svm"
    path.write_text("1 1:1\n-1 2:1\n")
    plan = pieces.plan(str(path), 2, None, 0)
    spark = SparkShards(session.sparkContext, plan, 1)
    path.write_text("1 1:nan\n-1 2:nan\n")
    with pytest.raises(ConfigError, match="holds no example that counts") as told:
        together.look(spark, plan, "a set", 0.0)
    assert "--shards" in told.value.hint
    path.unlink()
    with pytest.raises(PipelineError, match=r"a\.svm cannot be read"):
        together.look(spark, plan, "a set", 0.0)


def test_the_command_on_four_tasks_of_executors_of_its_own_comes_to_the_bits_of_one_process(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(2000, 300, 12))
    given = ["--passes", "1", "--rate", "1", "--early-stop", "0.2", "--local-steps", "100"]
    found = []
    for name, on in (("here", ["here"]), ("spark", ["spark=local-cluster[2,2,1024]", "--executors", "2",
                                                    "--spark-conf", "spark.executor.cores=2",
                                                    "--spark-conf", "spark.executor.memory=512m",
                                                    "--spark-conf", "spark.driver.memory=600m"])):  # fmt: skip
        command = [sys.executable, "-m", "pipeline.cli.main", "train", "linear", str(path), str(tmp_path / name)]
        done = subprocess.run([*command, *given, "--on", *on], cwd=ROOT, env=spark_environ(), capture_output=True,
                              text=True, timeout=600)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "pass 1 of 1: loss" in done.stdout
        found.append(done.stdout)
    assert "8 shards on 4 tasks of Spark; they meet after 100 of their steps" in found[1]
    assert (tmp_path / "spark" / saving.NPZ).read_bytes() == (tmp_path / "here" / saving.NPZ).read_bytes()


def test_a_dry_run_prints_the_pod_that_spark_submit_sends_and_no_cluster_hears_of_it(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "pipeline.cli.main", "train", "linear", "/data/a.svm", "/data/out",
        "--on", "spark=k8s://https://nowhere.invalid:6443", "--image", "registry/hathi:1", "--executors", "3",
        "--local-steps", "100", "--spark-conf", "spark.kubernetes.namespace=rooms",
        "--spark-conf", "spark.kubernetes.driver.volumes.persistentVolumeClaim.data.mount.path=/data",
        "--spark-conf", "spark.kubernetes.driver.volumes.persistentVolumeClaim.data.options.claimName=examples",
        "--dry-run",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=spark_environ(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "spark-submit --master k8s://https://nowhere.invalid:6443 --deploy-mode cluster" in done.stderr
    pod = json.loads(done.stdout)
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "registry/hathi:1"
    assert container["args"][-13:] == [
        "local:///opt/hathi/spark_submit.py", "train", "linear", "/data/a.svm", "/data/out", "--on", "spark",
        "--passes", "20", "--local-steps", "100", "--executors", "3",
    ]  # fmt: skip
    assert {one["mountPath"] for one in container["volumeMounts"]} >= {"/data"}
    assert {"claimName": "examples"}.items() <= next(
        one["persistentVolumeClaim"] for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one
    ).items()
