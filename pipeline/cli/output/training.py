"""How a training shows itself: Caffe's lines on stderr, and on a terminal a bar with loss, rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipeline.cli.output.progress import Pace

if TYPE_CHECKING:
    from pipeline.training.loop import Shown
    from pipeline.training.solver import Solver

Write = Callable[[str], None]
Show = Callable[["Solver", "Shown"], None]


@contextlib.contextmanager
def shown(live: bool | None = None) -> Iterator[tuple[Write, Show]]:
    """(takes each line, takes each iteration), for as long as the training runs."""
    if sys.stderr.isatty() if live is None else live:
        yield from _live()
    else:
        yield _plain, lambda solver, now: None


def _plain(line: str) -> None:
    sys.stderr.write(line)


def _live() -> Iterator[tuple[Write, Show]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task("train", total=None, said="")
        speed = _Speed(time.monotonic())

        def show(solver: Solver, now: Shown) -> None:
            said = speed.said(now, time.monotonic(), last=now.iteration == solver.max_iter)
            if said:
                progress.update(task, completed=now.iteration, total=solver.max_iter, said=said)

        yield lambda line: progress.console.print(line.rstrip("\n"), markup=False, highlight=False), show


class _Speed:
    """Says what stands beside the bar, four times a second at most."""

    def __init__(self, now: float) -> None:
        self._begin, self._last, self._examples = now, now, 0
        self._pace = Pace(now)

    def said(self, shown: Shown, now: float, last: bool = False) -> str:
        if now - self._last < 0.25 and not last:
            return ""
        self._last = now
        rate = self._pace.of(shown.examples - self._examples, now)
        self._examples = shown.examples
        waited = 100 * shown.waited / max(1e-9, now - self._begin)
        speed = f"  {rate:,.0f} images/s" if rate else ""
        return f"loss {shown.loss:.4g}  lr {shown.rate:.4g}{speed}  waiting for data {waited:.0f} %"
