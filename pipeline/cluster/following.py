"""What executors write while they train, as the driver says it: lines of the log, rows of the metrics, a bar."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.training.solver import Solver
from pipeline.training.surroundings import Shown

_LOOK_SECONDS = 0.5
Row = dict[str, Any]
Show = Callable[[Solver, Shown], None]


@contextlib.contextmanager
def following(*looks: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Looks twice a second; the function that it gives looks at once."""
    over, lock = threading.Event(), threading.Lock()

    def look() -> None:
        with lock:
            for one in looks:
                one()

    def follow() -> None:
        while not over.wait(_LOOK_SECONDS):
            look()

    thread = threading.Thread(target=follow, name="words of the executors", daemon=True)
    thread.start()
    try:
        yield look
    finally:
        over.set()
        thread.join()


class Lines:
    """What is appended to a file from now on.  write: takes whole lines."""

    def __init__(self, path: Path, write: Callable[[str], Any]) -> None:
        self._path, self._write = path, write
        self._at = path.stat().st_size if path.exists() else 0

    def look(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        if whole:
            self._write(whole.decode("utf-8", "replace"))


class Rows:
    """The rows of a training's metrics from an iteration on, each once.

    Who goes on from a snapshot writes the rows behind it anew, and they are the same; so the file may become shorter.
    take: hears of each row.
    """

    def __init__(self, path: Path, first: int, take: Callable[[Row], Any]) -> None:
        self._path, self._first, self._take = path, first, take
        self._seen: set[tuple[str, int]] = set()
        self._before = self._state()

    def look(self) -> None:
        """Where the file has changed since: a training begins it anew, or goes on in it."""
        now = self._state()
        if now is None or now == self._before:
            return
        self._before = now
        for line in self._path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return  # it is being written
            row = json.loads(line)
            key = (row["kind"], row["step"])
            if row["step"] >= self._first and key not in self._seen:
                self._seen.add(key)
                self._take(row)

    def _state(self) -> tuple[int, int, int] | None:
        """What changes with the file; None: there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


class Progress:
    """Shows each displayed iteration, from its row.  examples: of an iteration.  first: where the command began."""

    def __init__(self, read: Solver, examples: int, first: int, show: Show) -> None:
        self._read, self._examples, self._first, self._show = read, examples, first, show
        self._waited, self._time = 0.0, 0.0

    def take(self, row: Row) -> None:
        if row["kind"] != "train":
            return
        values, before = row["values"], self._time
        self._time = row["time"]
        if before:
            self._waited += values.get("waited_for_data", 0.0) * max(0.0, self._time - before)
        done = (row["step"] - self._first) * self._examples
        loss = float(values.get("train/smoothed", values["train/loss"]))
        self._show(self._read, Shown(row["step"], loss, float(values["lr"]), done, self._waited))
