"""Compute and aggregate on Apache Spark, for all that is open; features of a table; a training.  Or by spark-submit."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.cli import spark_features, spark_train
from pipeline.cli.output.progress import Show, shown
from pipeline.cli.output.reached import Reached
from pipeline.cli.output.table import Totals, as_json, print_table
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.cli.wiring.rounds import look_at_the_rest, take_round
from pipeline.cli.wiring.running import Program, Running, running
from pipeline.errors import ConfigError, PipelineError
from pipeline.process.installed import to_install
from pipeline.settings import Settings, load
from pipeline.stage_names import ON_THE_BOX
from pipeline.stages.loop import LakeStages

if TYPE_CHECKING:
    from pipeline.cluster.spark import Cluster

PROGRAM = "spark"
FAILED_ROUNDS = 5
"""In a row with problems: a job that Spark gave up has counted against its batches, which run alone the next time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi spark`."""
    actions = parser.add_subparsers(title="other actions", metavar="[features|train]", dest="action")
    spark_features.add_arguments(
        actions.add_parser("features", help="a table of images becomes a table with features",
                           description=spark_features.__doc__)
    )  # fmt: skip
    spark_train.add_arguments(
        actions.add_parser("train", help="hathi train --on spark, by CaffeOnSpark's words",
                           description=spark_train.__doc__)
    )  # fmt: skip
    add_place(parser)
    parser.add_argument(
        "--master", help=("the master of the cluster, e.g. yarn or local[4] (default: that of spark-submit)")
    )
    parser.add_argument(
        "--once", action="store_true", help=("look once at everything that is open (default: run until nothing is due)")
    )
    parser.add_argument(
        "--workers", type=int, default=0, help=("tasks at the same time (default: 0: as many as the cluster has slots)")
    )
    parser.add_argument(
        "--spread",
        type=int,
        default=0,
        help="tasks that may work on one shipment at the same time; each keeps to 1/SPREAD of the limits of its host",
    )
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    """0 done, 1 some task could not be done, 4 ESTOP."""
    if importlib.util.find_spec("pyspark") is None:
        raise ConfigError("no pyspark here", "it is an extra", f"{to_install('spark')}; see docs/spark.md")
    if args.action == "features":
        return spark_features.run(args)
    if args.action == "train":
        return spark_train.run(args)
    settings = load(place_of(args), os.environ)
    program = Program(
        PROGRAM,
        settings,
        ON_THE_BOX,
        [PROGRAM],
        echo=logging.WARNING,
        watchdog=False,
        foreground=not args.once or sys.stdin.isatty(),
    )
    with running(program) as process:
        with _cluster(settings, args) as cluster, shown() as show:
            reached = Reached(show, process.stop)
            totals = work(process, cluster, args.once, reached)
        if process.stop():
            print(reached.told(), file=sys.stderr)
        if args.json:
            print(as_json(totals))
        elif not process.stop():
            print_table(totals, settings)
    if process.stop():
        return process.stop.exit_code
    return PipelineError.exit_code if totals.blocked else 0


@contextlib.contextmanager
def _cluster(settings: Settings, args: argparse.Namespace) -> Iterator[Cluster]:
    from pipeline.cluster.spark import open_cluster

    with open_cluster(settings, args.master, args.workers, args.spread) as cluster:
        yield cluster


def work(process: Running, cluster: Cluster, once: bool, show: Show) -> Totals:
    """Rounds over all lakes until nothing is done any more, or one round over all that is open."""
    totals, stop = Totals(), process.stop
    where = process.contexts(show)
    lakes = [LakeStages(context, cluster.serve, strict=True, performer=cluster) for context in where]
    with process.beating(where):
        rounds = idle = failed = 0
        while not stop() and failed < FAILED_ROUNDS:
            before = totals.problems
            worked, polls = take_round(lakes, ON_THE_BOX, totals, lambda: True)
            totals.blocked = totals.problems > before
            failed = failed + 1 if totals.blocked else 0
            rounds, idle = rounds + 1, 0 if worked or totals.blocked else idle + 1
            if (rounds if once else idle) >= polls:
                break
    if not stop():
        for context in where:
            look_at_the_rest(context, totals)
    return totals
