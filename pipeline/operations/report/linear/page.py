"""What a comparison of workers came to as one HTML page, which asks nothing of anybody: no script, no request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.amounts import counted
from pipeline.operations.report.chart import Line, Scale, curves, swatch
from pipeline.operations.report.frame import framed
from pipeline.training.descent.comparing import Compared, Way, answer

NONE = "\u2013"


@dataclass(frozen=True)
class Comparison:
    """title: the data's name.  made: seconds.  facts: (name, value), how it was done."""

    title: str
    made: float
    found: Compared
    facts: tuple[tuple[str, str], ...]


def page(report: Comparison) -> str:
    """The whole page."""
    found = report.found
    return framed(
        "linear/page.html.jinja",
        report,
        heads=list(_heads(found)),
        sentences=list(answer(found)),
        rows=list(rows(found)),
        charts=list(_charts(found)),
        legend=[(swatch(at), way.name) for at, way in enumerate(found.ways)],
        facts=[*report.facts, *_facts(found)],
        told=f"{counted(found.examples, 'example')}, {counted(found.wanted.passes, 'pass', 'passes')}, "
        f"{counted(found.wanted.workers, 'worker')}, {counted(found.seeds, 'seed')}",
    )


def rows(found: Compared) -> Iterator[list[str]]:
    """The table: a way a row, as people read it."""
    for one in found.ways:
        low, high = one.spread
        yield [
            one.name, f"{one.updates / 1e6:.2f}", f"{one.times:.2f}", f"{one.processor:.2f}",
            NONE if one.conflicts is None else f"{100 * one.conflicts:.2g} %",
            f"{100 * one.above:.2f} %", f"{100 * low:.2f} to {100 * high:.2f} %",
            NONE if one.right is None else f"{100 * one.right:.2f} %",
        ]  # fmt: skip


HEADINGS = ("way", "M updates/s", "times one worker", "CPU / wall", "conflicts", "above the optimum", "by seed",
            "held out, right")  # fmt: skip


def _heads(found: Compared) -> Iterator[tuple[str, str, str]]:
    quick = max(found.ways, key=lambda one: one.updates)
    near = min(found.ways, key=lambda one: one.above)
    yield "Most updates a second", f"{quick.updates / 1e6:.2f} M", quick.name
    yield "Nearest to the optimum", f"{100 * near.above:.2f} %", near.name
    yield "Optimum", f"{found.optimum.objective:.6g}", f"proved: at least {found.optimum.bound:.6g}"


def _charts(found: Compared) -> Iterator[tuple[str, str, Markup]]:
    """(heading, what stands below it, drawing)."""
    over_time = [Line(way.name, _over_time(way), at) for at, way in enumerate(found.ways)]
    last = max(one.points[-1][0] for one in over_time)
    yield ("Distance from the optimum over time", "of the passes alone; the first seed; percent of the optimum",
           curves("Distance from the optimum over time", over_time,
                  Scale("milliseconds", "%", last, log=True)))  # fmt: skip
    over_passes = [Line(way.name, [(at, 100 * step.above) for at, step in enumerate(way.courses[0].steps, 1)], number)
                   for number, way in enumerate(found.ways)]  # fmt: skip
    yield ("Distance from the optimum over passes", "the first seed; percent of the optimum",
           curves("Distance from the optimum over passes", over_passes,
                  Scale("pass", "%", found.wanted.passes, log=True)))  # fmt: skip
    by_workers = [Line(way.name, [(count, rate / 1e6) for count, rate in way.by_workers], at)
                  for at, way in enumerate(found.ways)]  # fmt: skip
    yield ("Updates a second over workers", "millions, medians",
           curves("Updates a second over workers", by_workers,
                  Scale("workers", "M updates/s", found.wanted.workers, zero=True)))  # fmt: skip


def _over_time(way: Way) -> list[tuple[float, float]]:
    return [(1000 * step.seconds, 100 * step.above) for step in way.courses[0].steps]


def _facts(found: Compared) -> Iterator[tuple[str, str]]:
    wanted = found.wanted
    yield "loss", wanted.loss.name.lower().replace("_", " ")
    yield "l2", f"{wanted.l2:.6g}"
    yield "rows", "one by one in random order" if wanted.rows else "blocks of 64 in random order"
    yield "rates", ", ".join(f"{one.name} {one.rate:.3g}" for one in found.ways)
