"""The beginning and the end of each program that works: run, serve, spark, and the workers of a run.

A program takes what it needs in one order and gives it back in the opposite one, however it ends:

1. ESTOP refuses the start; SIGTERM, SIGINT and ESTOP ask for the end from here on
2. its locks, then its log: a program that finds a lock taken writes no line into the log of the one that holds it
3. what its stages demand, as `hathi config check` asks it; then what the program itself has to look at
4. `_PIPE_RUNNING`: after it stands, this host must not be rebooted
5. the drain: once an end is asked for, the process is gone within ten seconds
6. its folder for files on their way, and the watchdog, which takes growth of that folder as progress

Beats come last and end first (`Running.beating`): who reads one may count on all of the above.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.app.contexts import contexts, spill_of
from pipeline.app.demands import meet
from pipeline.cli.wiring.assembly import attentive, serving, spilling, stacks_of, turns
from pipeline.clock import Clock, Process
from pipeline.errors import PipelineError
from pipeline.ledger.protocol import Context, beat, leave, silent_progress
from pipeline.process import logs
from pipeline.process.host import this_process
from pipeline.process.lock import forget_running, leave_locks, locked, refuse_estop, running_file
from pipeline.process.stop import Stop, beating, drained, signals
from pipeline.process.troubles import Troubles
from pipeline.process.watchdog import Watch, watched
from pipeline.settings import Settings
from pipeline.stages.loop import LakeStages
from pipeline.stages.served_sets import Serve


@dataclass(frozen=True)
class Program:
    """What begins."""

    name: str
    """Its log is `<name>.log`."""
    settings: Settings
    stages: Sequence[str]
    locks: Sequence[str] = ()
    """Held until the end.  None: a child of a program that holds them, looks for ESTOP, and logs what ends it."""
    speaker: str = ""
    """Its word in brackets in the log; its name when empty."""
    stacks: str = ""
    """The watchdog writes `<stacks>.stacks`; under its name when empty."""
    echo: int | None = None
    """The least level of the log's lines that go to stderr as well, where `logs.echo` says so; INFO when absent."""
    marks: bool = False
    """It writes `_PIPE_RUNNING` while it works."""
    foreground: bool = False
    """A person waits for it: a signal that ends it shows in its exit code."""
    watchdog: bool = True
    """It is killed when it gets nothing done."""

    @property
    def child(self) -> bool:
        return not self.locks

    def say(self, text: str) -> None:
        """A warning in its log."""
        logs.log(self.speaker or self.name).warning("%s", text)


@dataclass(frozen=True)
class Running:
    """What a program has while it runs."""

    program: Program
    stop: Stop
    process: Process
    watch: Watch
    locks: contextlib.ExitStack
    """Its locks and `_PIPE_RUNNING`; closed early where the next start need not wait for the rest."""

    def contexts(self, progress: Callable[[str, int, int], None] = silent_progress) -> list[Context]:
        """One for each lake."""
        one = self.program
        where = contexts(one.settings, list(one.stages), self.stop, one.speaker or one.name, progress, self.process)
        noted = Troubles(Path(one.settings.state), self.process.clock)
        return [replace(context, turned=partial(_turned, noted, context)) for context in where]

    def serving(self, say: Callable[[str], None] = lambda text: None) -> Serve:
        """How the program loads a set.  say: told how images are prepared for it, which stands in the log anyway."""
        settings = self.program.settings
        return serving(settings, self.process.clock, self.watch.note, spill_of(settings, self.process), say)

    def lakes(self, where: Sequence[Context], serve: Serve, *, strict: bool) -> list[LakeStages]:
        """The stages of each lake; what gets on in them is noted for the watchdog."""
        return [turns(attentive(context, self.watch), serve, strict=strict) for context in where]

    def beating(self, where: Sequence[Context], *, serves: bool = False) -> contextlib.AbstractContextManager[None]:
        """Signs of life in the bucket, taken back at the end.  serves: of a daemon, which says what it serves."""
        stages = self.program.stages if serves else ()

        def each(do: Callable[[Context], None]) -> None:
            for context in where:
                do(context)

        seconds = self.program.settings.daemon.beat_seconds
        return beating(lambda: each(partial(beat, serves=stages)), lambda: each(leave), seconds, self.program.say)


@contextlib.contextmanager
def running(program: Program, first: Callable[[], None] = lambda: None) -> Iterator[Running]:
    """A program from its beginning to its end, whatever ends it.

    first: what is looked at under locks and log, before `_PIPE_RUNNING` is written.

    Raises EstopEngaged or Held before anything was begun; PermanentError or ConfigError where the folders of state or
    logs cannot be written.
    """
    settings, say = program.settings, program.say
    state = Path(settings.state)
    if not program.child:
        refuse_estop(state)
    stop = Stop(None if program.child else state, Clock(), say, foreground=program.foreground)

    def forget() -> None:
        leave_locks()
        if program.marks:
            forget_running(state)

    with contextlib.ExitStack() as held:
        held.enter_context(signals(stop, forget))
        locks = held.enter_context(contextlib.ExitStack())
        for lock in program.locks:
            locks.enter_context(locked(state, lock))
        logs.open_log(program.name, settings.logs, echo_level=program.echo or logging.INFO)
        held.callback(logs.close_log)
        if not program.child:
            held.enter_context(_logged(program))
            meet(settings, program.stages)
        first()
        if program.marks:
            locks.enter_context(running_file(state, say))
        held.enter_context(drained(stop, say, forget))
        me = this_process()
        watch = Watch(settings.daemon.watchdog_seconds, me.clock, held.enter_context(spilling(settings, me)))
        if program.watchdog:
            held.enter_context(watched(watch, stacks_of(settings, program.stacks or program.name), say))
        yield Running(program, stop, me, watch, locks)


def _turned(noted: Troubles, context: Context, stage: str, tried: Mapping[str, PipelineError | None]) -> None:
    """Note what does not work, for health; a state folder that cannot be written is a line, and the turn stands."""
    try:
        noted.turned(context.lake_name, stage, tried)
    except PipelineError as error:
        context.once(error.message, str(error))


@contextlib.contextmanager
def _logged(program: Program) -> Iterator[None]:
    """What ends the work stands in the log, with cause and remedy; the terminal gets it from `main`."""
    try:
        yield
    except PipelineError as error:
        leave_in_log(program, error)
        raise


def leave_in_log(program: Program, error: PipelineError, level: int = logging.ERROR) -> None:
    """Write one line into a program's log, and none to the terminal."""
    logs.open_log(program.name, program.settings.logs, echo=False)
    logs.log(program.speaker or program.name).log(level, "%s", error)
    logs.close_log()
