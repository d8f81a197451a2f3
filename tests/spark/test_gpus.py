"""A cluster that has GPUs by Spark's words, and begins slow tasks a second time: both as Spark documents it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

from tests.integration.conftest import ROOT
from tests.spark.conftest import demand_spark, lines, make_lake, spark_environ, submitted
from tests.spark.test_spark import assert_equal, one_box, urls
from tests.spark.web import slow_web

PRETENDED = """#!/bin/sh
echo '{"name": "gpu", "addresses": ["0", "1"]}'
"""
GPUS = {
    "spark.worker.resource.gpu.amount": "2",
    "spark.executor.resource.gpu.amount": "2",
    "spark.task.resource.gpu.amount": "1",
}
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.multiplier": "0.1",
    "spark.speculation.quantile": "0.25",
}


def test_a_worker_has_the_gpu_that_spark_gave_its_task_and_speculative_tasks_are_told_of_and_double_nothing(
    tmp_path: Path,
) -> None:
    demand_spark()
    script = tmp_path / "gpus.sh"
    script.write_text(PRETENDED)
    script.chmod(0o755)
    conf = {**GPUS, **SPECULATION, "spark.worker.resource.gpu.discoveryScript": str(script)}
    with slow_web(0.5) as url:
        refs = {1: lines(1, 32), 2: urls(url, 2, 24)}
        lake = make_lake(tmp_path / "lake", refs, fetch__connections_per_host=1)
        alone = one_box(lake)
        lake.hathi("run", "ship")
        program = [str(ROOT / "tests/spark/with_gpus.py"), str(lake.config), str(tmp_path / "found.json")]
        words = submitted(*program, master="local-cluster[2,2,1024]", conf=conf)
        done = subprocess.run(words, env=spark_environ(), cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        lake.hathi("run", "deliver")
    assert_equal(lake, alone)
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["problems"] == 0
    for one in found["workers"]:
        assert one["given"] in (["0"], ["1"])
        if one["taken"]:  # else it has loaded no net
            assert [one["seen"]] == one["taken"]
            assert one["seen"] in ("0", "1")
    assert len({one["worker"] for one in found["workers"] if one["taken"]}) >= 2
    tried = Counter(place for place, _ in lake.attempts())
    assert max(tried.values()) >= 2, "a batch was computed a second time"
    logs = "".join(file.read_text() for file in (lake.folder / "logs").glob("spark*.log"))
    assert "speculative task" in logs
