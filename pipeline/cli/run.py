"""Run stages in this process until nothing is due; with --refs, over a person's own list."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import logs
from pipeline.cli import own_list
from pipeline.cli.assembly import (
    STAGES,
    attentive,
    check_stages,
    contexts,
    default_config,
    serving,
    spill_of,
    stacks_of,
    turns,
)
from pipeline.cli.daily import prune_daily
from pipeline.cli.memory import give_back
from pipeline.cli.progress import Show, shown
from pipeline.cli.summary import summary_of
from pipeline.cli.table import Totals, as_json, print_table
from pipeline.clock import Clock, Process
from pipeline.daemon import Stop, beating, drained, signals
from pipeline.errors import ConfigError, PipelineError
from pipeline.host import this_process
from pipeline.layout import version_of
from pipeline.lock import Held, forget_running, locked, refuse_estop, running_file
from pipeline.runner import Context, beat, leave, waiting
from pipeline.settings import Settings, load
from pipeline.turns import Tally, Turns
from pipeline.watchdog import Watch, watched

HELD_EXIT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi run`."""
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of: {', '.join(STAGES)}; all when none is named")
    parser.add_argument("--config", type=Path, help="a configuration file; config/local.toml when no --refs is given")
    parser.add_argument("--once", action="store_true", help="look once at all that is open, as cron wants it")
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    own_list.add_arguments(parser)
    parser.add_argument("--allow-private", action="store_true", help="fetch from private addresses and any port")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="more",
        metavar="KEY=VALUE",
        help="any setting by its path, e.g. fetch.contact=me@shop.example, sets.features.preprocess.resize=crop",
    )


def run(args: argparse.Namespace) -> int:
    """0 done, 1 some task could not be done, 3 done but something is held, 4 ESTOP; see --help for the rest."""
    stages = check_stages(args.stages)
    settings = settings_of(args)
    state = Path(settings.state)
    refuse_estop(state)
    own = own_list.given(args)
    again = own and (own_list.remember(settings) or args.again)
    program = "-".join(stages) if len(stages) < len(STAGES) else "run"
    say = logs.log(program).warning
    stop = Stop(state, Clock(), say)
    with signals(stop, lambda: forget_running(state)):
        try:
            totals = _guarded(settings, stages, args.once, program, stop, say, again)
        except Held:
            if args.once and not sys.stdin.isatty():
                return 0  # cron met a run that goes on: quietly
            raise
        print(as_json(totals)) if args.json else print_table(totals, settings)
    if stop():
        return stop.exit_code
    if totals.blocked:
        return PipelineError.exit_code
    return HELD_EXIT if totals.held and not args.once else 0


def _guarded(
    settings: Settings,
    stages: list[str],
    once: bool,
    program: str,
    stop: Stop,
    say: Callable[[str], None],
    again: bool,
) -> Totals:
    """The work, under its locks and under everything that can end it."""
    state = Path(settings.state)
    with contextlib.ExitStack() as held:
        for stage in stages:
            held.enter_context(locked(state, stage))
        logs.open_log(program, settings.logs, echo_level=logging.WARNING)
        held.callback(logs.close_log)
        if "compute" in stages:
            held.enter_context(running_file(state, say))
        held.enter_context(drained(stop, say, lambda: forget_running(state)))
        show = held.enter_context(shown())
        me = this_process()
        spill = spill_of(settings, me)
        held.callback(shutil.rmtree, spill, ignore_errors=True)
        watch = Watch(settings.daemon.watchdog_seconds, me.clock, spill)
        held.enter_context(watched(watch, stacks_of(settings, program), say))
        return work(settings, stages, once, stop, me, watch, show, again)


def work(
    settings: Settings,
    stages: list[str],
    once: bool,
    stop: Stop,
    me: Process,
    watch: Watch,
    show: Show,
    again: bool = False,
) -> Totals:
    """Take turns until nothing is due, or once round all that is open, and say what was done."""
    totals = Totals()
    clock = me.clock
    began = clock.monotonic()

    def wanted() -> bool:
        return not once or clock.monotonic() - began < settings.compute.max_run_seconds

    where = contexts(settings, stages, stop, "run", show, me)
    serve = serving(settings, clock, watch.note)
    lakes = [turns(attentive(context, watch), serve, strict=True) for context in where]
    if not where:
        raise ConfigError("no lake is configured", "", "add a [lakes.NAME] table")
    with beating(
        lambda: _each(where, beat), lambda: _each(where, leave), settings.daemon.beat_seconds, logs.log("run").warning
    ):
        if again:
            own_list.ship_again(where[0])
        rounds = idle = 0
        while not stop():
            before = totals.problems
            with watch.working():
                worked, polls = _round(lakes, stages, totals, wanted)
            totals.blocked = totals.problems > before
            rounds, idle = rounds + 1, 0 if worked else idle + 1
            if (rounds if once else idle) >= polls:
                break
        prune_daily(lakes, stages, Path(settings.state), clock, stop)
    if not stop():
        for context in where:
            _look_at_the_rest(context, totals)
    return totals


def _each(where: list[Context], do: Callable[[Context], None]) -> None:
    for context in where:
        do(context)


def _round(lakes: list[Turns], stages: list[str], totals: Totals, wanted: Callable[[], bool]) -> tuple[bool, int]:
    """One turn of each stage of each lake: whether anything was done, and how many such rounds see everything."""
    worked, polls = False, 1
    for lake in lakes:
        for stage in stages:
            tally = lake.take(stage, wanted)
            totals.add(stage, tally)
            _say(lake.context, stage, tally)
            worked = worked or tally.worked
            polls = max(polls, tally.polls_to_see_all)
            if tally.stopped:
                return False, polls
            if tally.worked:
                give_back()
    return worked, polls


def _say(context: Context, stage: str, tally: Tally) -> None:
    if tally.worked:
        logs.log(stage).info("%s", summary_of(stage, tally, context.settings))


def _look_at_the_rest(context: Context, totals: Totals) -> None:
    """What waits for its day, and what is held."""
    now = version_of(context.process.clock.now())
    for due, _ in waiting(context):
        if due > now:
            totals.waiting += 1
            totals.next_due = min(totals.next_due or due, due)
        else:
            totals.open += 1
    totals.held += sum(1 for _ in context.bucket.list(context.keys.held_hints))


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of a configuration, of a person's own list, or of both."""
    overrides: dict[str, Any] = {}
    for pair in args.more:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"--set {pair}", "no =", "write --set KEY=VALUE")
        overrides[key] = _value(value)
    if args.allow_private:
        overrides["fetch.allow_private"] = True
    if not own_list.given(args):
        return load(args.config or default_config(), os.environ, overrides)
    return load(args.config, os.environ, {**own_list.overrides(args), **overrides})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
