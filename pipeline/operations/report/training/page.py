"""The facts of a training as one HTML page, which asks nothing of anybody: no script, no request, no link out.

The page itself is page.html.jinja; here is what it shows beside the facts as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import TypeVar

from markupsafe import Markup

from pipeline.amounts import counted, size
from pipeline.operations.report.chart import Mark, bar, curves, sign, swatch
from pipeline.operations.report.frame import BYTES, framed
from pipeline.operations.report.html import LONG, attribute, figure, share
from pipeline.operations.report.style import PARTS
from pipeline.operations.report.training import charts
from pipeline.operations.report.training.charts import Chart
from pipeline.operations.report.training.facts import Row, Training
from pipeline.times import to_the_minute
from pipeline.training.outputs import ACCURACY, LOSS
from pipeline.training.predictions.judgement import Judgement

T = TypeVar("T")

MARKS = 60
"""Snapshots that are marked in a chart: of more, so many evenly, and the best."""
TABLE = 60
"""Rows of a table."""
CAUSE = 3000
"""Characters of a cause that are shown."""
NOTHING = "\u2013"
BAD = ("failed", "diverged")


def page(report: Training) -> str:
    """The whole page, always smaller than BYTES in UTF-8; one that would be larger goes without pictures."""
    whole = _whole(report)
    if len(whole.encode("utf-8", "replace")) < BYTES:
        return whole
    bare = tuple(
        replace(one, mistakes=tuple(replace(mistake, png=b"") for mistake in one.mistakes)) for one in report.judgements
    )
    note = "pictures: the page would be too large"
    return _whole(replace(report, judgements=bare, notes=(*report.notes, note)))


def _whole(report: Training) -> str:
    last = max([report.iteration, *(row["step"] for row in report.rows)], default=0)
    marks = list(_marks(report))
    shown = list(charts.charts(report.rows, last, report.kinds))
    return framed(
        "training/page.html.jinja",
        report,
        heads=list(_heads(report, shown)),
        span=_span(report),
        sentence=_sentence(report),
        bad=report.state in BAD,
        charts=[(one, curves(one.label, one.lines, replace(one.scale, last=last), marks)) for one in shown],
        legend=_legend,
        signs=[(sign(kind), words) for kind, words in _SIGNS if any(mark.kind == kind for mark in marks)],
        tests=_tests(report.rows),
        norms=_norms(report.rows),
        waited=charts.waiting(report.rows),
        shade=_shade,
        percent=_percent,
        value=_value,
        ended=lambda word: _ENDS.get(word, word),
        whole=_whole_text,
        size=size,
        bar=bar,
        snapshots=_spread(report.snapshots, TABLE),
        attempts=report.attempts[-TABLE:],
    )


_ENDS = {
    "": "no end is written", "done": "finished", "until": "ended, as --until asked", "early": "stopped by a signal",
    "left": "asked to end",
}  # fmt: skip
"""How an attempt ended, as people call it; other words are such."""
_SIGNS = (
    ("snapshot", "a snapshot"), ("best", "the best snapshot by its test"), ("attempt", "the training was resumed here"),
)  # fmt: skip


def _heads(report: Training, shown: Sequence[Chart]) -> Iterator[tuple[str, object, str]]:
    """What is said in large letters: its name, the figure, and what belongs to it."""
    of = f"of {figure(report.of)} iterations" if report.of else "iterations"
    yield "Reached", figure(report.iteration), of
    by_heading = {one.heading: one for one in shown}
    losses = by_heading["Loss"].lines if "Loss" in by_heading else ()
    trained = next((one for one in losses if one.name.startswith("train") and not one.faint), None)
    if trained is not None:
        at, value = trained.points[-1]
        yield "Training loss", f"{value:.4g}", f"at iteration {at:,.0f}"
    else:
        yield "Training loss", NOTHING, "no display was written"
    kind = LOSS if "Accuracy" not in by_heading else ACCURACY
    best = _best(report, kind)
    if best is not None:
        name, value, at = best
        figures = f"{value:.4f}" if kind == ACCURACY else f"{value:.4g}"
        yield f"Best {name}", figures, f"at iteration {at:,.0f}{_best_snapshot(report, at)}"
    else:
        yield "Best test", NOTHING, "no test was made"
    speeds = [y for one in shown if one.heading == "Speed" for _, y in one.lines[0].points]
    yield "Speed", f"{figure(median(speeds))}" if speeds else NOTHING, "images a second, median"
    waited = charts.waiting(report.rows)
    yield "Waiting for data", NOTHING if waited is None else share(waited, 1.0), "of the time of training"


def _best_snapshot(report: Training, at: float) -> str:
    """Where the best test was of an iteration without a snapshot, which snapshot is the best."""
    best = next((one.iteration for one in report.snapshots if one.best), at)
    return "" if best == at else f"; the best snapshot is of {best:,}"


def _best(report: Training, kind: str) -> tuple[str, float, float] | None:
    """(name, value, iteration) of the best that a test gave: the greatest accuracy, or the least loss."""
    chart = next((one for one in charts.charts(report.rows, 1, report.kinds)
                  if one.heading == ("Accuracy" if kind == ACCURACY else "Loss")), None)  # fmt: skip
    lines = [one for one in chart.lines if one.name.startswith("test")] if chart is not None else []
    found = [(value, at, one.name) for one in lines for at, value in one.points]
    if not found:
        return None
    way = 1 if kind == ACCURACY else -1
    value, at, name = max(found, key=lambda one: (way * one[0], -one[1]))
    return name.replace(": ", " "), value, at


def _span(report: Training) -> str:
    times = [row["time"] for row in report.rows if isinstance(row.get("time"), int | float)]
    begun = [one.at for one in report.attempts if one.at is not None]
    parts = [counted(len(report.attempts), "attempt")] if report.attempts else []
    parts.append(counted(len(report.snapshots), "snapshot"))
    if times or begun:
        parts.insert(0, f"{to_the_minute(min([*begun, *times]))} to {to_the_minute(max([*begun, *times]))} UTC")
    return "; ".join(parts)


def _sentence(report: Training) -> str:
    """What came of it."""
    where = f"at iteration {report.iteration:,}"
    match report.state:
        case "finished":
            return f"The training is finished: it ended {where}."
        case "diverged" | "failed":
            return f"The training has {report.state}; it was {where}."
        case "running":
            return f"The training runs; its newest snapshot is {where}."
        case "waiting":
            return f"Nobody trains now; whoever begins goes on {where}."
        case "stopped":
            return f"The training was stopped {where}; its snapshots stay."
        case "left":
            return f"The training was asked to end {where}; the same command goes on from there."
        case "until":
            return f"The training ended {where}, as --until asked; without it the same command goes on from there."
        case "early":
            return f"The training was stopped by a signal {where}."
        case state:
            return f"State: {state}, {where}."


def _marks(report: Training) -> Iterator[Mark]:
    for number, one in enumerate(report.attempts):
        if number and one.iteration:
            says = f"attempt {one.number} goes on from iteration {one.iteration:,}"
            yield Mark(one.iteration, "attempt", says)
    for kept in _spread(report.snapshots, MARKS):
        if not kept.best:
            yield Mark(kept.iteration, "snapshot", f"snapshot of iteration {kept.iteration:,}")
    for kept in report.snapshots:
        if kept.best:
            yield Mark(kept.iteration, "best", f"snapshot of iteration {kept.iteration:,}, the best")


def _legend(chart: Chart) -> list[tuple[Markup, str, str]]:
    """(how it looks, its name, its last value) of each line."""
    return [(swatch(one.look, one.faint), one.name, chart.last.format(one.points[-1][1])) for one in chart.lines]


def _tests(rows: Sequence[Row]) -> tuple[list[str], list[tuple[int, list[str]]], int]:
    """(outputs, (iteration, their values) of each test, how many tests are not shown); all tests of an iteration in
    one row."""
    by_step: dict[int, dict[str, str]] = {}
    for row in rows:
        if row.get("kind") == "test":
            values = by_step.setdefault(row["step"], {})
            values.update((name, f"{one:.6g}" if isinstance(one, float) else str(one))
                          for name, one in row["values"].items())  # fmt: skip
    names = sorted({name for values in by_step.values() for name in values})[:8]
    steps = _spread(sorted(by_step), TABLE)
    return (
        [f"#{name}" for name in names],
        [(step, [by_step[step].get(name, "") for name in names]) for step in steps],
        len(by_step) - len(steps),
    )


def _norms(rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """(layer, first, median, last)."""
    found = charts.norms(rows).items()
    return [(layer, f"{of[0]:.3g}", f"{median(of):.3g}", f"{of[-1]:.3g}") for layer, of in found]


def _shade(judgement: Judgement, row: int, column: int) -> str:
    """The class of a cell: right or wrong, and by the part of its row, from 0 to 8; small parts are seen, too."""
    number = judgement.matrix[row][column]
    whole = sum(judgement.matrix[row])
    level = 0 if not number else max(1, round(len(PARTS) * (number / whole) ** 0.5))
    right = row == column and row < len(judgement.shown)
    return f"{'r' if right else 'w'}{level}" if level else "r0" if right else ""


def _percent(part: float | None) -> str:
    return NOTHING if part is None else share(part, 1.0)


def _value(of: float, judgement: Judgement) -> str:
    """A probability, or a score where there are none."""
    return share(of, 1.0).replace(" ", "\u00a0") if judgement.probabilities else f"{of:.4g}"


def _whole_text(text: str) -> Markup:
    """Foreign text as far as CAUSE: it says why, so it is not cut as names are; message, detail, hint a line each."""
    lines = []
    for line in text[:CAUSE].split(" | "):
        parts = [attribute(line[at : at + LONG]) for at in range(0, len(line), LONG)]
        lines.append(Markup(f"<bdi>{Markup().join(parts)}</bdi>"))
    return Markup("<br>").join(lines)


def _spread(all_: Sequence[T], most: int) -> list[T]:
    """So many of them, from the first to the last, evenly."""
    if len(all_) <= most:
        return list(all_)
    return [all_[at * (len(all_) - 1) // (most - 1)] for at in range(most)]
