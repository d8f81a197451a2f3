"""Trainings in the bucket, as values: which there are, what is known of one, its metrics, and its end by a person."""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.errors import ConfigError
from pipeline.ledger.data import download
from pipeline.ledger.protocol import Context, alive
from pipeline.ledger.trainings import JobFile
from pipeline.training import jobs
from pipeline.training.retention import best_of, rows_of
from pipeline.training.state import Failed, Finished, Job, Running, Standing, Stopped, Waiting

_INNER = ("position.json",)
"""Files of a snapshot that mean something to a job alone."""
LOOKS = 16
"""Trainings that are asked for at once."""
WORDS: dict[type[Standing], str] = {
    Waiting: "waiting", Running: "running", Stopped: "stopped", Failed: "failed", Finished: "finished",
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A training and where it is.  standing: what comes of it just now."""

    context: Context
    job: Job
    standing: Standing

    @property
    def name(self) -> str:
        return str(self.job.name)

    @property
    def word(self) -> str:
        """Its standing in one word; `unreadable` where it is left alone."""
        return "unreadable" if self.job.unreadable else WORDS[type(self.standing)]

    @property
    def of(self) -> int | None:
        """The iteration at which it ends; None where its spec cannot be read."""
        return self.job.spec.max_iter if self.job.spec is not None else None

    @property
    def why(self) -> str:
        """What there is to say of its standing."""
        if self.job.unreadable:
            return self.job.unreadable[0].why
        match self.standing:
            case Running(_, process):
                return f"by {process}"
            case Stopped(_, by):
                return f"by {by}"
            case Failed(_, cause):
                return cause
            case Waiting():
                return self.job.recent[-1].end.cause if self.job.recent and self.job.recent[-1].end else ""
        return ""


def trainings(contexts: Iterable[Context]) -> list[Training]:
    """Every training, by lake and name; many are asked for at once, for each costs a few answers of the bucket."""
    found = []
    with ThreadPoolExecutor(LOOKS, "hathi-look") as pool:
        for context in contexts:
            living = _living(context)
            for job in pool.map(partial(jobs.look, context), list(jobs.every(context))):
                found.append(Training(context, job, job.standing(living)))
    return found


def training(contexts: Iterable[Context], text: str) -> Training:
    """The one of this name, or of the only name that begins so, with its whole chain.

    Raises ConfigError where there is none, or where there are several.
    """
    found = [(context, name) for context in contexts for name in jobs.every(context) if str(name).startswith(text)]
    exact = [(context, name) for context, name in found if str(name) == text]
    found = exact or found
    if not found or not text:
        raise _unknown(text)
    if len({name for _, name in found}) > 1:
        names = ", ".join(sorted({str(name) for _, name in found})[:5])
        raise ConfigError(f"{counted(len(found), 'training')} have a name that begins with {text}", names,
                          "give more of the name")  # fmt: skip
    if len(found) > 1:
        lakes = ", ".join(context.lake_name for context, _ in found)
        raise ConfigError(f"{text} is a training of several lakes", lakes, "name one with --lake")
    context, name = found[0]
    job = jobs.look(context, name, chain=True)
    return Training(context, job, job.standing(_living(context)))


def _unknown(text: str) -> ConfigError:
    return ConfigError(f"no training {text}", "", "`hathi train list` names them all")


def _living(context: Context) -> frozenset[str]:
    return alive(context, context.bucket.list(context.keys.train_hints).now)


def stop(one: Training, why: str = "") -> str:
    """Ends it for good; who ended it: the first word counts.  Raises ConfigError where it is at its end already."""
    if isinstance(one.standing, Failed | Finished):
        raise ConfigError(f"{one.name} is at its end already: it has {one.word}", one.why, "")
    by = jobs.stop(one.context, one.job.name, getpass.getuser(), why).by
    jobs.close(one.context, jobs.look(one.context, one.job.name))
    return by


@dataclass(frozen=True)
class Fetched:
    """Files of a training on this host.  iteration: that they are of."""

    iteration: int
    paths: tuple[Path, ...]


def fetch(one: Training, folder: Path | None, *, best: bool = False) -> Fetched:
    """Writes its model, or its newest snapshot where it has none yet, into a folder on this host.

    folder: None: JOB-ITERATION in the current one.  best: the snapshot with the best test instead.  one: with its
    whole chain.  Raises ConfigError where nothing is to be had, and for other files of these names in the folder.
    """
    iteration, files = _wanted(one, best)
    where = folder if folder is not None else Path(f"{one.name}-{iteration}")
    paths = []
    try:
        where.mkdir(parents=True, exist_ok=True)
        for file in files:
            if file.name not in _INNER:
                paths.append(where / file.name)
                _fetch(one.context, file, paths[-1])
    except OSError as error:
        says = error.strerror or str(error)
        raise ConfigError(f"{where} cannot be written", says, "name another folder with --out") from error
    return Fetched(iteration, tuple(paths))


def _wanted(one: Training, best: bool) -> tuple[int, list[JobFile]]:
    job = one.job
    if best:
        at = best_of(job)
        if at is None:
            raise ConfigError(f"{one.name} has no best snapshot", "none was tested", "leave out --best")
        return at, list(job.snapshots[at].files)
    if job.out is not None and job.out.files:
        return job.out.iteration, [*job.out.files, *job.out.predictions]
    if job.newest is None:
        raise ConfigError(f"{one.name} has no snapshot yet", f"it is {one.word}", "wait for its first snapshot")
    return job.newest.iteration, list(job.newest.files)


def _fetch(context: Context, file: JobFile, path: Path) -> None:
    """The file under its name once it is whole."""
    if path.exists():
        with path.open("rb") as there:
            if hashlib.file_digest(there, "sha256").hexdigest() == file.sha256:
                return
        raise ConfigError(f"{path} is another file", "", "name another folder with --out, or move the file away")
    part = path.with_name(f".{path.name}.part")
    try:
        download(context, file, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def as_tree(one: Training, *, details: bool = False) -> dict[str, Any]:
    """A training as JSON has it.  details: of one with its whole chain."""
    job = one.job
    tree: dict[str, Any] = {
        "job": one.name, "lake": one.context.lake_name, "state": one.word, "iteration": one.standing.iteration,
        "max_iter": one.of, "why": one.why,
    }  # fmt: skip
    if not details:
        return tree
    best = best_of(job)
    tree["snapshots"] = [
        {"iteration": at, "digest": link.digest(), "process": link.process, "attempt": link.attempt, "at": link.at,
         "rows": len(link.rows), "best": at == best, "files": _files(one, link.files)}
        for at, link in sorted(job.snapshots.items())
    ]  # fmt: skip
    tree["attempts"] = [
        {"number": made.number, "process": made.process, "ended": made.end.kind if made.end else None,
         "cause": made.end.cause if made.end else ""}
        for made in job.tries
    ]  # fmt: skip
    tests = [row for row in rows(one) if row.get("kind") == "test"]
    tree["test"] = {"iteration": tests[-1]["step"], **tests[-1]["values"]} if tests else None
    tree["engine"], tree["cpu"] = (job.out.engine, job.out.cpu) if job.out is not None else ("", "")
    tree["model"] = _files(one, job.out.files) if job.out is not None and job.out.files else None
    return tree


def _files(one: Training, files: Iterable[Any]) -> list[dict[str, Any]]:
    """A file whose data prune has deleted is not there."""
    keys = one.context.keys.job(one.job.name)
    there = {entry.key for entry in one.context.bucket.list(keys.data)}
    return [
        {"name": file.name, "key": file.key, "bytes": file.size, "sha256": file.sha256, "there": file.key in there}
        for file in files
    ]


def rows(one: Training) -> list[dict[str, Any]]:
    """Its metrics up to the newest snapshot, each row once, in order.  one: with its whole chain."""
    return rows_of(one.job)
