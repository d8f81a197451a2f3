"""`hathi train linear ... --on spark=k8s://HOST:PORT`: spark-submit starts a pod that does the same on the cluster."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from pipeline.cli.train_spark import pair
from pipeline.errors import ConfigError

_OPTIONS = ("loss", "l2", "passes", "rate", "decay", "early_stop", "seed", "dim", "shards", "local_steps", "executors")
_FLAGS = ("rows", "no_bias", "json")


def run(args: argparse.Namespace, master: str) -> int:
    """spark-submit's exit code; of a dry run 0."""
    from pipeline.cluster.submission import Submission, pod_of, submit

    if args.image is None:
        raise ConfigError("--on spark=k8s://... needs a container image", "", "give --image NAME: docs/linear.md")
    instances = {"spark.executor.instances": str(args.executors)} if args.executors else {}
    submission = Submission(master, args.image, {**instances, **dict(map(pair, args.spark_conf))}, _words(args))
    print(shlex.join(submission.command()), file=sys.stderr, flush=True)
    if args.dry_run:
        print(json.dumps(pod_of(submission), indent=2))
        return 0
    return submit(submission)


def _words(args: argparse.Namespace) -> list[str]:
    """What the pod runs.  Raises ConfigError for a path that only this host knows, and for what a pod has no files
    of."""
    if len(args.words) != 3:
        raise ConfigError("a pod needs data and a folder to make", f"given: {' '.join(args.words)}",
                          "hathi train linear DATA OUT")  # fmt: skip
    for path in args.words[1:]:
        if "://" not in path and not Path(path).is_absolute():
            raise ConfigError(f"{path} is no place that a pod knows", "it is relative to a folder of this host",
                              "give a path of a volume that the pods mount, from / on")  # fmt: skip
    if args.net or args.like:
        raise ConfigError("--net and --like are files of this host", "a pod does not have them",
                          "join the head where the net is: hathi train head")  # fmt: skip
    words = ["train", *args.words, "--on", "spark"]
    for name in _OPTIONS:
        value = getattr(args, name)
        if value not in (None, 0, 0.0) or (name == "seed" and value is not None):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words + [f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(args, name)]
