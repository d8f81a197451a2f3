"""Run stages as a daemon: a turn now and then one every poll_seconds, until ESTOP or a signal."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.cli.output.summary import summary_of
from pipeline.cli.wiring.assembly import (
    attentive,
    check_stages,
    contexts,
    default_config,
    serving,
    spill_of,
    spilling,
    stacks_of,
    turns,
)
from pipeline.cli.wiring.daily import compact_daily, prune_daily
from pipeline.cli.wiring.health_step import looking
from pipeline.cli.wiring.memory import give_back
from pipeline.cli.wiring.metering import Meter, metered_daemon
from pipeline.clock import Clock, Process
from pipeline.errors import ConfigError, PipelineError
from pipeline.ledger.protocol import Context, beat, leave
from pipeline.process import logs
from pipeline.process.host import this_process
from pipeline.process.lock import forget_running, locked, refuse_estop, running_file
from pipeline.process.stop import Stop, beating, drained, loop, signals
from pipeline.process.watchdog import Watch, watched
from pipeline.settings import Settings, load
from pipeline.stage_names import STAGES
from pipeline.stages.loop import Turns


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
    say = logs.log(program)
    stop = Stop(state, Clock(), say.warning)
    with contextlib.ExitStack() as held:
        held.enter_context(signals(stop, lambda: forget_running(state)))
        for stage in stages:
            held.enter_context(locked(state, stage))
        logs.open_log(program, settings.logs, echo=settings.logs.echo)
        held.callback(logs.close_log)
        if "compute" in stages:
            held.enter_context(running_file(state, say.warning))
        held.enter_context(drained(stop, say.warning, lambda: forget_running(state)))
        me = this_process()
        spill = held.enter_context(spilling(settings, me))
        watch = Watch(settings.daemon.watchdog_seconds, me.clock, spill)
        held.enter_context(watched(watch, stacks_of(settings, program), say.warning))
        say.info("started: %s", program)
        _serve(settings, stages, program, stop, me, watch)
        say.info("stopped")
    return stop.exit_code


def _serve(settings: Settings, stages: list[str], program: str, stop: Stop, me: Process, watch: Watch) -> None:
    where = contexts(settings, stages, stop, program, process=me)
    if not where:
        raise ConfigError("no lake is configured", "", "add a [lakes.NAME] table")
    serve = serving(settings, me.clock, watch.note, spill_of(settings, me))
    lakes = [turns(attentive(context, watch), serve, strict=False) for context in where]

    say = logs.log(program).warning
    with (
        beating(lambda: _each(where, beat), lambda: _each(where, leave), settings.daemon.beat_seconds, say),
        metered_daemon(settings, stages, me.clock, say) as meter,
        looking(settings, [lake.context for lake in lakes], stages, me.clock, meter) as step,
    ):

        def turn() -> None:
            with watch.working():
                for lake in lakes:
                    for stage in stages:
                        if not stop():
                            _take(lake, stage, settings, meter)
                compact_daily(lakes, stages, Path(settings.state), me.clock, stop)
                prune_daily(lakes, stages, Path(settings.state), me.clock, stop)
                if not stop():
                    step()

        loop(turn, settings.daemon.poll_seconds, stop, me.clock)


def _each(where: list[Context], do: Callable[[Context], None]) -> None:
    for context in where:
        do(context)


def _take(lake: Turns, stage: str, settings: Settings, meter: Meter) -> None:
    """One turn; whatever is wrong is one line with cause and remedy, and the daemon lives on."""
    try:
        with meter.turn(lake.context.lake_name, stage) as tally:
            lake.take(stage, tally=tally)
    except PipelineError as error:
        logs.once(f"{stage} {error.message}", str(error), stage)
        return
    if tally.worked:
        give_back()
        logs.log(stage).info("%s", summary_of(stage, tally, settings, lake.context.lake_name))
