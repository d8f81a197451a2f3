"""`hathi train SOLVER --job`: a training as a job of the bucket, by this process until it is at its end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.app.contexts import contexts
from pipeline.app.installation import default_config
from pipeline.app.trainings import Training, as_tree
from pipeline.cli.output.training import Show, Tested, Write, shown
from pipeline.cli.train_jobs import ahead
from pipeline.cli.wiring.assembly import spilling
from pipeline.cli.wiring.metering import TrainingMeter, metered_training
from pipeline.clock import Clock
from pipeline.errors import ConfigError, PipelineError, Stopped, TemporaryError
from pipeline.ledger.data import download
from pipeline.ledger.layout import JobName
from pipeline.ledger.protocol import Context, alive, beat, leave
from pipeline.ledger.trainings import JobSpec
from pipeline.process import logs
from pipeline.process.lock import refuse_estop
from pipeline.process.stop import Drain, Stop, beating, drained, signals
from pipeline.settings import Settings, load
from pipeline.training import jobs, state
from pipeline.training.assembly import How
from pipeline.training.data.reach import Reach
from pipeline.training.job_trainer import Aids, JobTrainer
from pipeline.training.solver import Flags, Solver
from pipeline.training.state import Failed, Finished, Job, Running, Standing
from pipeline.training.submission import Wanted, spec_of
from pipeline.training.surroundings import Shown
from pipeline.training.turn import take

LEFT, FAILED = 75, 3
LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class _Host:
    """What this host trains with."""

    settings: Settings
    context: Context
    stop: Stop
    write: Write
    show: Show
    meter: TrainingMeter
    tested: Tested
    data_threads: int

    def say(self, text: str) -> None:
        self.write(logs.escape(logs.redact(text)) + "\n")


def run(args: argparse.Namespace, flags: Flags, how: How) -> int:
    """0: its model is there.  3: it failed, or a person ended it.  75: this process was asked to end."""
    refused = [name for name in ("snapshot", "until") if getattr(args, name) is not None]
    if refused:
        raise ConfigError(f"--{refused[0]} is of no use with --job", "", "a job goes on from its own snapshots")
    settings = load(args.config or default_config(), os.environ)
    refuse_estop(Path(settings.state))
    tested = Tested()
    with shown(tested=tested) as (write, show), _host(args, settings, write, show, tested) as host:
        wanted = Wanted(Path(args.words[0]), flags, how, secrets.token_hex(4) if args.again else "")
        spec = spec_of(host.context, wanted)
        jobs.refuse_forgotten(host.context, spec)
        name, new = jobs.submit(host.context, spec)
        host.say(
            f"job {name}: {'a new training' if new else 'it is in the bucket already'}; "
            f"{counted(spec.max_iter, 'iteration')}"
        )
        standing, job = _until_closed(host, spec, name)
    if job.closed:
        job = jobs.look(host.context, name, chain=True)
    return _told(Training(host.context, job, standing), args.json)


@contextlib.contextmanager
def _host(args: argparse.Namespace, settings: Settings, write: Write, show: Show, tested: Tested) -> Iterator[_Host]:
    stop = Stop(Path(settings.state), Clock(), lambda text: write(text + "\n"), foreground=True)
    where = contexts(settings, ["compute"], stop, "train")
    found = [one for one in where if args.lake in (None, one.lake_name)]
    if len(found) != 1:
        lakes = ", ".join(sorted(settings.lakes)) or "none"
        says = f"no lake {args.lake}" if args.lake else f"{len(found)} lakes are configured"
        hint = "name the one that the job belongs to with --lake" if settings.lakes else "add [lakes.NAME] with a url"
        raise ConfigError(says, f"lakes are: {lakes}", hint)
    context = found[0]

    def say(text: str) -> None:
        write(f"{text}\n")

    with (
        # Around the beat: a store that hangs as the process leaves has no more time than one that hangs before.
        drained(stop, say, lambda: None, Drain(settings.daemon.parting_seconds, LEFT)),
        signals(stop, lambda: None),
        beating(lambda: beat(context), lambda: leave(context), settings.daemon.beat_seconds, say),
        metered_training(settings, context.process.clock, say) as meter,
    ):
        yield _Host(settings, context, stop, write, show, meter, tested, args.data_threads)


def _until_closed(host: _Host, spec: JobSpec, name: JobName) -> tuple[Standing, Job]:
    """Trains whenever nobody else does; what comes of it."""
    context = host.context

    def show(read: Solver, now: Shown) -> None:
        host.meter.show(now)
        host.show(read, now)

    def row(of: dict[str, Any]) -> None:
        host.meter.row(of)
        host.tested.take(of)

    aids = Aids(
        lambda file, path: download(context, file, path), host.write, show,
        lambda file: Path(host.settings.state) / f"{name}-{file}", host.data_threads, row, host.meter.saved,
        Reach(host.settings),
    )  # fmt: skip
    said = ""
    with spilling(host.settings, context.process) as spill:

        def trainer(one: JobSpec) -> JobTrainer:
            host.meter.begin(str(name), spec.max_iter, lambda: len(jobs.look(context, name).tries) + 1)
            return JobTrainer(one.model_copy(update={"folder": spec.folder}), spill / "train", aids)

        while True:
            with contextlib.suppress(Stopped):
                _try(host, name, trainer)
            job = jobs.look(context, name)
            standing = job.standing(alive(context, context.bucket.list(context.keys.job(name).hint).now))
            if job.closed or host.stop():
                return standing, job
            if job.unreadable:
                raise PipelineError(job.unreadable[0].why)
            if isinstance(standing, Running) and standing.process not in (said, context.process.name):
                said = standing.process
                host.say(f"{name} is trained by {said}; this process waits, and goes on should that one end")
            context.process.clock.sleep(LOOK_SECONDS)


def _try(host: _Host, name: JobName, trainer: Callable[[JobSpec], JobTrainer]) -> None:
    """A bucket that does not answer is said, and asked again.  Raises Stopped."""
    try:
        take(host.context, name, trainer)
    except TemporaryError as error:
        host.say(str(error))


def _told(one: Training, as_json: bool) -> int:
    """Says how it ended and what to do with it.  one: with its whole chain, where it is at its end."""
    job, standing = one.job, one.standing
    if as_json:
        print(json.dumps(as_tree(one, details=True), sort_keys=True))
    elif isinstance(standing, Finished) and job.out is not None:
        print(f"{one.name} is finished: {counted(standing.iteration, 'iteration')}")
        for file in job.out.files:
            print(f"{file.name}: {file.key}")
    elif isinstance(standing, state.Stopped):
        says = f"{one.name} was stopped at iteration {standing.iteration:,}, {one.why}; --again trains it anew"
        print(logs.escape(says))
    if isinstance(standing, Failed):
        print(logs.escape(f"{one.name} failed: {one.why}"))
    if not job.closed:
        return LEFT
    for line in () if as_json else ahead(one):
        print(logs.escape(line))
    return 0 if isinstance(standing, Finished) else FAILED
