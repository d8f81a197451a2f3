"""Small charts as inline SVG: no script, no style of their own, colours by class; each says in words what it shows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.operations.report.axes import Axis, around, whole, written
from pipeline.operations.report.html import attribute

HEIGHT = 64
WIDE, HIGH = 480, 264
"""Of a chart with axes."""
LEFT, RIGHT, TOP, BOTTOM = 84, 470, 12, 212
"""Of what lies within its axes."""
KINDS = 8
"""Lines that look different: by colour and by dashes."""
_POINTS = 120
"""Pieces of a line of which the first, the least, the greatest and the last value are drawn."""
_STRIPS = 60
"""Places of a chart that say their values in words."""
_DOTS = 60
"""A line with fewer points shows each."""


def bar(part: float, whole: float, kind: str) -> Markup:
    """One bar as long as its share; the figures stand beside it, so it is for the eye alone."""
    width = 100 * part / whole if whole else 0.0
    if 0 < width < 0.4:
        width = 0.4
    return Markup(
        f'<svg class="bar" aria-hidden="true" focusable="false" viewBox="0 0 100 10" preserveAspectRatio="none">'
        f'<rect class="rail" width="100" height="10"/><rect class="{kind}" width="{width:.2f}" height="10"/></svg>'
    )


def bars(label: str, values: Sequence[float], titles: Sequence[str], kind: str = "good") -> Markup:
    """A bar for each value, 0 at the ground; titles say each one in words."""
    most = max(values, default=0.0)
    step = 10.0
    drawn = []
    for at, (value, title) in enumerate(zip(values, titles, strict=True)):
        height = HEIGHT * value / most if most else 0.0
        if 0 < height < 1:
            height = 1.0
        left, top = at * step, HEIGHT - height
        drawn.append(
            f'<g><title>{attribute(title)}</title><rect class="hit" x="{left:.0f}" width="10" height="{HEIGHT}"/>'
            f'<rect class="{kind}" x="{left + 1:.0f}" y="{top:.2f}" width="8" height="{height:.2f}"/></g>'
        )
    width = max(1, len(values)) * step
    return Markup(
        f'<svg class="chart" role="img" aria-label="{attribute(label)}" viewBox="0 0 {width:.0f} {HEIGHT}" '
        f'preserveAspectRatio="none"><rect class="ground" y="{HEIGHT - 0.5}" width="{width:.0f}" height="0.5"/>'
        f"{''.join(drawn)}</svg>"
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.  points: (x, y), by x; what is not finite is left out.  look: from 0 to KINDS - 1.  faint: behind."""

    name: str
    points: Sequence[tuple[float, float]]
    look: int = 0
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A place of the x axis that a title explains.  kind: "snapshot", "best", or "attempt"."""

    at: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Scale:
    """What stands beside the axes of a chart.  last: where x ends.  zero: y begins there.  log: y by its logarithm."""

    x: str
    y: str
    last: float
    log: bool = False
    zero: bool = False


def curves(label: str, lines: Sequence[Line], scale: Scale, marks: Sequence[Mark] = ()) -> Markup:
    """Lines over an x axis from 0 on, with labelled axes and marks; places say their values in words."""
    across = whole(scale.last)
    lines = [Line(one.name, _fit(one.points, scale.log), one.look, one.faint) for one in lines]
    up = around([y for one in lines for _, y in one.points], scale.log, scale.zero)
    drawn = [
        *_grid(across, up, scale), *_strips(lines, across, scale.x), *_marked(marks, across),
        *(_line(one, across, up) for one in sorted(lines, key=lambda one: not one.faint)),
    ]  # fmt: skip
    return Markup(
        f'<svg class="plot" role="img" aria-label="{attribute(label)}" viewBox="0 0 {WIDE} {HIGH}">'
        f"{''.join(drawn)}</svg>"
    )


def swatch(look: int, faint: bool = False) -> Markup:
    """How a line looks, for its legend."""
    return Markup(
        f'<svg class="key" aria-hidden="true" focusable="false" viewBox="0 0 28 10">'
        f'<path class="{_look(look, faint)}" d="M1 5H27"/></svg>'
    )


def sign(kind: str) -> Markup:
    """How a mark looks, for its legend."""
    shape = '<path class="attempt" d="M14 0V10"/>' if kind == "attempt" else _sign(kind, 14, 9.5)
    return Markup(f'<svg class="key" aria-hidden="true" focusable="false" viewBox="0 0 28 10">{shape}</svg>')


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that decide how a line looks: of each piece the first, the least, the greatest and the last one."""
    if len(points) <= 4 * _POINTS:
        return list(points)
    found = []
    for piece in range(_POINTS):
        part = points[piece * len(points) // _POINTS : (piece + 1) * len(points) // _POINTS]
        kept = {0, len(part) - 1, *(pick(range(len(part)), key=lambda at: part[at][1]) for pick in (min, max))}
        found += [part[at] for at in sorted(kept)]
    return found


def _fit(points: Sequence[tuple[float, float]], log: bool) -> list[tuple[float, float]]:
    """Those that can be drawn; on a logarithmic axis what is above 0."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)]


def _x(axis: Axis, value: float) -> float:
    return LEFT + (RIGHT - LEFT) * axis.part(value)


def _y(axis: Axis, value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * axis.part(value)


def _grid(across: Axis, up: Axis, scale: Scale) -> Iterator[str]:
    for value in up.ticks():
        y = _y(up, value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{attribute(written(value))}</text>'
    for value in across.ticks():
        x = _x(across, value)
        anchor = "end" if x > RIGHT - 12 else "middle"
        yield f'<path class="grid" d="M{x:.1f} {BOTTOM}V{BOTTOM + 4}"/>'
        place = f'x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="{anchor}"'
        yield f'<text class="tick" {place}>{attribute(written(value))}</text>'
    yield f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>'
    yield f'<text class="name" x="{(LEFT + RIGHT) / 2}" y="{HIGH - 8}" text-anchor="middle">{attribute(scale.x)}</text>'
    middle = (TOP + BOTTOM) / 2
    yield (
        f'<text class="name" x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})">'
        f"{attribute(scale.y)}</text>"
    )


def _line(line: Line, across: Axis, up: Axis) -> str:
    points = thinned(line.points)
    if not points:
        return ""
    places = [(_x(across, x), _y(up, y)) for x, y in points]
    look = _look(line.look, line.faint)
    drawn = f'<path class="{look}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>'
    if len(places) <= _DOTS and not line.faint:
        drawn += "".join(f'<circle class="dot {look}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in places)
    return drawn


def _look(look: int, faint: bool) -> str:
    return f"line l{look % KINDS}{' faint' if faint else ''}"


def _strips(lines: Sequence[Line], across: Axis, name: str) -> Iterator[str]:
    """Invisible bars that say in words what lies there: the last value of each line up to their end."""
    xs = sorted({x for line in lines for x, _ in line.points})
    if not xs:
        return
    wide = (RIGHT - LEFT) / _STRIPS
    for strip in range(_STRIPS):
        begin, end = (across.low + (across.high - across.low) * (strip + at) / _STRIPS for at in (0, 1))
        last = bisect_right(xs, end)
        if last == bisect_right(xs, begin) and not (strip == 0 and xs[0] <= begin):
            continue
        said = [f"{line.name} {y:.4g}" for line in lines for x, y in line.points[-1 + _upto(line, end) :][:1]
                if _upto(line, end)]  # fmt: skip
        title = f"{name} {xs[last - 1]:,.0f}: {'; '.join(said)}"
        yield (
            f'<g><title>{attribute(title)}</title><rect class="hit" x="{LEFT + strip * wide:.1f}" y="{TOP}" '
            f'width="{wide:.1f}" height="{BOTTOM - TOP}"/></g>'
        )


def _upto(line: Line, end: float) -> int:
    """How many points lie up to there."""
    return bisect_right(line.points, end, key=lambda point: point[0])


def _marked(marks: Sequence[Mark], across: Axis) -> Iterator[str]:
    for mark in marks:
        x = _x(across, mark.at)
        if mark.kind == "attempt":
            yield f'<g><title>{attribute(mark.title)}</title><path class="attempt" d="M{x:.1f} {TOP}V{BOTTOM}"/></g>'
        else:
            yield f"<g><title>{attribute(mark.title)}</title>{_sign(mark.kind, x, BOTTOM - 1)}</g>"


def _sign(kind: str, x: float, ground: float) -> str:
    """A triangle; of the best a larger diamond."""
    if kind == "best":
        return f'<path class="best" d="M{x:.1f} {ground:.1f}l-5 -5l5 -5l5 5z"/>'
    return f'<path class="snapshot" d="M{x:.1f} {ground - 7:.1f}l4 7h-8z"/>'
