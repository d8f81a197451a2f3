"""Run stages until nothing is due; with --refs, over a person's own list.

With compute.workers, or more than one GPU, processes of this one compute and aggregate side by side.  While the disk
of the state or logs folder has less than compute.free_bytes free, nothing that computes is begun: exit code 1, one line
in the log, and the next run looks again.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.amounts import counted
from pipeline.app import own_folder
from pipeline.app.installation import DEFAULT, default_config
from pipeline.cli.output.progress import Show, shown
from pipeline.cli.output.reached import Reached
from pipeline.cli.output.table import Totals, as_json, print_table
from pipeline.cli.wiring import out_file, own_list, remembered, set_options
from pipeline.cli.wiring.assembly import check_stages
from pipeline.cli.wiring.daily import compact_daily, compact_now, prune_daily
from pipeline.cli.wiring.health_step import looked_at
from pipeline.cli.wiring.metering import metered_run
from pipeline.cli.wiring.pool import PooledStages, slots_of
from pipeline.cli.wiring.rounds import look_at_the_rest, take_round
from pipeline.cli.wiring.running import Program, Running, leave_in_log, running
from pipeline.errors import PermanentError, PipelineError
from pipeline.ledger.protocol import Context, silent_progress
from pipeline.process import logs
from pipeline.process.disk import demand_free
from pipeline.process.lock import EstopEngaged, Held, locked
from pipeline.settings import Settings, load
from pipeline.sources.found import NONE_LEFT
from pipeline.stage_names import STAGES
from pipeline.stages.loop import LakeStages

HELD_EXIT = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi run`."""
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"stages to run: {', '.join(STAGES)} (default: those of its role)"
    )
    parser.add_argument("--config", type=Path, help=f"the configuration file (default without --refs: {DEFAULT})")
    parser.add_argument("--once", action="store_true", help="look once at everything that is open, then end: for cron")
    parser.add_argument("--json", action="store_true", help="print a summary as one JSON object")
    own_list.add_arguments(parser)
    parser.add_argument(
        "--allow-private", action="store_true", help=("also fetch from private addresses and any port (default: no)")
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="more",
        metavar="KEY=VALUE",
        help="set any setting by its path, e.g. fetch.contact=me@shop.example; for a list of your own also a setting "
        f"of its set, e.g. {set_options.FORMS}",
    )


def run(args: argparse.Namespace) -> int:
    """0 done, 1 some task could not be done, 3 done but something is held or left out, 4 ESTOP; see --help."""
    settings = settings_of(args)
    stages = check_stages(args.stages or list(settings.stages))
    out = out_file.out_of(args)
    own = _OwnList(settings, args.refs, args.again, bool(args.keep)) if own_list.given(args) else None
    name = "-".join(stages) if len(stages) < len(STAGES) else "run"
    computes = "compute" in stages
    quiet = args.once and not sys.stdin.isatty()  # cron's: an end in good order is no news
    program = Program(
        name, settings, stages, stages, speaker="run", echo=logging.WARNING, marks=computes, foreground=not quiet
    )

    def first() -> None:
        if own is not None:
            own.look(stages, program.say)
        elif computes:
            demand_free(settings)

    try:
        with running(program, first) as process:
            with shown() if settings.logs.echo else contextlib.nullcontext(silent_progress) as show:
                reached = Reached(show, process.stop)
                totals, lakes = work(process, args.once, reached, own)
                process.locks.close()  # the next run need not wait until this one has forgotten what is old
                state = Path(settings.state)
                with contextlib.suppress(Held), locked(state, f"pruned.{'-'.join(stages)}"):
                    prune_daily(lakes, stages, state, process.process.clock, process.stop)
            if process.stop():
                logs.log("run").info("%s", reached.told())
                print(reached.told(), file=sys.stderr)
            if args.json:
                print(as_json(totals))
            elif not process.stop():
                print_table(totals, settings, own is not None)
            demand_refs(totals, own, lakes, process.stop)
            if out is not None and not process.stop():
                print(out_file.write_out(settings, out), file=sys.stderr if args.json else sys.stdout)
    except EstopEngaged as error:
        if args.once:
            leave_in_log(program, error, logging.INFO)
        raise
    except Held:
        if quiet:
            return 0  # cron met a run that goes on: quietly
        raise
    if process.stop():
        return process.stop.exit_code
    if totals.blocked or (own is not None and totals.nothing_named):
        return PipelineError.exit_code
    return HELD_EXIT if (totals.held or totals.left.number) and not args.once else 0


def demand_refs(totals: Totals, own: _OwnList | None, lakes: Sequence[LakeStages], stop: Callable[[], bool]) -> None:
    """Raises PermanentError where rows were read and no ref came of any: that is no success."""
    ship = totals.of("ship")
    if "ship" not in totals.stages or ship.counts.refs or totals.of("compute").counts.refs or stop():
        return
    if own is not None:
        own_list.demand_refs(lakes[0].context, own.refs)
    elif ship.counts.rejected:
        raise PermanentError(
            f"all rows that were read were rejected: {counted(ship.counts.rejected, 'row')}",
            "no refs were shipped",
            "the log names the first rows and why; correct the files, or how the source is read",
        )


class _OwnList:
    """A list of one's own: what its folder was made with before, and what was copied here."""

    def __init__(self, settings: Settings, refs: str, again: bool, keeps: bool = False) -> None:
        """again: ship the list once more.  keeps: columns of it are to be kept, which it therefore must have."""
        self._settings = settings
        self.refs = refs
        self._again, self._keeps = again, keeps
        self._options: remembered.Options | None = None
        self.brought = NONE_LEFT

    def look(self, stages: Sequence[str], say: Callable[[str], None]) -> None:
        """Compare the options with those of the last time, and copy a list that is not here."""
        self._options = remembered.options_of(self._settings)
        if "ship" in stages:
            self.brought = own_list.bring_to(self._settings, self.refs, say)
        if self._keeps:
            own_list.demand_kept(self._settings)
        own_folder.write_config(self._settings)

    def announce(self, context: Context) -> None:
        """Have the list shipped once more where that is asked for, or where it is read in another way now."""
        assert self._options is not None
        options = self._options
        if self._again or options.changed or options.remade:
            own_list.ship_again(context, everything=self._again or options.refetched, ended=options.remade)
        self._options.keep()


def work(process: Running, once: bool, show: Show, own: _OwnList | None = None) -> tuple[Totals, list[LakeStages]]:
    """Take turns until nothing is due, or once round all that is open, and say what was done; and the lakes."""
    program, stop, watch = process.program, process.stop, process.watch
    settings, stages = program.settings, list(program.stages)
    totals = Totals(brought=own.brought if own is not None else NONE_LEFT)
    clock = process.process.clock
    began = clock.monotonic()

    def left() -> float:
        """Seconds in which something may still be begun."""
        return settings.compute.max_run_seconds - (clock.monotonic() - began if once else 0.0)

    def wanted() -> bool:
        return left() > 0

    where = process.contexts(show)
    lakes = process.lakes(where, process.serving(_quiet if once else _on_stderr), strict=True)
    places = slots_of(settings) if "compute" in stages else []
    pooled = PooledStages(settings, stages, program.name, places, where) if len(places) > 1 else None
    seen = [lake.context for lake in lakes]
    with (
        process.beating(where),
        metered_run(settings, clock, program.say) as totals.meter,
        looked_at(settings, seen, stages, clock, totals.meter, once=once),
    ):
        if own is not None and "ship" in stages:
            own.announce(where[0])
        rounds = idle = 0
        while not stop():
            before = totals.problems
            with watch.working():
                if pooled is None:
                    worked, polls = take_round(lakes, stages, totals, wanted)
                else:
                    worked, polls = _shared_round(lakes, process, totals, wanted, pooled, left)
            totals.blocked = totals.problems > before
            rounds, idle = rounds + 1, 0 if worked else idle + 1
            if (rounds if once else idle) >= polls:
                break
        if own is None:
            compact_daily(lakes, stages, Path(settings.state), clock, stop)
        else:
            compact_now(lakes, stages, stop)
        own_list.keep_columns(where[0], _on_stderr, stop)
    if not stop():
        for context in where:
            look_at_the_rest(context, totals)
    return totals, lakes


def _on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _quiet(text: str) -> None:
    """cron mails whatever is printed; the log has it."""


def _shared_round(
    lakes: list[LakeStages],
    process: Running,
    totals: Totals,
    wanted: Callable[[], bool],
    pooled: PooledStages,
    left: Callable[[], float],
) -> tuple[bool, int]:
    """As `take_round`, with the workers' stages between those that are this process's own."""
    stages, stop = process.program.stages, process.stop
    before = [stage for stage in stages if STAGES.index(stage) < STAGES.index(pooled.stages[0])]
    after = [stage for stage in stages if STAGES.index(stage) > STAGES.index(pooled.stages[-1])]
    first, some = take_round(lakes, before, totals, wanted)
    if stop():
        return False, some
    middle = pooled.work(totals, left(), stop, process.watch.note)
    if stop():
        return False, some
    last, more = take_round(lakes, after, totals, wanted)
    return first or middle or last, max(some, more)


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings of a configuration, of a person's own list, or of both."""
    own = own_list.given(args)
    overrides = set_options.pairs(args.more, own_list.SET if own else None)
    if args.allow_private:
        overrides["fetch.allow_private"] = True
    if not own:
        return load(args.config or default_config(), os.environ, overrides)
    return load(args.config, os.environ, {**own_list.overrides(args), **overrides})
