"""How a training shows itself: Caffe's lines on stderr, and on a terminal a bar with loss, rate and time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli.output.progress import Pace

if TYPE_CHECKING:
    from pipeline.training.solver import Solver
    from pipeline.training.surroundings import Shown

Write = Callable[[str], None]
Show = Callable[["Solver", "Shown"], None]
_BAR, _ETA = 12, 14
"""Columns of a terminal for the bar, and for the time left with its word and the spaces around."""


class Tested:
    """Hears of each row of the metrics, and says what the last test found."""

    def __init__(self) -> None:
        self._step, self._found = 0, dict[str, Any]()

    def take(self, row: Mapping[str, Any]) -> None:
        """A row.  Those of several test nets at one iteration count as one test."""
        if row["kind"] != "test":
            return
        if row["step"] != self._step:
            self._step, self._found = row["step"], {}
        self._found |= {name: value for name, value in row["values"].items() if name.count("/") == 1}

    def said(self, iteration: int | None = None) -> str:
        """Such as `test: accuracy 0.984, loss 0.0732`: outputs of one number, by their names; "" before a test.

        iteration: one of another iteration says which.
        """
        if not self._found:
            return ""
        named = [(name.removeprefix("test/"), value) for name, value in self._found.items()]
        numbers = [f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in named]
        at = "" if iteration in (None, self._step) else f" at iteration {self._step:,}"
        return f"test{at}: {', '.join(numbers)}"


@contextlib.contextmanager
def shown(live: bool | None = None, tested: Tested | None = None) -> Iterator[tuple[Write, Show]]:
    """(takes each line, takes each iteration), for as long as the training runs; the bar says what `tested` says."""
    if sys.stderr.isatty() if live is None else live:
        yield from _live(tested or Tested())
    else:
        yield _plain, lambda solver, now: None


def _plain(line: str) -> None:
    sys.stderr.write(line)


def _live(tested: Tested) -> Iterator[tuple[Write, Show]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(_BAR), TextColumn("{task.fields[count]}"), TextColumn("{task.fields[said]}"),
        TextColumn("ETA"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task("train", total=None, count="", said="")
        speed = _Speed(time.monotonic())

        def show(solver: Solver, now: Shown) -> None:
            said = speed.said(now, time.monotonic(), last=now.iteration == solver.max_iter)
            if said:
                count = f"{now.iteration:,}/{solver.max_iter:,}"
                room = progress.console.width - _BAR - len(count) - 2 - _ETA
                progress.update(task, completed=now.iteration, total=solver.max_iter, count=count,
                                said=fitted([*said, tested.said()], room))  # fmt: skip

        yield lambda line: progress.console.print(line.rstrip("\n"), markup=False, highlight=False), show


def fitted(parts: Sequence[str], room: int) -> str:
    """As many of these, the first ones first, as stand in so many columns; what is left out, the lines above say."""
    said = ""
    for part in parts:
        longer = f"{said}  {part}" if said else part
        if part and len(longer) <= room:
            said = longer
    return said


class _Speed:
    """Says what stands beside the bar, four times a second at most."""

    def __init__(self, now: float) -> None:
        self._begin, self._last, self._examples = now, now, 0
        self._pace = Pace(now)

    def said(self, shown: Shown, now: float, last: bool = False) -> tuple[str, ...]:
        """What matters most first; nothing where it was said just now."""
        if now - self._last < 0.25 and not last:
            return ()
        self._last = now
        rate = self._pace.of(shown.examples - self._examples, now)
        self._examples = shown.examples
        waited = 100 * shown.waited / max(1e-9, now - self._begin)
        speed = f"{rate:,.0f} images/s" if rate else ""
        return f"loss {shown.loss:.4g}", f"lr {shown.rate:.4g}", speed, f"waiting for data {waited:.0f} %"
