"""A driver for spark-submit: `hathi spark` over a lake, and what each worker was given (test_gpus.py runs it).

Arguments: the configuration, and the file for what was found.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pyspark import TaskContext
from pyspark.sql import SparkSession

from pipeline.cli import spark as command
from pipeline.cli.wiring.running import Program, running
from pipeline.cluster import task as executor
from pipeline.cluster.spark import Cluster, Shape
from pipeline.settings import load
from pipeline.stage_names import ON_THE_BOX


def seen(number: int) -> dict[str, Any]:
    """In a task: its GPU by Spark, and the one that its worker's nets see."""
    time.sleep(0.5)  # so that each slot has one
    context = TaskContext.get()
    assert context is not None
    given = context.resources()["gpu"].addresses
    return {"worker": os.getpid(), "given": given, "taken": executor._TAKEN, "seen": os.environ.get(SEEN, "")}


SEEN = "CUDA_VISIBLE_DEVICES"

if __name__ == "__main__":
    settings = load(Path(sys.argv[1]), {})
    with SparkSession.builder.getOrCreate() as session:
        cluster = Cluster(session, settings, Shape.of(session.sparkContext, 4, 4))
        with running(Program("spark", settings, ON_THE_BOX, watchdog=False)) as process:
            totals = command.work(process, cluster, False, lambda stage, done, to_do: None)
        found = session.sparkContext.parallelize(range(8), 8).map(seen).collect()
    Path(sys.argv[2]).write_text(json.dumps({"problems": totals.problems, "workers": found}))
