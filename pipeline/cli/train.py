"""Train a net as `caffe train` does, test one as `caffe test`, time its layers; look at trainings in the bucket."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.amounts import counted
from pipeline.cli import train_head, train_linear, train_price, train_replicas, train_spark, train_template
from pipeline.cli.output.training import Tested, shown
from pipeline.cli.wiring.numbers import number_from
from pipeline.cli.wiring.whole_commands import in_order, refuse_others
from pipeline.errors import ConfigError
from pipeline.process.interrupts import ended_by_interrupts

if TYPE_CHECKING:
    from pipeline.cli.output.training import Show
    from pipeline.cli.wiring.metering import TrainingMeter
    from pipeline.settings import Settings
    from pipeline.training.assembly import How
    from pipeline.training.job import Ended
    from pipeline.training.solver import Flags, Solver
    from pipeline.training.surroundings import Shown

LEFT = 75
"""Exit code: stopped by SIGTERM or ESTOP, with a snapshot; the same command goes on."""
_BESIDE = {"test": ("a net and its weights", "MODEL WEIGHTS"), "time": ("a solver or a net", "SOLVER|MODEL")}
"""What follows words that are no solver's file; `./test` is a file."""
JOB_WORDS = {"list": 1, "show": 2, "fetch": 2, "stop": 2, "log": 2}
"""Words that are no solver's file, and how many words a command with one has; `./list` is a file."""
_EFFECTS = ("stop", "snapshot", "none")
_PRECISIONS = ("float32", "bf16")
_SHARDS = 8
"""Where several processes train together: enough for 8 of them, and for 2 and 4 the same bits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi train SOLVER`, `hathi train test|time ...`, and `hathi train list|show|fetch|stop|log`."""
    parser.usage = (
        "hathi train SOLVER [options]\n       hathi train test MODEL WEIGHTS [--iterations N] [options]\n"
        "       hathi train time SOLVER|MODEL [--iterations N] [options]\n"
        "       hathi train price SOLVER [--dataset FOLDER] [--json]\n"
        "       hathi train head DATASET OUT [--loss softmax|logistic|hinge] [--net FILE] [options]\n"
        "       hathi train linear DATA [OUT] [--loss hinge|logistic|squared-hinge] [--workers N] [options]\n"
        "       hathi train template finetune OUT --net FILE --dataset FOLDER [--freeze LAYER] [options]\n"
        "       hathi train list | show JOB | log JOB | stop JOB [--config FILE] [--lake NAME] [--json]\n"
        "       hathi train fetch JOB [--out FOLDER] [--best] [--config FILE] [--lake NAME] [--json]"
    )
    option = parser.add_argument
    option(
        "words",
        nargs="+",
        metavar="SOLVER",
        help="a solver's .prototxt; or test, a net's .prototxt and weights; or time, and one of both; or price, and a "
        "solver; or list, show, fetch, stop, log, of the bucket",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", action="append", metavar="A,B", help="weights to begin with; later files win")
    start.add_argument("--snapshot", type=Path, metavar="FILE", help="go on from a .solverstate, Caffe's own as well")
    option("--again", action="store_true", help="begin at 0 though a snapshot of this training is there")
    option("--until", type=number_from(1), metavar="N", help="end after iteration N with a snapshot")
    option("--seed", type=number_from(0), metavar="N", help="in place of the solver's random_seed")
    option("--threads", type=number_from(0), default=0, metavar="N",
           help="cores to compute with (default: 0: all, with --exact one); they decide the last digits")  # fmt: skip
    option("--data-threads", type=number_from(1), default=2, metavar="N",
           help="threads that decode images (default: 2); they decide no digit")  # fmt: skip
    option("--shards", type=number_from(1), metavar="V",
           help="cut each batch into V shards, whose gradients are summed in one order whoever computes them "
           "(default: 8 with several --workers, else 1; of linear --on: 8)")  # fmt: skip
    option("--exact", action="store_true",
           help="convolution in Caffe's order of sums: slower, but no near-tie falls otherwise")  # fmt: skip
    option("--precision", choices=_PRECISIONS, default=_PRECISIONS[0],
           help="of convolutions and products (default: float32); bf16 says how far it is from float32, and is "
           "faster only where the processor has a unit for it")  # fmt: skip
    option("--gpu", default="", metavar="N",
           help="the card that computes, all, or none (default: the solver's, with solver_mode: GPU)")  # fmt: skip
    option("--as-caffe", action="store_true",
           help="compute gradients that Caffe gets wrong as Caffe does; else such nets are refused")  # fmt: skip
    option("--stage", default="", metavar="A,B", help="stages of the training net, for include rules")
    option("--level", type=int, default=0, metavar="N", help="level of the training net")
    option("--sigint-effect", choices=_EFFECTS, default="stop", help="what SIGINT does (default: stop)")
    option("--sighup-effect", choices=_EFFECTS, default="snapshot", help="what SIGHUP does (default: snapshot)")
    option("--no-check", action="store_true", help="begin without reading every example once")
    option("--iterations", type=number_from(1), default=50, metavar="N", help="of test and time: batches (default: 50)")
    option("--config", type=Path, help="a configuration: ESTOP of its state folder ends the training")
    option("--job", action="store_true",
           help="train it as a job of the bucket of --config, beside any other host that does")  # fmt: skip
    option("--lake", metavar="NAME", help="of jobs: trainings of this lake alone")
    option("--out", type=Path, metavar="FOLDER", help="of fetch: where the files go (default: JOB-ITERATION)")
    option("--best", action="store_true", help="of fetch: the snapshot with the best test, in place of the last")
    option("--json", action="store_true", help="print one JSON object a display or test, and one at the end")
    train_spark.add_arguments(parser)
    train_head.add_arguments(parser)
    train_linear.add_arguments(parser)
    train_template.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 done; 75 stopped with a snapshot.  Raises what training raises: exit codes 2 and 3."""
    if args.words[0] == "test" and len(args.words) == 3:
        return _test(args)
    if args.words[0] == "time" and len(args.words) == 2:
        return _time(args)
    if args.words[0] == "price":
        return train_price.run(args, _flags(args), _how(args))
    if args.words[0] == "head":
        refuse_others(args, "head", train_head.TAKES, add_arguments)
        return in_order(lambda: train_head.run(args))
    if args.words[0] == "linear":
        refuse_others(args, "linear", train_linear.takes(args), add_arguments)
        return in_order(lambda: train_linear.run(args))
    if args.words[0] == "template":
        return train_template.run(args)
    if args.words[0] in JOB_WORDS:
        from pipeline.cli import train_jobs

        return train_jobs.run(args)
    if args.words[0] in _BESIDE:
        takes, words = _BESIDE[args.words[0]]
        given = " ".join(args.words[1:]) or "nothing"
        command = f"hathi train {args.words[0]}"
        raise ConfigError(f"{command} takes {takes}", f"given: {given}", f"{command} {words}")
    if len(args.words) != 1:
        raise ConfigError("hathi train takes one solver", f"given: {' '.join(args.words)}",
                          "hathi train SOLVER, hathi train test MODEL WEIGHTS, or hathi train time MODEL")  # fmt: skip
    if args.again and args.snapshot is not None:
        says = "--again begins at iteration 0, and --snapshot goes on from a file"
        raise ConfigError("--again and --snapshot exclude each other", says, "give one of the two")
    return _train(args)


def _train(args: argparse.Namespace) -> int:
    if args.on == train_replicas.REPLICAS:
        train_replicas.refuse({
            "--workers": bool(args.workers), "--job": args.job, "--executors": bool(args.executors),
            "--local-steps": bool(args.local_steps), "--spark-conf": bool(args.spark_conf), "--gpu": bool(args.gpu),
        })  # fmt: skip
    elif not args.on:
        train_spark.refuse_without(args)
    elif args.workers:
        raise ConfigError("--on excludes --workers", "executors compute the shards", "leave one of the two out")
    elif args.job:
        raise ConfigError(
            "--on and --job exclude each other",
            "snapshots of a job lie in the bucket, those of executors in a folder that all of them see; and a job is "
            "trained in one process of whichever host takes it",
            "leave one of the two out; with the same --shards and --threads both give the same weights",
        )
    if args.job and args.workers:
        raise ConfigError("--workers and --job exclude each other", "a job trains in one process of any host",
                          "leave one of the two out; --shards gives the same bits in both")  # fmt: skip
    if args.job:
        if args.gpu:
            raise ConfigError("--gpu and --job exclude each other", "a job trains on the CPU of any host",
                              "leave one of the two out")  # fmt: skip
        from pipeline.cli import train_job

        return train_job.run(args, _flags(args), _how(args))
    with ended_by_interrupts():
        from pipeline.cli.wiring.metering import metered_training
        from pipeline.clock import Clock
        from pipeline.process.lock import refuse_estop
        from pipeline.settings import travelling
        from pipeline.training import job
        from pipeline.training.job import Wanted
        from pipeline.training.requests import EFFECTS
        from pipeline.training.sharing.processes import own_name, share_of, together, with_threads

    settings = _settings(args.config)
    estop = Path(settings.state) if settings is not None else None
    if estop is not None:
        refuse_estop(estop)
    wanted = Wanted(
        Path(args.words[0]), _flags(args), _how(args), args.snapshot, args.again,
        args.until, EFFECTS[args.sigint_effect], EFFECTS[args.sighup_effect], args.data_threads, not args.no_check,
        travelling(settings) if settings is not None else "",
    )  # fmt: skip
    tested, row, began = Tested(), _printed(args.json), time.monotonic()
    if args.on == train_replicas.REPLICAS:
        ended = train_replicas.run(wanted, args.patience, estop, tested, _all(tested.take, row))
        return _told(args, ended, tested, began)
    if args.on:
        return _told(args, train_spark.run(args, wanted, estop, tested, _all(tested.take, row)), tested, began)

    given, wanted = wanted, with_threads(wanted, args.workers or 1)
    with (
        shown(tested=tested) as (write, show),
        metered_training(settings, Clock(), lambda says: write(f"{says}\n")) as meter,
        together(share_of(wanted), args.workers or 1) as exchange,
    ):
        if wanted is not given:
            each = f"{counted(args.workers, 'worker')}, each with {counted(wanted.how.threads, 'thread')}"
            write(f"hathi: {each}; the last digits depend on the threads: give --threads with other workers\n")
        told = job.by_prefix(write, _both(show, meter), _all(tested.take, meter.row, row))
        ended = job.train(wanted, replace(told, estop=estop, saved=meter.saved, exchange=exchange, name=own_name(0)))
    return _told(args, ended, tested, began)


def _told(args: argparse.Namespace, ended: Ended, tested: Tested, began: float) -> int:
    from pipeline.training.surroundings import Ending

    _printed(args.json)({
        "ended": ended.ending.value, "why": ended.why, "iteration": ended.iteration,
        "model": str(ended.model) if ended.model else None,
    })  # fmt: skip
    if not args.json:
        print(_ended(ended, tested, time.monotonic() - began))
    return LEFT if ended.ending is Ending.LEFT else 0


def _ended(ended: Ended, tested: Tested, seconds: float) -> str:
    """The last line: how far the training is, what it left, and what the last test of this command said."""
    said = [f"iteration {ended.iteration:,} after {seconds:.0f} s"]
    said += [str(ended.model)] if ended.model else []
    said += [tested.said(ended.iteration)] if tested.said() else []
    return "; ".join(said)


def _refuse(word: str, options: dict[str, bool]) -> None:
    """Raises ConfigError for the first of these options that is given to a command which does not take it."""
    for option, given in options.items():
        if given:
            raise ConfigError(f"hathi train {word} takes no {option}", "it computes on the CPU, a test in float32",
                              f"leave {option} out")  # fmt: skip


def _test(args: argparse.Namespace) -> int:
    _refuse("test", {"--gpu": bool(args.gpu), "--precision": args.precision != _PRECISIONS[0]})
    from pipeline.training.evaluating import evaluate
    from pipeline.training.log import Log

    net, weights = map(Path, args.words[1:])
    with shown() as (write, _):
        found = evaluate(net, weights, args.iterations, _flags(args), Log(write), _how(args))
    _printed(args.json)({"loss": found.loss, "outputs": {name: one.tolist() for name, one in found.means.items()}})
    return 0


def _how(args: argparse.Namespace) -> How:
    from pipeline.training.assembly import How

    shards = args.shards or (_SHARDS if args.on or (args.workers or 1) > 1 else 1)
    return How(args.threads, args.exact, args.as_caffe, args.precision, args.gpu, shards, max(1, args.local_steps))


def _time(args: argparse.Namespace) -> int:
    from pipeline.training.log import Log
    from pipeline.training.timing import measure

    _refuse("time", {"--gpu": bool(args.gpu)})
    with shown() as (write, _):
        found = measure(Path(args.words[1]), args.iterations, _flags(args), _how(args), Log(write))
    _printed(args.json)(asdict(found))
    return 0


def _flags(args: argparse.Namespace) -> Flags:
    from pipeline.training.solver import Flags

    weights = tuple(args.weights) if args.weights else None
    return Flags(args.level, tuple(args.stage.split(",")), weights, args.seed)


def _printed(as_json: bool) -> Callable[[dict[str, Any]], None]:
    def put(row: dict[str, Any]) -> None:
        if as_json:
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()

    return put


def _settings(config: Path | None) -> Settings | None:
    if config is None:
        return None
    from pipeline.settings import load

    return load(config, os.environ)


def _all(*takers: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def take(row: dict[str, Any]) -> None:
        for one in takers:
            one(row)

    return take


def _both(show: Show, meter: TrainingMeter) -> Show:
    """Shows each iteration to a person, and to the meter, which learns with the first one which training it is."""
    from pipeline.training import attempts_file
    from pipeline.training.job import beside

    begun = False

    def both(read: Solver, now: Shown) -> None:
        nonlocal begun
        if not begun:
            prefix = read.snapshots.prefix
            attempts = beside(prefix, attempts_file.NAME)
            meter.begin(os.path.abspath(prefix), read.max_iter, lambda: attempts_file.starts(attempts))
            begun = True
        meter.show(now)
        show(read, now)

    return both
