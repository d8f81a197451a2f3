"""Trainings in the bucket: which there are, what is known of one, and what a person does to one.

Whoever begins a training puts its hint and its spec, whoever ends one early puts its stop; all else is done by those
who train (`attempt.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.errors import ConfigError, FormatError, NotFound
from pipeline.ledger.bodies import Body
from pipeline.ledger.layout import JobName, version_of
from pipeline.ledger.protocol import Context, body_at, commit
from pipeline.ledger.trainings import JobSpec, JobStop
from pipeline.training.state import Job, derive, wanted


def submit(context: Context, spec: JobSpec) -> tuple[JobName, bool]:
    """The hint, then the spec that it announces; whether the training is a new one."""
    keys = context.keys.job(spec.name())
    context.bucket.put(keys.hint, b"")
    won, _ = commit(context, keys.spec, spec)
    return keys.name, won


def refuse_forgotten(context: Context, spec: JobSpec) -> None:
    """Raises ConfigError for a training that prune is forgetting: what is left of it says that it is over."""
    keys = context.keys.job(spec.name())
    there = {entry.key for entry in context.bucket.list(keys.top, folders=True)}
    if there and keys.spec not in there:
        raise ConfigError(
            f"{keys.name} was over for long, and is being forgotten",
            "its spec is deleted, and other keys of it are still there",
            "wait until `hathi prune` is through, or begin another training with --again",
        )


def look(context: Context, name: JobName, *, chain: bool = False) -> Job:
    """The state of one training: one listing, and the bodies that are not cached yet.  chain: of all snapshots."""
    keys = context.keys.job(name)
    listed = [(entry.key, entry.modified) for entry in context.bucket.list(keys.top)]
    bodies: dict[str, Body] = {}
    troubles: dict[str, Exception] = {}
    for key, kind in wanted(keys, (key for key, _ in listed), chain=chain).items():
        try:
            bodies[key] = body_at(context, key, kind)
        except (NotFound, FormatError) as error:
            troubles[key] = error
    job = derive(keys, listed, bodies, troubles)
    for one in job.unreadable:
        context.once(one.key, one.why)
    return job


def hinted(context: Context) -> Iterator[JobName]:
    """Trainings that are open, or were about to be."""
    prefix = context.keys.train_hints
    for entry in context.bucket.list(prefix):
        try:
            yield JobName.parse(entry.key.removeprefix(prefix))
        except ValueError:
            context.once(entry.key, f"Hathi leaves alone a key that is not its own: {entry.key}")


def every(context: Context) -> Iterator[JobName]:
    """All trainings that there are; `verify` tells of what is not ours."""
    prefix = context.keys.jobs
    for entry in context.bucket.list(prefix, folders=True):
        try:
            yield JobName.parse(entry.key.removeprefix(prefix).rstrip("/"))
        except ValueError:
            context.once(entry.key, f"Hathi leaves alone a key that is not its own: {entry.key}")


def stop(context: Context, name: JobName, by: str, why: str = "") -> JobStop:
    """A person ends a training; what stands there then, since the first word counts."""
    at = version_of(context.process.clock.now())
    _, stands = commit(context, context.keys.job(name).stop, JobStop(by=by, at=at, why=why))
    return stands


def close(context: Context, job: Job) -> bool:
    """Deletes the hint of a training for which nothing will be computed any more; whether it is one."""
    if job.closed:
        context.bucket.delete(context.keys.job(job.name).hint)
    return job.closed
