"""Progress as people look at it: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

LINE_SECONDS = 5.0
UNITS = {"ship": "refs", "compute": "images", "aggregate": "rows", "deliver": "bytes"}
UNITS |= {"verify": "shipments", "why": "shipments"}


class Show(Protocol):
    """(stage, so many more done, so many more to do): the second stays 0 where the end is not known."""

    def __call__(self, stage: str, done: int, to_do: int) -> None: ...


@contextlib.contextmanager
def shown(live: bool | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Show]:
    """A display for as long as the work runs; on stderr, so that output can be piped."""
    if sys.stderr.isatty() if live is None else live:
        yield from _live()
    else:
        yield _Lines(clock)


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
    """A line when a stage begins, and then now and again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}
        self._done: dict[str, int] = {}
        self._to_do: dict[str, int] = {}

    def __call__(self, stage: str, done: int, to_do: int) -> None:
        self._done[stage] = so_far = self._done.get(stage, 0) + done
        self._to_do[stage] = total = self._to_do.get(stage, 0) + to_do
        at, before = self._said.get(stage, (float("-inf"), -1))
        now = self._clock()
        if so_far == before or (now - at < LINE_SECONDS and so_far != total):
            return
        self._said[stage] = (now, so_far)
        of = f" of {total:,}" if total else ""
        print(f"{stage}: {so_far:,}{of} {UNITS.get(stage, '')}", file=sys.stderr, flush=True)
