"""`hathi train SOLVER --on spark[=MASTER]`: the options of a training on the executors of a cluster."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.process.installed import to_install

if TYPE_CHECKING:
    from pipeline.cli.output.training import Tested
    from pipeline.training.job import Ended, Wanted

SPARK = "spark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a training on a cluster takes."""
    group = parser.add_argument_group("on a cluster (docs/spark.md)")
    group.add_argument("--on", metavar="spark[=MASTER]", help="train on the executors of Apache Spark; "
                       "MASTER: e.g. yarn or local-cluster[2,1,1024] (default: that of spark-submit); of linear: "
                       "here as well, and spark=k8s://HOST:PORT; replicas: as one of those that RANK, WORLD_SIZE and "
                       "MASTER_ADDR name (docs/kubernetes.md)")  # fmt: skip
    group.add_argument("--executors", type=int, default=0, metavar="N",
                       help="that compute the shards (default: the slots of the cluster, at most V)")  # fmt: skip
    group.add_argument("--patience", type=float, metavar="SECONDS",
                       help="an executor that is silent for so long hangs (default: 120)")  # fmt: skip
    group.add_argument("--spark-conf", action="append", default=[], metavar="NAME=VALUE",
                       help="a setting of Spark's; may be given several times")  # fmt: skip


def refuse_without(args: argparse.Namespace) -> None:
    """Raises ConfigError for options of a cluster without one."""
    for name in ("executors", "patience", "local_steps", "spark_conf"):
        if getattr(args, name):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} is of no use without --on", "it is of a training on a cluster",
                              "add --on spark, or leave it out")  # fmt: skip


def run(
    args: argparse.Namespace, wanted: Wanted, estop: Path | None, tested: Tested, row: Callable[[dict[str, Any]], None]
) -> Ended:
    """Trains to the end, or until it is asked to leave (Ending.LEFT).  Raises what training raises."""
    kind, _, master = args.on.partition("=")
    if kind != SPARK:
        raise ConfigError(f"--on {args.on} is no place to train", "known: spark, spark=MASTER, replicas",
                          "leave --on out to train here")  # fmt: skip
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigError("no pyspark here", "it is an extra", f"{to_install('spark')}; see docs/spark.md")
    from pipeline.cli.wiring.on_spark import Cluster, train

    settings = tuple(map(pair, args.spark_conf))
    return train(wanted, Cluster(master, args.executors, args.patience, args.local_steps, settings), estop, tested, row)


def pair(text: str) -> tuple[str, str]:
    """A setting of Spark's and its value.  Raises ConfigError for one without."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--spark-conf {text} has no value", "", "--spark-conf NAME=VALUE")
    return name, value
