"""PREFIX_attempts.jsonl: an object for each start of a training in a folder, and one for each end that it could write.

A start without an end was killed, or runs.  A training that begins at iteration 0 begins the file anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

Row = dict[str, Any]
NAME = "attempts.jsonl"


@dataclass(frozen=True, slots=True)
class Started:
    """What is told of a start.  engine: with its version.  threads: that compute.  solver: its path."""

    iteration: int
    solver: str
    engine: str
    threads: int
    seed: int
    exact: bool


class AttemptsFile:
    """path: None: whoever runs the training knows its attempts.  now: seconds since 1970.

    warn: hears of a disk that does not take them: a training goes on without.
    """

    def __init__(self, path: Path | None, now: Callable[[], float], warn: Callable[[str], None]) -> None:
        self._path, self._now, self._warn = path, now, warn

    @contextlib.contextmanager
    def attempt(self, found: Started, iteration: Callable[[], int]) -> Iterator[None]:
        """Around what trains: the start, and the end where an error makes it.  iteration: where the training is."""
        told = {name: getattr(found, name) for name in Started.__slots__}
        process = f"{socket.gethostname()}:{os.getpid()}"
        self._add({"kind": "start", **self._time(), "process": process, **told}, anew=not found.iteration)
        try:
            yield
        except BaseException as error:
            self.end(iteration(), *ended_by(error))
            raise

    def end(self, iteration: int, ended: str, why: str = "") -> None:
        """ended: how, in a word.  why: what there is to say of it."""
        self._add({"kind": "end", **self._time(), "iteration": iteration, "ended": ended, "why": why})

    def _time(self) -> Row:
        return {"time": round(self._now(), 3)}

    def _add(self, row: Row, anew: bool = False) -> None:
        """A line of its own, also behind one that a kill has torn."""
        if self._path is None:
            return
        try:
            with self._path.open("wb+" if anew else "ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    torn = file.read(1) != b"\n"
                    file.write(b"\n" if torn else b"")
                file.write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            self._warn(f"{self._path} cannot be written: {error.strerror or error}; the report lacks this attempt")


def ended_by(error: BaseException) -> tuple[str, str]:
    """The word and the cause of a training that an error ends."""
    if isinstance(error, PipelineError):
        return type(error).__name__.lower(), " | ".join(one for one in (error.message, error.detail, error.hint) if one)
    return type(error).__name__.lower(), str(error)


def rows_of(path: Path) -> list[Row]:
    """The rows that are there; what is no row is left out.  Raises OSError where the file cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("kind") in ("start", "end") and isinstance(row.get("iteration"), int):
            found.append(row)
    return found


def starts(path: Path) -> int:
    """How often the training was begun; 0 where the file does not say it."""
    try:
        return sum(row["kind"] == "start" for row in rows_of(path))
    except OSError:
        return 0
