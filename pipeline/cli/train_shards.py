"""`hathi train linear DATA [OUT] --on here|spark[=MASTER]`: shards that meet, in this process or on Apache Spark."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.train_linear import pass_line, share_of, speaker, tell_data, tell_end, trunk_of, wanted_of
from pipeline.cli.train_spark import pair
from pipeline.cli.wiring.whole_commands import estop_of
from pipeline.errors import ConfigError
from pipeline.process.installed import to_install

if TYPE_CHECKING:
    from pipeline.training.dataset.manifest import Manifest
    from pipeline.training.descent.descent import Pass
    from pipeline.training.descent.pieces import Plan
    from pipeline.training.descent.synchronous import Cluster

HERE, SPARK, KUBERNETES = "here", "spark", "k8s://"
SHARDS = 8
"""Where --shards is not given."""


def run(args: argparse.Namespace) -> int:
    """0.  Raises ConfigError and FormatError for data and options that cannot be used, Diverged."""
    master = _master(args)
    _refuse(args)
    if master.startswith(KUBERNETES):
        from pipeline.cli import train_submit

        return train_submit.run(args, master)
    if args.dry_run:
        raise ConfigError("--dry-run prints a pod, and there is none", f"--on {args.on}",
                          "give --on spark=k8s://HOST:PORT")  # fmt: skip
    from pipeline.amounts import counted
    from pipeline.training.dataset.folders import whole
    from pipeline.training.descent import pieces, saving, synchronous
    from pipeline.training.descent.data import Known

    (data, out), share = _asked(args), share_of(args)
    shards = args.shards or SHARDS
    say, look = speaker(args), estop_of(args.config)

    def told(one: Pass) -> None:
        say(pass_line(one, args.passes))
        look()

    with whole(out) as folder:
        plan = pieces.plan(data, shards, args.dim, args.seed or 0)
        manifest = _manifest(data)
        trunk = trunk_of(args, Path(data), manifest)
        with _cluster(args, plan, master, out) as (cluster, who):
            seen = synchronous.look(cluster, plan, data, share)
            known = Known(seen.count + seen.held, seen.dim, seen.labels, plan.dense, seen.left_out, manifest)
            wanted = wanted_of(args, known.count)
            tell_data(known, say)
            steps = f"{args.local_steps:,} of their steps" if args.local_steps else "a pass"
            say(f"l2 {wanted.l2:.3g}; {counted(shards, 'shard')} {who}; they meet after {steps}")
            look()
            trained = synchronous.train(cluster, seen, wanted, args.local_steps, told)
        result = saving.Result(data, wanted, trained, (shards, args.local_steps))
        about = saving.write(folder, result, known, trunk)
    tell_end(args, trained, about, out)
    return 0


def _master(args: argparse.Namespace) -> str:
    """Of Spark, or ""."""
    where, _, master = str(args.on).partition("=")
    if where not in (HERE, SPARK) or (master and where == HERE):
        raise ConfigError(f"--on {args.on} is no place to train", "", "give here, spark or spark=MASTER")
    if where == SPARK and importlib.util.find_spec("pyspark") is None:
        raise ConfigError("no pyspark here", "it is an extra", f"{to_install('spark')}; see docs/spark.md")
    if where == HERE and args.executors:
        raise ConfigError("--executors is of --on spark", "here there is this process", "leave it out")
    return master


def _refuse(args: argparse.Namespace) -> None:
    """Raises ConfigError for an option of workers that share a process's memory."""
    given = {
        "--compare": args.compare, "--lock": args.lock is not None, "--processes": args.processes,
        "--workers": args.workers is not None, "--labels": args.labels is not None,
    }  # fmt: skip
    for option, there in given.items():
        if there:
            raise ConfigError(f"--on takes no {option}", "each shard is walked by itself, and they meet",
                              f"leave {option} out, or --on")  # fmt: skip


def _asked(args: argparse.Namespace) -> tuple[str, Path]:
    if len(args.words) not in (2, 3):
        raise ConfigError("hathi train linear takes data and a folder to make", f"given: {' '.join(args.words)}",
                          "hathi train linear DATA [OUT]")  # fmt: skip
    data = str(args.words[1])
    return data, Path(args.words[2]) if len(args.words) == 3 else Path(f"{Path(data).name}.linear")


def _manifest(data: str) -> Manifest | None:
    from pipeline.training.dataset.manifest import MANIFEST
    from pipeline.training.linear import reading

    return reading.of_features(Path(data)) if (Path(data) / MANIFEST).is_file() else None


@contextlib.contextmanager
def _cluster(args: argparse.Namespace, plan: Plan, master: str, out: Path) -> Iterator[tuple[Cluster, str]]:
    """Who works on the shards, and who that is in words."""
    from pipeline.amounts import counted

    if args.on == HERE:
        from pipeline.training.dataset.folders import beside
        from pipeline.training.descent.synchronous import Here

        scratch = args.scratch or (out.parent if out.parent.is_dir() else Path("."))
        with beside(scratch / f"{out.name}.shards") as folder:
            yield Here(plan, folder), "in this process"
        return
    from pipeline.cluster.spark_shards import shards_of

    with shards_of(plan, master or None, args.executors, dict(map(pair, args.spark_conf))) as cluster:
        yield cluster, f"on {counted(len(cluster.blocks), 'task')} of Spark"
