"""Run stages until nothing is due; with --refs, over a person's own list.

With compute.workers, or more than one GPU, processes of this one compute and aggregate side by side.  While the disk
of the state or logs folder has less than compute.free_bytes free, nothing that computes is begun: exit code 1, one line
in the log, and the next run looks again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.cli.output.progress import Show, shown
from pipeline.cli.output.summary import summary_of
from pipeline.cli.output.table import Totals, as_json, print_table
from pipeline.cli.wiring import own_list
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
from pipeline.cli.wiring.disk import demand_free
from pipeline.cli.wiring.health_step import looked_at
from pipeline.cli.wiring.memory import give_back
from pipeline.cli.wiring.metering import metered_run
from pipeline.cli.wiring.pool import Shift, seats_of
from pipeline.clock import Clock, Process
from pipeline.errors import ConfigError, PipelineError
from pipeline.ledger.protocol import Context, beat, leave, open_hints, planned
from pipeline.process import logs
from pipeline.process.host import this_process
from pipeline.process.lock import EstopEngaged, Held, forget_running, locked, refuse_estop, running_file
from pipeline.process.stop import Stop, beating, drained, signals
from pipeline.process.watchdog import Watch, watched
from pipeline.settings import Settings, load
from pipeline.sources.found import NONE_LEFT
from pipeline.stage_names import STAGES
from pipeline.stages.loop import Tally, Turns

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
    """0 done, 1 some task could not be done, 3 done but something is held or left out, 4 ESTOP; see --help."""
    stages = check_stages(args.stages)
    settings = settings_of(args)
    state = Path(settings.state)
    program = "-".join(stages) if len(stages) < len(STAGES) else "run"
    try:
        refuse_estop(state)
    except EstopEngaged as error:
        if args.once:
            _leave_in_log(program, settings, error, logging.INFO)
        raise
    own = own_list.given(args)
    say = logs.log(program).warning
    stop = Stop(state, Clock(), say)
    with signals(stop, lambda: forget_running(state)):
        try:
            refs = args.refs if own else ""
            totals = _guarded(settings, stages, args.once, program, stop, say, args.again, refs)
        except Held:
            if args.once and not sys.stdin.isatty():
                return 0  # cron met a run that goes on: quietly
            raise
        print(as_json(totals)) if args.json else print_table(totals, settings, own)
    if stop():
        return stop.exit_code
    if totals.blocked or (own and totals.nothing_named):
        return PipelineError.exit_code
    return HELD_EXIT if (totals.held or totals.left.number) and not args.once else 0


def _guarded(
    settings: Settings,
    stages: list[str],
    once: bool,
    program: str,
    stop: Stop,
    say: Callable[[str], None],
    again: bool,
    refs: str,
) -> Totals:
    """The work, under its locks and under everything that can end it.  refs: of a list of one's own."""
    state = Path(settings.state)
    with contextlib.ExitStack() as held:
        locks = held.enter_context(contextlib.ExitStack())
        for stage in stages:
            locks.enter_context(locked(state, stage))
        logs.open_log(program, settings.logs, echo_level=logging.WARNING)
        held.callback(logs.close_log)
        held.enter_context(_logged(program, settings))
        options = own_list.options_of(settings) if refs else None
        brought = own_list.bring_to(settings, refs, say) if refs and "ship" in stages else NONE_LEFT
        if "compute" in stages and not refs:
            demand_free(settings)
        if "compute" in stages:
            locks.enter_context(running_file(state, say))
        held.enter_context(drained(stop, say, lambda: forget_running(state)))
        show = held.enter_context(shown())
        me = this_process()
        spill = held.enter_context(spilling(settings, me))
        watch = Watch(settings.daemon.watchdog_seconds, me.clock, spill)
        held.enter_context(watched(watch, stacks_of(settings, program), say))
        totals, lakes = work(settings, stages, once, stop, me, watch, show, program, options, again)
        totals.brought = brought
        locks.close()  # the next run need not wait until this one has forgotten what is old
        with contextlib.suppress(Held), locked(state, f"pruned.{'-'.join(stages)}"):
            prune_daily(lakes, stages, state, me.clock, stop)
        return totals


@contextlib.contextmanager
def _logged(program: str, settings: Settings) -> Iterator[None]:
    """What ends the work stands in the log, with cause and remedy; the terminal gets it from `main`."""
    try:
        yield
    except PipelineError as error:
        _leave_in_log(program, settings, error)
        raise


def _leave_in_log(program: str, settings: Settings, error: PipelineError, level: int = logging.ERROR) -> None:
    logs.open_log(program, settings.logs, echo=False)
    logs.log(program).log(level, "%s", error)
    logs.close_log()


def work(
    settings: Settings,
    stages: list[str],
    once: bool,
    stop: Stop,
    me: Process,
    watch: Watch,
    show: Show,
    program: str = "run",
    own: own_list.Options | None = None,
    again: bool = False,
) -> tuple[Totals, list[Turns]]:
    """Take turns until nothing is due, or once round all that is open, and say what was done; and the lakes.

    own: over a list of one's own.  again: ship it once more.
    """
    totals = Totals()
    clock = me.clock
    began = clock.monotonic()

    def left() -> float:
        """Seconds in which something may still be begun."""
        return settings.compute.max_run_seconds - (clock.monotonic() - began if once else 0.0)

    def wanted() -> bool:
        return left() > 0

    where = contexts(settings, stages, stop, "run", show, me)
    serve = serving(settings, clock, watch.note, spill_of(settings, me))
    lakes = [turns(attentive(context, watch), serve, strict=True) for context in where]
    if not where:
        raise ConfigError("no lake is configured", "", "add a [lakes.NAME] table")
    places = seats_of(settings) if "compute" in stages else []
    shift = Shift(settings, stages, program, places, where) if len(places) > 1 else None
    say = logs.log("run").warning
    seen = [lake.context for lake in lakes]
    with (
        beating(lambda: _each(where, beat), lambda: _each(where, leave), settings.daemon.beat_seconds, say),
        metered_run(settings, clock, say) as totals.meter,
        looked_at(settings, seen, stages, clock, totals.meter, once=once),
    ):
        if own is not None and "ship" in stages:
            if again or own.changed:
                own_list.ship_again(where[0], everything=again or own.refetched)
            own.keep()
        rounds = idle = 0
        while not stop():
            before = totals.problems
            with watch.working():
                if shift is None:
                    worked, polls = take_round(lakes, stages, totals, wanted)
                else:
                    worked, polls = _shared_round(lakes, stages, totals, wanted, stop, shift, left, watch)
            totals.blocked = totals.problems > before
            rounds, idle = rounds + 1, 0 if worked else idle + 1
            if (rounds if once else idle) >= polls:
                break
        compact_daily(lakes, stages, Path(settings.state), clock, stop)
    if not stop():
        for context in where:
            look_at_the_rest(context, totals)
    return totals, lakes


def _each(where: list[Context], do: Callable[[Context], None]) -> None:
    for context in where:
        do(context)


def take_round(lakes: list[Turns], stages: list[str], totals: Totals, wanted: Callable[[], bool]) -> tuple[bool, int]:
    """One turn of each stage of each lake: whether anything was done, and how many such rounds see everything."""
    worked, polls = False, 1
    for lake in lakes:
        for stage in stages:
            with totals.meter.turn(lake.context.lake_name, stage) as tally:
                lake.take(stage, wanted, tally)
            totals.add(stage, tally)
            if stage == "ship":
                totals.named[lake.context.lake_name] = lake.named
            _say(lake.context, stage, tally)
            worked = worked or tally.worked
            polls = max(polls, tally.polls_to_see_all)
            if tally.stopped:
                return False, polls
            if tally.worked:
                give_back()
    return worked, polls


def _shared_round(
    lakes: list[Turns],
    stages: list[str],
    totals: Totals,
    wanted: Callable[[], bool],
    stop: Stop,
    shift: Shift,
    left: Callable[[], float],
    watch: Watch,
) -> tuple[bool, int]:
    """As `take_round`, with the workers' stages between those that are this process's own."""
    before = [stage for stage in stages if STAGES.index(stage) < STAGES.index(shift.stages[0])]
    after = [stage for stage in stages if STAGES.index(stage) > STAGES.index(shift.stages[-1])]
    first, some = take_round(lakes, before, totals, wanted)
    if stop():
        return False, some
    middle = shift.work(totals, left(), stop, watch.note)
    if stop():
        return False, some
    last, more = take_round(lakes, after, totals, wanted)
    return first or middle or last, max(some, more)


def _say(context: Context, stage: str, tally: Tally) -> None:
    if tally.worked:
        logs.log(stage).info("%s", summary_of(stage, tally, context.settings, context.lake_name))


def look_at_the_rest(context: Context, totals: Totals) -> None:
    """What waits for its day, what is open, and what is held; as `status` counts them."""
    hints = open_hints(context)
    for hint in hints.later.values():
        totals.waiting += 1
        totals.next_due = min(totals.next_due or hint.due, hint.due)
    totals.open += sum(planned(context, name) for name in hints.due)
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
