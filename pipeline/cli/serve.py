"""Run stages as a daemon: one poll at once, then one every poll_seconds, until ESTOP or a signal."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.app.installation import DEFAULT, default_config
from pipeline.cli.wiring.assembly import check_stages
from pipeline.cli.wiring.daily import compact_daily, prune_daily
from pipeline.cli.wiring.health_step import looking
from pipeline.cli.wiring.memory import give_back
from pipeline.cli.wiring.metering import Meter, metered_daemon
from pipeline.cli.wiring.rounds import say_summary
from pipeline.cli.wiring.running import Program, Running, running
from pipeline.errors import PipelineError
from pipeline.process import logs
from pipeline.process.stop import loop
from pipeline.settings import load
from pipeline.stage_names import STAGES
from pipeline.stages.loop import LakeStages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi serve`."""
    parser.add_argument("stages", nargs="+", metavar="STAGE", help=f"of: {', '.join(STAGES)}")
    parser.add_argument("--config", type=Path, help=f"the configuration file (default: {DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or SIGINT, 4 after ESTOP; raises Held when one runs already."""
    stages = check_stages(args.stages)
    settings = load(args.config or default_config(), os.environ)
    program = Program("-".join(stages), settings, stages, stages, marks="compute" in stages)
    say = logs.log(program.name)
    with running(program) as process:
        say.info("started: %s", program.name)
        _serve(process)
        say.info("stopped")
    return process.stop.exit_code


def _serve(process: Running) -> None:
    program, stop, clock = process.program, process.stop, process.process.clock
    settings, stages = program.settings, program.stages
    state = Path(settings.state)
    where = process.contexts()
    lakes = process.lakes(where, process.serving(), strict=False)
    with (
        process.beating(where, serves=True),
        metered_daemon(settings, stages, clock, program.say) as meter,
        looking(settings, [lake.context for lake in lakes], stages, clock, meter) as step,
    ):

        def turn() -> None:
            with process.watch.working():
                for lake in lakes:
                    for stage in stages:
                        if not stop():
                            _take(lake, stage, meter)
                compact_daily(lakes, stages, state, clock, stop)
                prune_daily(lakes, stages, state, clock, stop)
                if not stop():
                    step()

        loop(turn, settings.daemon.poll_seconds, stop, clock)
        if stop.estop:
            step.look()  # whoever is told of changes hears of this one, too


def _take(lake: LakeStages, stage: str, meter: Meter) -> None:
    """One turn; whatever is wrong is one line with cause and remedy, and the daemon lives on."""
    try:
        with meter.turn(lake.context.lake_name, stage) as tally:
            lake.take(stage, tally=tally)
    except PipelineError as error:
        lake.failed(stage, error)
        return
    if tally.worked:
        give_back()
        say_summary(lake.context, stage, tally)
