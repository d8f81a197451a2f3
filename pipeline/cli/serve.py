"""Run stages as a daemon: a turn now and then one every poll_seconds, until ESTOP or a signal."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

from pipeline import logs
from pipeline.cli.assembly import STAGES, check_stages, contexts, default_config, serving, turns
from pipeline.cli.summary import summary_of
from pipeline.clock import Clock
from pipeline.daemon import Stop, beating, drained, loop, signals
from pipeline.errors import ConfigError, PipelineError
from pipeline.lock import locked, refuse_estop, running_file
from pipeline.runner import Context, beat, leave
from pipeline.settings import Settings, load
from pipeline.turns import Turns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi serve`."""
    parser.add_argument("stages", nargs="+", metavar="STAGE", help=f"of: {', '.join(STAGES)}")
    parser.add_argument("--config", type=Path, help="a configuration file; config/local.toml by default")


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or SIGINT, 4 after ESTOP; raises Held when one runs already."""
    stages = check_stages(args.stages)
    settings = load(args.config or default_config(), os.environ)
    state = Path(settings.state)
    refuse_estop(state)
    program = "-".join(stages)
    with contextlib.ExitStack() as held:
        for stage in stages:
            held.enter_context(locked(state, stage))
        logs.open_log(program, settings.logs, echo=settings.logs.echo)
        say = logs.log(program)
        clock = Clock()
        stop = Stop(state, clock, say.warning)
        running = state / "_PIPE_RUNNING"
        if "compute" in stages:
            held.enter_context(running_file(state, say.warning))
        held.enter_context(signals(stop))
        cleanup = (lambda: running.unlink(missing_ok=True)) if "compute" in stages else (lambda: None)
        held.enter_context(drained(stop, say.warning, cleanup))
        say.info("started: %s", program)
        _serve(settings, stages, program, stop, clock)
        say.info("stopped")
    logs.close_log()
    return stop.exit_code


def _serve(settings: Settings, stages: list[str], program: str, stop: Stop, clock: Clock) -> None:
    where = contexts(settings, stages, stop, program)
    if not where:
        raise ConfigError("no lake is configured", "", "add a [lakes.NAME] table")
    serve = serving(settings, clock)
    lakes = [turns(context, serve, strict=False) for context in where]

    def turn() -> None:
        for lake in lakes:
            for stage in stages:
                if not stop():
                    _take(lake, stage, settings)

    with beating(lambda: _beat(where), settings.daemon.beat_seconds, logs.log(program).warning):
        try:
            loop(turn, settings.daemon.poll_seconds, stop, clock)
        finally:
            for context in where:
                leave(context)


def _beat(where: list[Context]) -> None:
    for context in where:
        beat(context)


def _take(lake: Turns, stage: str, settings: Settings) -> None:
    """One turn; whatever is wrong is one line with cause and remedy, and the daemon lives on."""
    try:
        tally = lake.take(stage)
    except PipelineError as error:
        logs.once(f"{stage} {error.message}", str(error), stage)
        return
    if tally.worked:
        logs.log(stage).info("%s", summary_of(stage, tally, settings))
