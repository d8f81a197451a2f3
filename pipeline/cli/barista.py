"""A barista holds a solver's net in memory that other processes map: start one, stop it, list all, try every verb."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.wiring.numbers import number_from
from pipeline.errors import ConfigError, PipelineError
from pipeline.process import logs

if TYPE_CHECKING:
    from pipeline.barista.starting import Order

ASK_SECONDS, END_SECONDS = 2.0, 60.0
_WORDS = ("start", "stop", "list", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi barista start|stop|list|test`."""
    parser.usage = (
        "hathi barista start SOLVER [--interface FILE] [--idle S] [options]\n"
        "       hathi barista stop [SOLVER] [--interface FILE]\n       hathi barista list [--json]\n"
        "       hathi barista test SOLVER | --interface FILE"
    )
    option = parser.add_argument
    option("action", choices=_WORDS, help="start one, stop one, list all of this user, or try every verb of one")
    option("solver", nargs="?", metavar="SOLVER", help="a solver's .prototxt")
    option("--interface", type=Path, metavar="FILE",
           help="the file that says where the barista is (default: the solver's own)")  # fmt: skip
    option("--idle", type=float, default=None, metavar="S",
           help="end after so many seconds without a customer (default: 600; 0: never)")  # fmt: skip
    option("--slots", type=number_from(1), default=None, metavar="N", help="customers at once (default: 16)")
    option("--weights", action="append", metavar="A,B", help="weights to begin with; later files win")
    option("--seed", type=number_from(0), metavar="N", help="in place of the solver's random_seed")
    option("--threads", type=number_from(0), default=0, metavar="N",
           help="cores to compute with (default: 0: all, with --exact one)")  # fmt: skip
    option("--exact", action="store_true", help="convolution in Caffe's order of sums")
    option("--as-caffe", action="store_true", help="compute gradients that Caffe gets wrong as Caffe does")
    option("--config", default="", metavar="FILE", help="a configuration: ESTOP of its state folder ends the barista")
    option("--until-eof", action="store_true",
           help="end when standard input ends: a pipe that the barista's owner holds")  # fmt: skip
    option("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """0; what cannot be done is raised."""
    return {"start": _start, "stop": _stop, "list": _list, "test": _test}[args.action](args)


def _start(args: argparse.Namespace) -> int:
    from pipeline.barista import starting

    owner = sys.stdin.fileno() if args.until_eof else None
    found = starting.start(_order(args), owner)
    for one in found.warnings:
        print(logs.escape(f"hathi: {one}"), file=sys.stderr)
    if args.json:
        print(json.dumps({"interface": str(found.interface), "pid": found.pid, "fresh": found.fresh}))
    else:
        print(found.interface)
    return 0


def _order(args: argparse.Namespace) -> Order:
    from pipeline.barista.starting import IDLE_SECONDS, SLOTS, Order

    if args.solver is None:
        raise ConfigError(f"hathi barista {args.action} takes a solver", "", "hathi barista start SOLVER")
    if args.idle is not None and not 0 <= args.idle < float("inf"):
        raise ConfigError(f"--idle {args.idle:g}", "seconds, 0 or more", "0: it waits for customers for ever")
    return Order(
        args.solver, str(args.interface or ""), tuple(args.weights or ()), args.seed, args.threads, args.exact,
        args.as_caffe, args.slots or SLOTS, IDLE_SECONDS if args.idle is None else args.idle, args.config,
        args.until_eof,
    )  # fmt: skip


def _interface(args: argparse.Namespace) -> Path:
    """The one that is named, else that of the solver."""
    from pipeline.barista import interface

    if args.interface is not None:
        return Path(args.interface).absolute()
    if args.solver is None:
        hint = "give its SOLVER, or --interface FILE; hathi barista list names all"
        raise ConfigError(f"hathi barista {args.action}: which one?", "", hint)
    return interface.default(Path(args.solver))


def _stop(args: argparse.Namespace) -> int:
    from pipeline.barista import starting

    file = _interface(args)
    ran = starting.stop(file, END_SECONDS)
    says = "has ended" if ran else "had ended already; what it left is removed"
    print(json.dumps({"interface": str(file), "ran": ran}) if args.json else f"the barista of {file} {says}")
    return 0


@dataclass(frozen=True)
class _Row:
    """state: runs, busy, or how it ended."""

    interface: str
    solver: str
    pid: int
    state: str
    version: int | None = None
    customers: str = ""


def _list(args: argparse.Namespace) -> int:
    from pipeline.cli.output.columns import columns

    found = list(_rows())
    if args.json:
        for one in found:
            print(json.dumps(vars(one)))
    elif not found:
        print("no barista runs")
    else:
        body = [(one.interface, str(one.pid), "" if one.version is None else str(one.version), one.customers,
                 one.solver, one.state) for one in found]  # fmt: skip
        for line in columns([("interface", "pid", "version", "customers", "solver", "state"), *body], {1, 2, 3}):
            print(logs.escape(line))
    return 0


def _rows() -> Iterator[_Row]:
    from pipeline.barista import interface, starting
    from pipeline.process.lock import left_behind

    for file in interface.all_files():
        try:
            said = interface.read(file)
        except ConfigError as error:
            yield _Row(str(file), "", 0, error.message)
            continue
        ended = left_behind(file.parent, file.name) or "has ended"
        row = {"interface": str(file), "solver": said.solver, "pid": said.pid}
        if interface.alive(file) is None:
            yield _Row(**row, state=ended)  # type: ignore[arg-type]
            continue
        try:
            about: dict[str, Any] = starting.about(file, ASK_SECONDS)
        except (TimeoutError, PipelineError) as error:
            busy = "computes" if isinstance(error, TimeoutError) else str(error)
            yield _Row(**row, state=busy)  # type: ignore[arg-type]
        else:
            leased = f"{about['customers']} of {about['slots']}"
            yield _Row(**row, state="runs", version=about["version"], customers=leased)  # type: ignore[arg-type]


def _test(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from pipeline.barista import starting, trial

    if args.interface is not None:
        if args.solver is not None:
            hint = "hathi barista test SOLVER starts one of its own"
            raise ConfigError("hathi barista test takes a solver or --interface, not both", "", hint)
        return _tell(trial.tried(_interface(args), changes=False), args.json)
    with tempfile.TemporaryDirectory(prefix="hathi-barista-test-") as folder:
        file = Path(folder) / "test.interface"
        started = starting.start(replace(_order(args), interface=str(file)))
        try:
            return _tell(trial.tried(started.interface, changes=True), args.json)
        finally:
            if file.exists():
                starting.stop(file, END_SECONDS)


def _tell(tried: Iterator[Any], as_json: bool) -> int:
    for one in tried:
        mark = "ok" if one.done else "left out"
        line = json.dumps(vars(one)) if as_json else f"{one.verb:<9} {mark}: {one.says}"
        print(logs.escape(line), flush=True)
    return 0
