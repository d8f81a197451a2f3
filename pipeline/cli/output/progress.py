"""Progress as people look at it: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from pipeline.times import HOUR

LINE_SECONDS = 5.0
PACE_SECONDS = 30.0
UNITS = {"ship": "refs", "compute": "images", "aggregate": "rows", "deliver": "bytes"}
UNITS |= {
    "import": "entries",
    "download": "bytes",
    "push": "bytes",
    "train": "iterations",
    "verify": "shipments and folders",
    "why": "shipments",
    "compact": "rows",
    "backup": "objects",
    "restore": "objects",
}


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
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    paces: dict[str, Pace] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def show(stage: str, done: int, to_do: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=None, unit=UNITS.get(stage, ""), rate="")
                paces[stage] = Pace(time.monotonic())
            total = (progress.tasks[tasks[stage]].total or 0) + to_do
            rate = paces[stage].of(done, time.monotonic())
            said = f", {amount(rate)}/s" if rate else ""
            progress.update(tasks[stage], advance=done, total=total or None, rate=said)

        yield show


class Pace:
    """How many a second, over the last half minute: what a burst at the beginning gave says nothing of the rest."""

    def __init__(self, now: float) -> None:
        self._seen: deque[tuple[float, int]] = deque([(now, 0)])
        self._done = 0

    def of(self, done: int, now: float) -> float:
        """So many more are done; 0: that is not known yet."""
        self._done += done
        self._seen.append((now, self._done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - PACE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        return (self._done - before) / (now - since) if now > since else 0.0


def amount(rate: float) -> str:
    """A rate, with as many digits as say something."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def lasting(seconds: float) -> str:
    """About how long: `40 s`, `5 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"


class _Lines:
    """Now and again a line, and one when a stage gives way to another."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}
        self._said: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._to_do: dict[str, int] = {}
        self._paces: dict[str, Pace] = {}
        self._rates: dict[str, float] = {}
        self._stage = ""

    def __call__(self, stage: str, done: int, to_do: int) -> None:
        if stage != self._stage:
            self.flush()
            self._stage = stage
        self._done[stage] = self._done.get(stage, 0) + done
        self._to_do[stage] = self._to_do.get(stage, 0) + to_do
        now = self._clock()
        self._rates[stage] = self._paces.setdefault(stage, Pace(now)).of(done, now)
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
        print(
            f"{stage}: {so_far:,}{of} {UNITS.get(stage, '')}{self._ahead(stage, so_far)}", file=sys.stderr, flush=True
        )

    def _ahead(self, stage: str, so_far: int) -> str:
        """How fast, and how long yet; nothing where nothing is left to do, or where that is not known."""
        left, rate = self._to_do[stage] - so_far, self._rates[stage]
        return f", {amount(rate)}/s, about {lasting(left / rate)} left" if left > 0 and rate else ""
