"""One turn over the trainings of one lake: look at what is open, and make an attempt at each that may be tried."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.layout import JobName
from pipeline.ledger.protocol import Context, others_alive
from pipeline.ledger.trainings import JobSpec
from pipeline.training import jobs
from pipeline.training.attempt import limits_of, perform, plan
from pipeline.training.state import Job
from pipeline.training.trainer import Trainer


def turn(
    context: Context, trainer_of: Callable[[JobSpec], Trainer], failed: Callable[[JobName, PipelineError], None]
) -> list[Job]:
    """Trainings that an attempt was made at, as it left them.  failed: told of the trouble of one; the rest goes on.

    Raises Stopped at a safe point, and what stops the whole turn: a bucket that does not answer.
    """
    made = []
    for name in list(jobs.hinted(context)):
        context.safe_point()
        try:
            job = take(context, name, trainer_of)
        except Stopped:
            raise
        except PipelineError as error:
            failed(name, error)
            continue
        if job is not None:
            made.append(job)
    return made


def take(context: Context, name: JobName, trainer_of: Callable[[JobSpec], Trainer]) -> Job | None:
    """An attempt at one training, as it left it; None: there is nothing to do now, or somebody else is at it."""
    job = jobs.look(context, name)
    if jobs.close(context, job) or job.spec is None:
        return None
    now = context.bucket.list(context.keys.job(name).hint).now
    task = plan(job, others_alive(context, now), limits_of(context), now)
    return perform(context, task, trainer_of(task.spec)) if task is not None else None
