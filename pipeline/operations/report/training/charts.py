"""Rows of metrics as the charts of a page: which values belong together, and how their axes are."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.operations.report.chart import KINDS, Line, Scale
from pipeline.operations.report.training.facts import Row
from pipeline.training.gradient_norms import PREFIX
from pipeline.training.outputs import ACCURACY, LOSS, OTHER, is_element, kind_of

_SPREAD = 50
"""Values whose greatest is so many times the least are shown by their logarithm."""
_ITERATION = "iteration"
Series = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Chart:
    """heading; what stands below it; the lines with their axes.  last: how the last value of a line is written."""

    heading: str
    below: str
    lines: tuple[Line, ...]
    scale: Scale
    last: str = "{:.4g}"

    @property
    def label(self) -> str:
        """What it shows, in words."""
        said = [f"{one.name} {self.last.format(one.points[0][1])} to {self.last.format(one.points[-1][1])}"
                for one in self.lines if one.points]  # fmt: skip
        return f"{self.heading} by iteration: {'; '.join(said)}"


def series_of(rows: Sequence[Row]) -> Series:
    """The finite values of each name, by iteration."""
    found: Series = defaultdict(list)
    for row in rows:
        for name, value in row.get("values", {}).items():
            if isinstance(value, int | float) and math.isfinite(value):
                found[name].append((float(row["step"]), float(value)))
    return dict(found)


def charts(rows: Sequence[Row], last: int, kinds: Mapping[str, str]) -> Iterator[Chart]:
    """last: the iteration at which the axes end.  kinds: of outputs by blob; else their names tell."""
    series = series_of(rows)
    outputs = {name: kind_of(name, kinds) for name in series if _net(name) and not is_element(name)}
    losses = [name for name, kind in outputs.items() if kind == LOSS and name != "train/smoothed"]
    yield from _drawn(_losses(series, losses), last)
    accuracies = _lines(series, [name for name, kind in outputs.items() if kind == ACCURACY])
    yield from _drawn(Chart("Accuracy", "part of the examples that the net judges right", accuracies,
                            Scale(_ITERATION, "accuracy", last)), last)  # fmt: skip
    others = [name for name, kind in outputs.items() if kind == OTHER]
    yield from _drawn(Chart("Other outputs", "of the nets", _lines(series, others[:KINDS]),
                            Scale(_ITERATION, "value", last)), last)  # fmt: skip
    yield from _drawn(Chart("Learning rate", "before the multipliers of single blobs",
                            (Line("rate", series.get("lr", [])),), Scale(_ITERATION, "rate", last)), last)  # fmt: skip
    yield from _drawn(Chart("Speed", "of the training, without its tests where they fall between two displays",
                            (Line("images a second", series.get("examples_per_s", [])),),
                            Scale(_ITERATION, "images/s", last, zero=True), "{:,.0f}"), last)  # fmt: skip
    waited = [(at, 100 * value) for at, value in series.get("waited_for_data", [])]
    yield from _drawn(Chart("Waiting for data", "part of the time in which the net stood still",
                            (Line("waiting", waited),), Scale(_ITERATION, "% of the time", last, zero=True),
                            "{:.1f} %"), last)  # fmt: skip
    yield from _drawn(_gradients(series), last)


def waiting(rows: Sequence[Row]) -> float | None:
    """The part of the time of the displays that went on waiting for data; None where no row says it.

    Displays are of equally many examples, so each weighs by the time that an example took.
    """
    found = [(values["waited_for_data"], 1 / values["examples_per_s"]) for row in rows
             if (values := row.get("values", {})).get("examples_per_s", 0) and "waited_for_data" in values]  # fmt: skip
    whole = sum(weight for _, weight in found)
    return sum(part * weight for part, weight in found) / whole if whole else None


def norms(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The gradient norms of each layer, in order."""
    series = series_of(rows)
    return {name.removeprefix(PREFIX): [y for _, y in points] for name, points in series.items()
            if name.startswith(PREFIX)}  # fmt: skip


def _drawn(chart: Chart, last: int) -> Iterator[Chart]:
    """The chart where it has anything to show, its y axis logarithmic where its values want it."""
    lines = tuple(one for one in chart.lines if one.points)
    if not lines:
        return
    values = [y for one in lines for _, y in one.points]
    log = chart.scale.log or (not chart.scale.zero and min(values) > 0 and max(values) > _SPREAD * min(values))
    y = f"{chart.scale.y}, log scale" if log else chart.scale.y
    yield replace(chart, lines=lines, scale=replace(chart.scale, y=y, log=log))


def _net(name: str) -> str:
    """`train`, `test`, `test1`: the net that an output belongs to; "" of what is none."""
    net = name.partition("/")[0]
    return net if re.fullmatch(r"train|test\d*", net) else ""


def _called(name: str) -> str:
    """An output as people call it: `test net 1: accuracy`."""
    net, _, blob = name.partition("/")
    return f"{net[:4]} net {net[4:]}: {blob}" if net[4:].isdecimal() else f"{net}: {blob}"


def _losses(series: Series, names: Sequence[str]) -> Chart:
    """The smoothed loss in front of each display's own, where they differ, and the losses of tests."""
    smoothed = series.get("train/smoothed", [])
    lines = [Line("train, smoothed", smoothed)] if smoothed else []
    for name in sorted(names, key=lambda one: (_net(one), one)):
        if name == "train/loss" and series[name] == smoothed:
            lines[0] = Line("train", smoothed)
        elif _net(name) == "train":
            own = name == "train/loss"
            lines.append(Line(_called(name), series[name], 0 if own else len(lines), faint=own))
        else:
            lines.append(Line(_called(name), series[name], len(lines)))
    return Chart("Loss", "of the training at each display, and of the tests", tuple(lines[:KINDS]),
                 Scale(_ITERATION, "loss", 0))  # fmt: skip


def _lines(series: Series, names: Sequence[str]) -> tuple[Line, ...]:
    return tuple(Line(_called(name), series[name], look) for look, name in enumerate(sorted(names)[:KINDS]))


def _gradients(series: Series) -> Chart:
    """As many layers as lines can be told apart, from the first to the last."""
    layers = [name for name in series if name.startswith(PREFIX)]
    shown = layers
    if len(layers) > KINDS:
        shown = [layers[at * (len(layers) - 1) // (KINDS - 1)] for at in range(KINDS)]
    lines = tuple(Line(name.removeprefix(PREFIX), series[name], look) for look, name in enumerate(shown))
    below = "L2 norms by layer at each display"
    if len(layers) > len(shown):
        below += f"; {len(shown)} of {len(layers)} layers, the table has all"
    return Chart("Gradients", below, lines, Scale(_ITERATION, "gradient norm", 0, log=True))
