"""`hathi spark train`: `hathi train SOLVER --on spark`, by CaffeOnSpark's words."""

from __future__ import annotations

import argparse
import sys

from pipeline.cli.wiring.numbers import number_from
from pipeline.errors import ConfigError

_UNNEEDED = {
    "connection": "executors exchange in memory on one host, else over TCP",
    "devices": "spark.task.resource.gpu.amount says how many GPUs a task has: docs/spark.md",
    "persistent": "nothing is cached in Spark",
}
"""Words of CaffeOnSpark that say nothing here, and why."""
_ELSEWHERE = {
    "model": ("the result is PREFIX_iter_N.caffemodel, by the solver's snapshot_prefix", "leave it out"),
    "features": ("features are computed by a command of their own", "hathi spark features TABLE -features BLOB ..."),
    "label": ("labels lie in the data that the net's data layer reads", "leave it out"),
    "output": ("what is trained lies beside the solver's snapshot_prefix", "leave it out"),
    "outputFormat": ("it is of features", "leave it out"),
    "test": ("a test is a command of its own", "hathi train test MODEL WEIGHTS"),
}
"""Words of CaffeOnSpark that ask for what a training here does not do: why, and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of CaffeOnSpark that a training takes; those of `hathi train` follow after --."""
    option = parser.add_argument
    option("more", nargs="*", metavar="WORD", help="further words of hathi train, after --")
    option("-conf", "--conf", required=True, metavar="SOLVER", help="the solver's .prototxt")
    option("-weights", "--weights", metavar="A,B", help="weights to begin with")
    option(
        "-snapshot", "--snapshot", metavar="FILE", help="the .solverstate to go on from; its weights are known to it"
    )
    option("-clusterSize", "--executors", type=number_from(1), metavar="N", help="executors that compute")
    option("--master", help="the master of the cluster (default: that of spark-submit)")
    option("-connection", "--connection", help=argparse.SUPPRESS)
    option("-devices", "--devices", help=argparse.SUPPRESS)
    option("-persistent", "--persistent", action="store_true", default=None, help=argparse.SUPPRESS)
    for name in _ELSEWHERE:
        option(f"-{name}", nargs="?", const="", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """The exit code of `hathi train`."""
    from pipeline.cli.main import main

    for name, (why, hint) in _ELSEWHERE.items():
        if getattr(args, name) is not None:
            raise ConfigError(f"hathi spark train takes no -{name}", why, hint)
    for name, why in _UNNEEDED.items():
        if getattr(args, name) is not None:
            print(f"hathi: -{name} is not needed: {why}", file=sys.stderr)
    return main(words(args))


def submitted(given: list[str]) -> list[str]:
    """The words of `hathi` for those that spark-submit was given: CaffeOnSpark says -train where we say train."""
    for action in ("train", "features"):
        flag = f"-{action}"
        if flag in given and given[0] not in ("train", "features"):
            left = [word for word in given if word != flag] if action == "train" else given
            return ["spark", action, *left]
    caffeonsparks = {"-conf", "--conf"} & set(given)  # `hathi spark train` takes them
    return given if given[:1] == ["train"] and not caffeonsparks else ["spark", *given]


def words(args: argparse.Namespace) -> list[str]:
    """What `hathi train` is told.  Raises ConfigError for a further word that this command has itself."""
    if "--on" in args.more:
        raise ConfigError("hathi spark train is on Spark", "--on is of hathi train", "name the cluster by --master")
    found = ["train", args.conf, "--on", f"spark={args.master}" if args.master else "spark"]
    if args.snapshot:  # CaffeOnSpark wants the weights beside it, Caffe refuses them
        found += ["--snapshot", args.snapshot]
    elif args.weights:
        found += ["--weights", args.weights]
    return [*found, *(["--executors", str(args.executors)] if args.executors else []), *args.more]
