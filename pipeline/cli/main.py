"""`hathi COMMAND`: finds the command, runs it, and turns errors into three lines and an exit code."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from typing import NamedTuple, NoReturn, Protocol, TextIO, cast

from pipeline import __version__
from pipeline.errors import PipelineError
from pipeline.process.forks import leave
from pipeline.process.interrupts import INTERRUPTED, ended_by_interrupts, keep_interrupts
from pipeline.process.streams import with_standard_streams


class Entry(NamedTuple):
    """A command: its module in this package, with `add_arguments` and `run`, and what it does in one line."""

    module: str
    purpose: str


GROUPS: dict[str, dict[str, Entry]] = {
    "run the pipeline": {
        "run": Entry("run", "run stages in this process until nothing is due"),
        "sample": Entry("sample", "try it: run every stage on a small sample lake; or make a sample to train on"),
        "serve": Entry("serve", "run stages as a daemon"),
        "spark": Entry("spark", "compute and aggregate on a Spark cluster"),
        "stop": Entry("stop", "engage ESTOP: here, or on every host by the bucket"),
        "start": Entry("start", "take ESTOP back, and say what still stands"),
    },
    "look": {
        "status": Entry("status", "show what is open, waiting, held and running"),
        "health": Entry("health", "say OK, Warning or Alert, and what to do"),
        "doctor": Entry("doctor", "check this host from the ground up"),
        "verify": Entry("verify", "check that everything that was written exists and adds up"),
        "why": Entry("why", "show what happened to an item, and why"),
        "report": Entry("report", "write an HTML page about a day, a shipment or a training"),
        "stats": Entry("stats", "describe features, and measure how far two runs differ"),
        "similar": Entry("similar", "find the items that are most similar to an item or an image"),
        "fetch": Entry("fetch", "fetch URLs as the pipeline does, and show each step"),
        "config": Entry("config", "show the effective settings, or check them"),
    },
    "mend": {
        "quarantine": Entry("quarantine", "show held batches; release them or drop them"),
        "ship": Entry("ship", "ship a snapshot once more"),
        "backfill": Entry("backfill", "compute a set anew after its net has changed"),
        "compact": Entry("compact", "merge each partner's deliveries into one current table"),
        "prune": Entry("prune", "delete what is no longer needed"),
        "forget": Entry("forget", "delete an item, or all of a partner, wherever it is: a person's right"),
    },
    "models": {
        "net": Entry("net", "look at a net, or run it on images"),
        "dataset": Entry("dataset", "make, look at and write sets of labelled images"),
        "train": Entry("train", "train a net with Caffe's solver files, or test one"),
        "barista": Entry("barista", "hold a solver's net in memory for other processes"),
        "promote": Entry("promote", "put a trained net into use for the sets that follow it"),
        "models": Entry("models", "show which nets were promoted, and where each comes from"),
        "evaluate": Entry("evaluate", "judge a net on a dataset, alone or beside another"),
        "service": Entry("service", "let teams train over REST: an API, workers, tenants and tokens"),
        "kube": Entry("kube", "train on Kubernetes: jobs that come back by themselves, and their operator"),
        "remote": Entry("remote", "use such a service: push data, train, watch, classify"),
    },
}
"""The commands as `hathi --help` shows them."""
COMMANDS: dict[str, Entry] = {name: entry for group in GROUPS.values() for name, entry in group.items()}

EXIT_CODES = """\
exit codes:
  0    done; items that failed are data, not an error
  1    something unexpected
  2    usage or configuration
  3    `run` until idle: done, but a batch is held, or files of the sources were not read; `train`: diverged;
       `promote`: refused
  4    ESTOP is engaged
  71   `train` wants more memory than it gets
  75   `train` stopped with a snapshot (SIGTERM, ESTOP); type the same command to go on
  130  interrupted from the keyboard (SIGINT); type the same command to go on
  141  nobody reads the output any more (SIGPIPE)
  143  `run`, `spark`, `train head` and `train linear` asked to end (SIGTERM)
`serve`, and `run --once` without a terminal, end with 0 when a signal asks them to: that is their good order
`health` has its own: 0 OK, 1 Warning, 2 Alert"""


class Command(Protocol):
    """What a command's module offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code.  Only the chosen command's module is imported."""
    words = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in words if not word.startswith("-")), "")
    debug = "--debug" in words
    try:
        with ended_by_interrupts():
            args = _parser(name).parse_args(words)
        code = cast(Command, args.command).run(args)
        sys.stdout.flush()
        return code
    except PipelineError as error:
        report(error, sys.stderr, debug)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError as error:
        if not _unread():
            unexpected(error, sys.stderr, debug)
            return 1
        return 128 + signal.SIGPIPE
    except Exception as error:
        unexpected(error, sys.stderr, debug)
        return 1


def _unread() -> bool:
    """Whether nobody reads our output any more, e.g. after `hathi why ... | head`; it goes nowhere from now on."""
    gone = select.poll()
    for stream in (1, 2):
        gone.register(stream, 0)
    streams = [stream for stream, event in gone.poll(0) if event & select.POLLERR]
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    return bool(streams)


def report(error: PipelineError, stream: TextIO, debug: bool = False) -> None:
    """Message, detail and hint as lines; with `debug` the trace before them."""
    if debug:
        _print_trace(error, stream)
    print(_shown(f"hathi: {error.message}"), file=stream)
    if error.detail:
        print(_shown(f"  detail: {error.detail}"), file=stream)
    if error.hint:
        from pipeline.process.installed import located

        print(_shown(f"  hint: {located(error.hint)}"), file=stream)


def _print_trace(error: Exception, stream: TextIO) -> None:
    print(_shown("".join(traceback.format_exception(error)).rstrip("\n")), file=stream)


def _shown(text: str) -> str:
    """Its lines, without secrets and what a terminal obeys: a message may quote what somebody else wrote."""
    from pipeline.process.logs import escape, redact  # not needed by a command that works, and slow to import

    return "\n".join(escape(redact(line)) for line in text.split("\n"))


def unexpected(error: Exception, stream: TextIO, debug: bool = False) -> None:
    """One line, and the trace in a file of its own: somebody will need it."""
    if debug:
        _print_trace(error, stream)
    from pipeline.process.logs import escape, redact  # not needed by a command that works, and slow to import

    text = escape(redact(next(iter(str(error).splitlines()), "")))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="hathi-trace-", suffix=".txt", delete=False) as file:
            print(_shown("".join(traceback.format_exception(error)).rstrip("\n")), file=file)
        where = f"the trace is in {file.name}"
    except OSError as problem:
        where = f"the trace could not be written ({problem}); --debug prints it"
    print(f"hathi: unexpected {type(error).__name__}: {text}; {where}", file=stream)


def _parser(chosen: str) -> argparse.ArgumentParser:
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="print stack traces")
    parser = argparse.ArgumentParser(
        prog="hathi",
        description="Turns image URLs in a Hadoop lake into image features in the same lake, and trains Caffe nets.",
        epilog=f"{_grouped()}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[debug],
    )
    parser.add_argument(
        "--version", action="version", version=f"hathi {__version__}", help="print the version and exit"
    )
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, help="a command of the groups below; `hathi COMMAND --help` explains it"
    )
    for name, entry in COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, add_help=False)
            continue
        module = importlib.import_module(f"pipeline.cli.{entry.module}")
        below = commands.add_parser(
            name,
            help=entry.purpose,
            description=module.__doc__,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[debug],
        )
        module.add_arguments(below)
        below.set_defaults(command=module)
    if chosen and chosen not in COMMANDS:
        import difflib  # only for who mistyped

        near = difflib.get_close_matches(chosen, sorted(COMMANDS))
        meant = f"; did you mean {', '.join(sorted(near))}?" if near else "."
        parser.error(f"no command {chosen!r}{meant} Commands are: {', '.join(COMMANDS)}")
    return parser


def _grouped() -> str:
    """All commands, by what a person wants to do."""
    width = max(map(len, COMMANDS)) + 2
    blocks = []
    for title, entries in GROUPS.items():
        lines = [f"  {name:<{width}}{entry.purpose}" for name, entry in entries.items()]
        blocks.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join(blocks)


def entry() -> NoReturn:
    """`main`, as a process of its own."""
    keep_interrupts()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core of this process, or of one that it starts, tells secrets
    with_standard_streams()
    sys.meta_path.insert(0, _NoPandas())
    leave(main())


class _NoPandas(MetaPathFinder):
    """Says that pandas is not installed.  pyarrow would import it at the first array: half a second for nothing."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("hathi needs no pandas", name=fullname)


if __name__ == "__main__":
    entry()
