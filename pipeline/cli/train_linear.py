"""`hathi train linear DATA [OUT]`: a linear model by stochastic gradient descent, on sparse or dense examples."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.train_head import feature_set
from pipeline.cli.wiring.numbers import number_from
from pipeline.cli.wiring.whole_commands import estop_of
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.training.dataset.manifest import Manifest
    from pipeline.training.descent.data import Known, Source
    from pipeline.training.descent.descent import Pass, Trained, Wanted
    from pipeline.training.descent.judging import Test
    from pipeline.training.descent.memory import Memory
    from pipeline.training.linear.joining import Trunk

LOCKS = ("none", "stripe", "global", "atomic")
PER_WORKER = 50_000
"""Examples for which one more worker is worth its copy, where --workers is not given."""
HINGE = "hinge"
_SECONDS = 5.0
_ALWAYS = {"loss", "l2", "passes", "rate", "decay", "early_stop", "workers", "lock", "processes", "rows", "no_bias",
           "seed", "dim", "labels", "scratch", "compare", "on", "config", "json"}  # fmt: skip
_OF_NET = {"net", "weights", "blob", "like", "set", "pool", "input_size", "preprocess"}
_OF_SHARDS = {"shards", "local_steps"}
_OF_SPARK = {"executors", "spark_conf", "image", "dry_run"}


def takes(args: argparse.Namespace) -> set[str]:
    """The options that are looked at beside the others that are given."""
    found = _ALWAYS | ({"seeds"} if args.compare else _OF_NET)
    if args.on is None:
        return found if args.compare else found | {"test"}
    return found | _OF_SHARDS | (_OF_SPARK if args.on.startswith("spark") else {"executors", "dry_run"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train linear`, beside those of `train` and `train head`."""
    group = parser.add_argument_group("train linear DATA [OUT]", "a linear model; DATA: a file of libsvm's form, "
                                      "Parquet or NumPy's, a folder of such files, a dataset of features")  # fmt: skip
    option = group.add_argument
    option("--passes", type=number_from(1), default=20, metavar="N", help="over the examples (default: 20)")
    option("--rate", type=float, metavar="NUMBER", help="of the first pass (default: found on a sample)")
    option("--decay", type=float, metavar="NUMBER", help="what the rate is multiplied by after each pass "
           "(default: so that the last of N passes has the first one's rate, divided by 10 N)")  # fmt: skip
    option("--early-stop", type=float, default=0.0, metavar="SHARE", help="hold out this share of the examples; end "
           "when their loss is no better for 3 passes (default: 0)")  # fmt: skip
    option(
        "--workers",
        type=number_from(1),
        metavar="N",
        help=f"threads (default: one for {PER_WORKER:,} examples, as many as there are cores); of a SOLVER: processes "
        "that compute its shards (default: 1)",
    )
    option("--lock", choices=LOCKS, help="workers share one vector: without a lock, under a lock for each of 64 "
           "stripes, under one lock, or by atomic additions (default: each has a copy, "
           "averaged four times a pass)")  # fmt: skip
    option("--processes", action="store_true", help="worker processes over shared memory instead of threads")
    option("--rows", action="store_true", help="sparse examples one by one in random order, not in blocks of 64")
    option("--no-bias", action="store_true", help="the score is weights times features alone")
    option("--compare", action="store_true", help="all ways of sharing side by side, from one worker to averaged "
           "copies: a table, a page with curves, and whether leaving out the lock helps")  # fmt: skip
    option("--seeds", type=number_from(1), default=3, metavar="N", help="of --compare (default: 3)")
    option("--labels", type=Path, metavar="FILE", help="of a .npy of features: the .npy of its labels")
    option("--local-steps", type=number_from(0), default=0, metavar="T", help="of a shard between two meetings "
           "(default: 0: a pass of it); of a SOLVER on spark: of a shard in the driver's loop, which averages weights "
           "and history (default: 0: executors exchange after each)")  # fmt: skip
    option("--image", metavar="NAME", help="of pods: a container image with Spark and Hathi")
    option("--dry-run", action="store_true", help="of pods: print what would be submitted, and submit nothing")
    option("--dim", type=number_from(1), metavar="N", help="sparse: indices are below N; an example with another "
           "one is left out (default: as the largest index says)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """0.  Raises ConfigError and FormatError for data and options that cannot be used, Diverged."""
    if args.on is not None:
        from pipeline.cli import train_shards

        return train_shards.run(args)
    if args.compare:
        from pipeline.cli import train_compare

        return train_compare.run(args)
    from pipeline.training.dataset.folders import whole
    from pipeline.training.descent import data, judging, saving
    from pipeline.training.descent.descent import train

    source, out = asked(args)
    say = speaker(args)
    memory = memory_of(args)
    look = estop_of(args.config)

    def told(one: Pass) -> None:
        say(pass_line(one, args.passes))
        look()

    with whole(out) as folder, memory as held, data.opened(source, held) as found, _test(args, found.known) as test:
        look()
        trunk = trunk_of(args, source.path, found.manifest)
        wanted = wanted_of(args, found.known.count)
        tell(found.known, wanted, say)
        trained = train(found.examples, wanted, told, held)
        beside = None if test is None else (str(args.test), judging.judged(test, trained, wanted.loss))
        result = saving.Result(str(source.path), wanted, trained, test=beside)
        about = saving.write(folder, result, found.known, trunk)
    tell_end(args, trained, about, out)
    return 0


@contextmanager
def _test(args: argparse.Namespace, known: Known) -> Iterator[Test | None]:
    """The examples of --test, which are read before the training: it is not made for nothing."""
    if args.test is None:
        yield None
        return
    from pipeline.amounts import counted
    from pipeline.training.descent import judging

    source, _ = asked(args)
    with judging.opened(
        replace(
            source, path=args.test, labels=None, dim=None, told=reading_of(args.test, speaker(args), time.monotonic)
        ),
        known,
    ) as found:
        say = speaker(args)
        for sentence in found.left_out.sentences:
            say(f"warning: {sentence}")
        if found.strangers:
            say(
                f"warning: {args.test}: {counted(found.strangers, 'label')} of classes that {source.path} does not have"
            )
        yield found


def tell_end(args: argparse.Namespace, trained: Trained, about: dict[str, Any], out: Path) -> None:
    """What a training came to, and where it is."""
    from pipeline.amounts import counted
    from pipeline.training.descent import saving
    from pipeline.training.descent.losses import LOSSES, cost

    say = speaker(args)
    if trained.objective > (nothing := len(trained.bias) * cost(LOSSES[args.loss or HINGE], 0.0)):
        say(
            f"warning: the objective is {trained.objective:.6g}, and {nothing:.6g} with weights that are all zero: "
            "this model is worse than none | the rate is too high | leave --rate out, or give a smaller one"
        )
    if args.json:
        print(json.dumps(about | {"out": str(out)}))
        return
    held_out = f", {100 * trained.held_right:.2f} % of those held out" if trained.held_right is not None else ""
    say(f"objective {trained.objective:.6g}; {100 * trained.right:.2f} % right{held_out}")
    kept = "" if trained.best == len(trained.passes) else f", those of pass {trained.best}"
    if test := about["test"]:
        say(f"{test['data']}: {counted(test['examples'], 'example')}, loss {test['loss']:.5g}, "
            f"{100 * test['right']:.2f} % right")  # fmt: skip
    say(f"{out / saving.NPZ}, {out / saving.TABLE}: the weights{kept}")


def asked(args: argparse.Namespace) -> tuple[Source, Path]:
    """The data and the folder that the command names."""
    from pipeline.training.descent.data import Source

    if len(args.words) not in (2, 3):
        raise ConfigError("hathi train linear takes data and a folder to make", f"given: {' '.join(args.words)}",
                          "hathi train linear DATA [OUT]")  # fmt: skip
    path = Path(args.words[1])
    out = Path(args.words[2]) if len(args.words) == 3 else Path(f"{path.resolve().name}.linear")
    scratch = args.scratch or (out.parent if out.parent.is_dir() else Path("."))
    told = reading_of(path, speaker(args), time.monotonic)
    return Source(path, scratch, args.labels, args.dim, args.seed or 0, told), out


def reading_of(path: Path, say: Callable[[str], None], monotonic: Callable[[], float]) -> Callable[[int], None]:
    """Hears how many examples of a file each part has, and says every few seconds how many they are."""
    count, last = 0, monotonic()

    def told(more: int) -> None:
        nonlocal count, last
        count += more
        if (now := monotonic()) - last >= _SECONDS:
            last = now
            say(f"reading {path}: {count:,} examples")

    return told


def speaker(args: argparse.Namespace) -> Callable[[str], None]:
    """Says a line to a person: with --json on stderr."""
    return lambda text: print(text, file=sys.stderr if args.json else sys.stdout, flush=True)


def memory_of(args: argparse.Namespace) -> Memory:
    """Where the examples lie."""
    from pipeline.training.descent.memory import Own, Shared

    return Shared() if args.processes else Own()


def wanted_of(args: argparse.Namespace, count: int) -> Wanted:
    """Raises ConfigError for numbers that are none of their option's."""
    from pipeline.training.descent import values
    from pipeline.training.descent.descent import Wanted
    from pipeline.training.descent.losses import LOSSES

    if args.loss is not None and args.loss not in LOSSES:
        raise ConfigError(f"--loss {args.loss} is none of a linear model's", "", f"give one of: {', '.join(LOSSES)}")
    held = share_of(args)
    rate = None if args.rate is None else _between("--rate", args.rate, 1e-300, 1e300, "a number above 0")
    decay = None if args.decay is None else _between("--decay", args.decay, 1e-300, 1.0 + 1e-12, "above 0, at most 1")
    cores = len(os.sched_getaffinity(0))
    workers = args.workers or max(1, min(cores, count // PER_WORKER))
    sharing = {None: values.FREE, "none": values.FREE, "stripe": values.STRIPES, "global": values.GLOBAL,
               "atomic": values.ATOMIC}[args.lock]  # fmt: skip
    return Wanted(LOSSES[args.loss or HINGE], _l2(args.l2, count), args.passes, rate, decay, held, workers,
                  args.lock is None, sharing, args.rows, not args.no_bias, args.processes, args.seed or 0)  # fmt: skip


def share_of(args: argparse.Namespace) -> float:
    """Of the examples that are held out."""
    return _between("--early-stop", args.early_stop, 0.0, 1.0, "a share of the examples from 0 to below 1")


def tell_data(known: Known, say: Callable[[str], None]) -> None:
    """What was read, and what of it does not count."""
    from pipeline.amounts import counted

    for sentence in known.left_out.sentences:
        say(f"warning: {sentence}")
    kind = "dense" if known.dense else "sparse"
    classes = counted(len(known.labels.classes), "class", "classes")
    several = ", several an example" if known.labels.many else ""
    left = f"; {known.left_out.count:,} left out" if known.left_out.count else ""
    say(f"{counted(known.count, f'{kind} example')} of {counted(known.dim, 'coordinate')}, {classes}{several}{left}")


def tell(known: Known, wanted: Wanted, say: Callable[[str], None]) -> None:
    """What was read, what does not count, and who works on it."""
    from pipeline.amounts import counted

    tell_data(known, say)
    who = "process" if wanted.processes else "thread"
    how = "a copy each, averaged four times a pass" if wanted.copies else "one shared vector"
    workers = counted(wanted.workers, who, "processes" if wanted.processes else "")
    say(f"l2 {wanted.l2:.3g}; {workers}{'; ' + how if wanted.workers > 1 else ''}")


def pass_line(one: Pass, passes: int) -> str:
    """A pass as a person reads it."""
    said = [f"pass {one.number} of {passes}: loss {one.loss:.5g}"]
    said += [f"validation {one.validation:.5g}"] if one.validation is not None else []
    said += [f"rate {one.rate:.3g}", f"{one.updates / max(one.seconds, 1e-9) / 1e6:.2f} M updates/s"]
    said += [f"conflicts {100 * one.conflicts:.2g} %"] if one.conflicts is not None else []
    return ", ".join(said)


def trunk_of(args: argparse.Namespace, path: Path, manifest: Manifest | None) -> Trunk | None:
    """The net that --net and --like name, below a model of the features of a dataset."""
    below = feature_set(args)
    if below is None:
        return None
    from pipeline.training.linear import joining

    if manifest is None:
        raise ConfigError("a net is given, and the examples are not its features", f"{path} is no dataset",
                          "give a dataset that hathi dataset make --features made, or leave the net out")  # fmt: skip
    return joining.trunk_of(below, manifest, path)


def _l2(text: str | None, count: int) -> float:
    if text is None:
        return 1.0 / count
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    return _between("--l2", found, 1e-300, 1e300, "a number above 0 (default: 1 / examples, liblinear's C = 1)")


def _between(option: str, value: float, low: float, high: float, allowed: str) -> float:
    if not low <= value < high:
        raise ConfigError(f"{option} {value:g} is not allowed", "", f"give {allowed}")
    return value
