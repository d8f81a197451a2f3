"""Features and trainings on Apache Spark, of DataFrames: `from hathi.spark import features, train`.  It needs pyspark.

    found = features(df, "image_url", {"net": "deploy.prototxt", "weights": "x.caffemodel", "blob": "fc7"})
    ended = train(df, "solver.prototxt")

docs/spark.md has the whole story.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from pipeline.cluster.frame_dataset import Columns
from pipeline.cluster.frames import features
from pipeline.errors import ConfigError
from pipeline.settings import Fetch, load, travelling

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from pipeline.training.job import Ended

__all__ = ["Columns", "Fetch", "features", "train"]


def train(
    frame: DataFrame | None,
    solver: str | os.PathLike[str],
    *,
    test: DataFrame | None = None,
    columns: Columns | None = None,
    config: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    executors: int = 0,
    shards: int = 8,
    threads: int = 1,
    until: int | None = None,
    log: Callable[[str], None] | None = None,
) -> Ended:
    """Train a net on the executors of the session, as `hathi train SOLVER --on spark`, from a DataFrame's images.

    frame: labelled images; its rows become the dataset that the net's Data layer of phase TRAIN names as its source,
        in the order of the partitions.  None: the dataset is there.  test: the same, for the layer of phase TEST.
    solver: its file; the folder of the driver is one that all executors see at the same path.
    columns: where images and labels are; default: `data` and `label`.
    config: a configuration: of lakes and buckets that a source names by a URL.
    executors: that compute; 0: as many as the cluster has slots.  shards: V.  threads: of each executor.
    until: the iteration at which to end for now.  log: takes the lines of the training; default: none is printed.

    Returns `ending`, `iteration` and `model`, the path of the last snapshot's .caffemodel.  The same call once more
    goes on from the newest snapshot.  Raises `Error` for what is refused, and for another dataset that is there.
    """
    from pipeline.cluster import training_driver
    from pipeline.cluster.frame_sources import fill
    from pipeline.training.assembly import How
    from pipeline.training.job import Wanted
    from pipeline.training.solver import Flags

    session = SparkSession.getActiveSession() if frame is None else frame.sparkSession
    if session is None:
        raise ConfigError("there is no session of Spark", "", "make one first: SparkSession.builder.getOrCreate()")
    settings = travelling(load(Path(config), os.environ)) if config is not None else ""
    given = None if weights is None else (os.fspath(weights),)
    wanted = Wanted(
        Path(solver), Flags(weights=given), How(threads=threads, shards=shards), until=until, settings=settings
    )
    training_driver.shared(wanted)  # what is refused is refused before a row is read
    fill(wanted, {"TRAIN": frame, "TEST": test}, columns or Columns())
    watching = training_driver.Watching(lambda: False, log or (lambda line: None))
    return training_driver.train(session, wanted, executors, None, watching)
