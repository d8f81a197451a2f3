"""`hathi train --on spark`: a session, signals and lines around a training on executors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cli.output.training import Tested, shown
from pipeline.cluster import training_driver
from pipeline.cluster.spark_training import OnSpark, Ways, open_session
from pipeline.cluster.training_driver import Watching, shared
from pipeline.training import job
from pipeline.training.assembly import How
from pipeline.training.job import Ended, Wanted
from pipeline.training.requests import Requests, heard
from pipeline.training.surroundings import Ending


@dataclass(frozen=True)
class Cluster:
    """master: "": that of spark-submit.  executors: 0: as many as it has slots.  patience: seconds; None: the default.
    local_steps: of the driver's loop; 0: executors exchange among themselves.

    settings: of Spark, names and values.
    """

    master: str
    executors: int = 0
    patience: float | None = None
    local_steps: int = 0
    settings: tuple[tuple[str, str], ...] = ()


def train(
    wanted: Wanted, cluster: Cluster, estop: Path | None, tested: Tested, row: Callable[[dict[str, Any]], None]
) -> Ended:
    """To the end, or until it is asked to leave.  Raises what training raises."""
    if cluster.local_steps:
        return _by_rounds(wanted, cluster, estop, tested, row)
    shared(wanted)  # what is refused is refused before a cluster starts
    requests = Requests(wanted.sigint, wanted.sighup, estop, time.monotonic)
    settings = dict(cluster.settings)
    with (
        heard(requests),
        shown(tested=tested) as (write, show),
        open_session(cluster.master or None, settings) as session,
    ):
        watching = Watching(lambda: requests.ending, write, row, show)
        ended = training_driver.train(session, wanted, cluster.executors, cluster.patience, watching)
    if ended.ending is Ending.LEFT:
        return replace(ended, why=ended.why or requests.why or requests.stopped_by)
    return ended


def _by_rounds(
    wanted: Wanted, cluster: Cluster, estop: Path | None, tested: Tested, row: Callable[[dict[str, Any]], None]
) -> Ended:
    """The driver's loop: this process has weights and history, and executors compute shards of each round."""
    share = shared(wanted)
    with shown(tested=tested) as (write, show), open_session(cluster.master or None, dict(cluster.settings)) as session:
        ways = Ways(lambda: False, lambda says: write(f"{says}\n"), lambda: 0)
        spark = OnSpark(session, cluster.executors, share.shards, ways)
        out = job.by_prefix(write, show, row)
        rounds = spark.rounds(share, cluster.local_steps)
        return job.train(replace(wanted, how=How(**share.how)), replace(out, estop=estop, rounds=rounds))
