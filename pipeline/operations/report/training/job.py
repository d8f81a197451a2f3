"""The facts of a training of the bucket: from its documents, and the predictions that its result names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import FormatError, NotFound, PermanentError, PipelineError
from pipeline.ledger.data import load_data
from pipeline.ledger.layout import seconds_of
from pipeline.ledger.protocol import Context
from pipeline.ledger.trainings import JobAttemptEnd, JobFile, JobSpec
from pipeline.operations.report.thumbnails import redrawn
from pipeline.operations.report.training.facts import Attempt, Snapshot, Training
from pipeline.operations.report.training.solver_facts import facts, kinds, priced, threaded
from pipeline.training import solver, solver_text
from pipeline.training.assembly import How
from pipeline.training.predictions.confusion import judgement
from pipeline.training.predictions.file import name_of, read
from pipeline.training.predictions.judgement import Judgement
from pipeline.training.retention import best_of, rows_of
from pipeline.training.solver import Flags, Solver
from pipeline.training.state import Job, parent_of


def gather(context: Context, job: Job, state: str, why: str) -> Training:
    """Everything of a training.  job: with its whole chain.  state, why: what comes of it just now.

    Raises PipelineError where the bucket does not answer; what is pruned, or cannot be read, is a note.
    """
    keys = context.keys.job(job.name)
    listed = context.bucket.list(keys.top)
    times = {entry.key: entry.modified for entry in listed}
    there = {entry.key for entry in context.bucket.list(keys.data)}
    notes = [one.why for one in job.unreadable]
    read_solver, trouble = _solver(job.spec) if job.spec is not None else (None, "its spec cannot be read")
    notes += [f"what the solver says: {trouble}"] if trouble else []
    told = list(_facts(context, job, read_solver, notes))
    judgements = tuple(_judgements(context, job, read_solver))
    return Training(
        title=str(job.name),
        made=listed.now,
        state=state,
        why=why,
        iteration=job.iterations[-1] if job.iterations else 0,
        of=job.spec.max_iter if job.spec is not None else None,
        rows=tuple(rows_of(job)),
        snapshots=tuple(_snapshots(job, there)),
        attempts=tuple(_attempts(job, times)),
        judgements=judgements,
        facts=tuple(told),
        kinds=kinds(read_solver) if read_solver is not None else {},
        notes=tuple(notes),
    )


def _solver(spec: JobSpec) -> tuple[Solver | None, str]:
    """The solver as the spec has it, with its nets in it; else why it cannot be read."""
    try:
        text = solver_text.parse(spec.solver, "the solver of the spec")
        if text.HasField("net") or text.HasField("train_net") or text.test_net:
            return None, "its spec names nets and does not hold them"
        return solver.check(text, Path("solver.prototxt"), Flags(spec.level, spec.stages, None, spec.seed)), ""
    except PipelineError as error:
        return None, str(error)


def _facts(context: Context, job: Job, read_solver: Solver | None, notes: list[str]) -> Iterator[tuple[str, str]]:
    """What the page says of solver and engine.  Data are looked at in the training's own folder alone."""
    spec = job.spec
    yield "Job", f"{job.name}, lake {context.lake_name}"
    if read_solver is not None:
        yield from facts(read_solver)
    if spec is None:
        return
    if read_solver is not None and str(Path.cwd()) == spec.folder:
        found, trouble = priced(read_solver, How(spec.threads, spec.exact, spec.as_caffe, spec.precision))
        notes += [trouble] if trouble else []
        yield from found
    elif read_solver is not None:
        notes.append(f"what the training takes: make the page in the folder where it trains, {spec.folder}")
    yield "Engine", (job.out.engine if job.out is not None else "") or spec.engine
    yield from threaded(spec.threads, spec.exact)
    yield "Trains in", spec.folder
    yield "Snapshot every", f"{spec.every:,} iterations"


def _snapshots(job: Job, there: set[str]) -> Iterator[Snapshot]:
    best = best_of(job)
    for at, link in sorted(job.snapshots.items()):
        kept = all(file.key in there for file in link.files)
        yield Snapshot(at, seconds_of(link.at), sum(file.size for file in link.files), at == best, kept)


def _attempts(job: Job, times: dict[str, float]) -> Iterator[Attempt]:
    """Each with the iteration that it began at: its first snapshot follows that one, or a parting from there."""
    partings: dict[object, int] = {}
    newest = 0
    for made in job.tries:
        links = [link for link in job.snapshots.values() if link.attempt == made.number]
        first = min(links, key=lambda one: one.iteration, default=None)
        parent = first.parent if first is not None else parent_of(job.snapshots.get(newest))
        begin = max(parent.iteration if parent is not None else 0, partings.get(parent, 0))
        newest = max([newest, *(one.iteration for one in links)])
        end = made.end
        yield Attempt(made.number, made.process, begin, times.get(made.key), *_ended(job, made.number, end))
        if isinstance(end, JobAttemptEnd) and end.parting is not None:
            partings[end.parting.parent] = max(end.parting.iteration, partings.get(end.parting.parent, 0))


def _ended(job: Job, number: int, end: object) -> tuple[str, str]:
    if end is not None:
        return end.kind, end.cause  # type: ignore[attr-defined]
    if job.out is not None and number == job.tries[-1].number:
        return ("finished", "") if job.out.kind == "model" else ("failed", job.out.cause)
    return "", ""


def _judgements(context: Context, job: Job, read_solver: Solver | None) -> Iterator[Judgement]:
    files = {file.name: file for file in (job.out.predictions if job.out is not None else ())}
    tests = len(read_solver.tests.nets) if read_solver is not None else len(files)
    for number in range(tests):
        name = f"test net {number}" if tests > 1 else "test net"
        file = files.get(name_of(number))
        if file is None:
            why = "its result comes when the training is at its end"
            if job.out is not None:
                why = "no test of this net was made by the process that ended the training"
            yield Judgement(name, 0, why=why)
        else:
            yield _judgement(context, name, file)


def _judgement(context: Context, name: str, file: JobFile) -> Judgement:
    try:
        return redrawn(judgement(name, read(load_data(context, file), file.key)))
    except NotFound:
        return Judgement(name, 0, why=f"{file.key} is pruned")
    except (FormatError, PermanentError) as error:
        return Judgement(name, 0, why=str(error))
