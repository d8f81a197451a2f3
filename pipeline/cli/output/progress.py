"""Progress as people look at it: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

LINE_SECONDS = 5.0
UNITS = {"ship": "refs", "compute": "images", "aggregate": "rows", "deliver": "bytes"}
UNITS |= {"verify": "shipments and folders", "why": "shipments", "compact": "rows"}


class Show(Protocol):
    """(stage, so many more done, so many more to do): the second stays 0 where the end is not known."""

    def __call__(self, stage: str, done: int, to_do: int) -> None: ...


@contextlib.contextmanager
def shown(live: bool | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """A display for as long as the work runs; on stderr, so that output can be piped."""
    if sys.stderr.isatty() if live is None else live:
        yield from _live()
    else:
        lines = _Lines(clock)
        try:
            yield lines
        finally:
            with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
                lines.flush()


def _live() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def show(stage: str, done: int, to_do: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=None, unit=UNITS.get(stage, ""))
            total = (progress.tasks[tasks[stage]].total or 0) + to_do
            progress.update(tasks[stage], advance=done, total=total or None)

        yield show


class _Lines:
    """Now and again a line, and one when a stage gives way to another."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}
        self._said: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._to_do: dict[str, int] = {}
        self._stage = ""

    def __call__(self, stage: str, done: int, to_do: int) -> None:
        if stage != self._stage:
            self.flush()
            self._stage = stage
        self._done[stage] = self._done.get(stage, 0) + done
        self._to_do[stage] = self._to_do.get(stage, 0) + to_do
        now = self._clock()
        if self._at.setdefault(stage, now) + LINE_SECONDS <= now:
            self._at[stage] = now
            self.flush()

    def flush(self) -> None:
        """Say how far the stage has come, unless that was said."""
        stage, so_far = self._stage, self._done.get(self._stage, 0)
        if so_far == self._said.get(stage, 0):
            return
        self._said[stage] = so_far
        of = f" of {self._to_do[stage]:,}" if self._to_do[stage] else ""
        print(f"{stage}: {so_far:,}{of} {UNITS.get(stage, '')}", file=sys.stderr, flush=True)
