"""The facts of a training in a folder: from what `hathi train SOLVER` or a child leaves there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, FormatError, PipelineError
from pipeline.operations.report.thumbnails import redrawn
from pipeline.operations.report.training.facts import Attempt, Row, Snapshot, Training
from pipeline.operations.report.training.solver_facts import facts, kinds, priced, threaded
from pipeline.training import attempts_file, metrics, solver
from pipeline.training.assembly import How
from pipeline.training.job import beside
from pipeline.training.outputs import Kinds
from pipeline.training.predictions.confusion import judgement
from pipeline.training.predictions.file import name_of, read
from pipeline.training.predictions.judgement import Judgement
from pipeline.training.retention import best_among
from pipeline.training.snapshot import ByFolder, ByPrefix, Places
from pipeline.training.solver import Flags, Solver

LONGEST = 2 * 2**30
"""Bytes of a file of predictions that is read."""
_STATES = {"done": "finished", **{one: one for one in ("until", "early", "left", "diverged")}}
"""What the end of an attempt makes of a training; any other end is a failure."""


@dataclass(frozen=True)
class Found:
    """Where a training is.  prefix: of its files, as `PREFIX_metrics.jsonl`; folder: of a child.  One of them is None.

    read: its solver, where that is known.
    """

    prefix: str | None
    folder: Path | None
    read: Solver | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return Path(self.prefix).name if self.prefix is not None else (self.folder or Path()).resolve().name

    def file(self, name: str) -> Path:
        return beside(self.prefix, name) if self.prefix is not None else (self.folder or Path()) / name

    def places(self) -> Places:
        if self.prefix is not None:
            return ByPrefix(self.prefix, False)
        return ByFolder((self.folder or Path()) / "snapshots", False)


def find(where: Path) -> Found:
    """A solver's .prototxt, a snapshot_prefix, or the folder of a child.

    Raises ConfigError where no training is; SolverError and NetError for a solver that is refused.
    """
    if where.suffix == ".prototxt" and where.is_file():
        found = solver.read(where, Flags())
        return _there(Found(found.snapshots.prefix, None, found), where)
    if where.is_dir() and ((where / metrics.NAME).exists() or (where / "snapshots").is_dir()):
        return Found(None, where)
    return _there(Found(str(where).removesuffix(f"_{metrics.NAME}"), None), where)


def _there(found: Found, where: Path) -> Found:
    if found.file(metrics.NAME).exists() or found.file(attempts_file.NAME).exists() or found.places().iterations():
        return found
    raise ConfigError(
        f"no training is at {where}",
        f"neither {found.file(metrics.NAME)} nor a snapshot is there",
        "give a solver's .prototxt in the folder where it trains, its snapshot_prefix, or the folder of a child",
    )


def gather(found: Found, now: float) -> Training:
    """Everything of a training.  Raises FormatError for metrics that cannot be read; what else cannot be is a note."""
    notes: list[str] = []
    attempts = attempts_file.rows_of(found.file(attempts_file.NAME))
    starts = [row for row in attempts if row["kind"] == "start"]
    read_solver = found.read or _solver(starts, notes)
    rows = _rows(found.file(metrics.NAME))
    outputs = kinds(read_solver) if read_solver is not None else {}
    snapshots = tuple(_snapshots(found.places(), rows, outputs))
    reached = [one.iteration for one in snapshots] + [row["iteration"] for row in attempts]
    state, why = _state(attempts, found)
    return Training(
        title=found.name,
        made=now,
        state=state,
        why=why,
        iteration=max([*reached, *(row["step"] for row in rows)], default=0),
        of=read_solver.max_iter if read_solver is not None else None,
        rows=rows,
        snapshots=snapshots,
        attempts=tuple(_attempts(attempts)),
        judgements=tuple(_judgements(found, read_solver)),
        facts=tuple(_facts(found, read_solver, starts, notes)),
        kinds=outputs,
        notes=tuple(notes),
    )


def _solver(starts: Sequence[Row], notes: list[str]) -> Solver | None:
    """The solver of the last start, where it is still there and can be read from here."""
    path = str(starts[-1].get("solver", "")) if starts else ""
    if not path:
        notes.append("what the solver says: name its .prototxt in place of the prefix")
        return None
    try:
        return solver.read(Path(path), Flags())
    except PipelineError as error:
        notes.append(f"what the solver says: {error}; make the page in the folder where it trains")
        return None


def _rows(path: Path) -> tuple[Row, ...]:
    """Rows of metrics; a last line that a kill has torn is left out."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise FormatError(f"{path} cannot be read", error.strerror or str(error), "look at its permissions") from error
    found: list[Row] = []
    for number, line in enumerate(lines):
        try:
            row = json.loads(line)
            if type(row["step"]) is not int or not isinstance(row["values"], dict):
                raise TypeError("a row has a step and values")
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) - 1:
                break
            says = f"line {number + 1} is no row of metrics: {error}"
            raise FormatError(f"{path} cannot be read", says, "remove the line, or give another training") from error
        found.append(row)
    return tuple(found)


def _snapshots(places: Places, rows: Sequence[Row], outputs: Kinds) -> Iterator[Snapshot]:
    iterations = sorted(places.iterations())
    best = best_among(rows, set(iterations), outputs)
    for at in iterations:
        manifest = places.manifest(at)
        try:
            files = json.loads(manifest.read_bytes())["files"].values()
            size = sum(int(one["bytes"]) for one in files)
            there = all((manifest.parent / one["name"]).is_file() for one in files)
            yield Snapshot(at, manifest.stat().st_mtime, size, at == best, there)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # a kill has torn it: it is no snapshot


def _attempts(rows: Sequence[Row]) -> Iterator[Attempt]:
    """A start without an end was killed, unless it is the last one."""
    starts = [at for at, row in enumerate(rows) if row["kind"] == "start"]
    nexts = [*starts, len(rows)][1:]
    for number, (at, following) in enumerate(zip(starts, nexts, strict=True), start=1):
        row = rows[at]
        end = rows[at + 1] if at + 1 < following else None
        killed = "" if following == len(rows) else "killed"
        ended, why = (str(end.get("ended", "")), str(end.get("why", ""))) if end is not None else (killed, "")
        yield Attempt(number, str(row.get("process", "")), row["iteration"], _time(row), ended, why)


def _time(row: Row) -> float | None:
    value = row.get("time")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _state(attempts: Sequence[Row], found: Found) -> tuple[str, str]:
    """In a word, and what there is to say of it."""
    if attempts and attempts[-1]["kind"] == "start":
        return "running, or killed", f"process {attempts[-1].get('process', '')} has written no end yet"
    if attempts:
        ended = str(attempts[-1].get("ended", ""))
        return _STATES.get(ended, "failed"), str(attempts[-1].get("why", ""))
    if found.folder is not None:
        try:
            ended = json.loads((found.folder / "model.json").read_bytes())["ended"]
            return _STATES.get(ended, str(ended)), ""
        except (OSError, ValueError, KeyError, TypeError):
            return "no result", "the child has written no model.json: it runs, it failed, or it was killed"
    return "not known", "no attempt is written down beside its metrics"


def _facts(
    found: Found, read_solver: Solver | None, starts: Sequence[Row], notes: list[str]
) -> Iterator[tuple[str, str]]:
    last: dict[str, Any] = starts[-1] if starts else {}
    if read_solver is not None:
        yield "Solver file", str(read_solver.path)
        yield from facts(read_solver)
        prices, trouble = priced(read_solver, How(exact=bool(last.get("exact"))))
        notes += [trouble] if trouble else []
        yield from prices
    if last:
        yield "Engine", str(last.get("engine", ""))
        threads = last.get("threads")
        yield from threaded(threads if isinstance(threads, int) else 0, bool(last.get("exact")))


def _judgements(found: Found, read_solver: Solver | None) -> Iterator[Judgement]:
    numbers = [int(match[1] or 0) for path in found.file("x").parent.glob("*predictions*.parquet")
               if (match := re.search(r"predictions(\d*)\.parquet$", path.name))
               and path == found.file(name_of(int(match[1] or 0)))]  # fmt: skip
    tests = len(read_solver.tests.nets) if read_solver is not None else max(numbers, default=-1) + 1
    for number in range(tests):
        name = f"test net {number}" if tests > 1 else "test net"
        path = found.file(name_of(number))
        try:
            size = path.stat().st_size
            if size > LONGEST:
                yield Judgement(name, 0, why=f"{path} is longer than {LONGEST:,} bytes")
                continue
            yield redrawn(judgement(name, read(path.read_bytes(), str(path))))
        except FileNotFoundError:
            yield Judgement(name, 0, why=f"no test of it has ended yet: {path} is not there")
        except (OSError, FormatError) as error:
            yield Judgement(name, 0, why=str(error))
