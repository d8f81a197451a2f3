"""The facts of a day or a shipment as one HTML page, which asks nothing of anybody: no script, no request, no link out.

The page itself is page.html.jinja; here is what it shows beside the facts as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from markupsafe import Markup

from pipeline.amounts import counted, length_of_time
from pipeline.ledger.row_counts import RowCounts
from pipeline.operations.report.chart import bar, bars
from pipeline.operations.report.facts import Hour, Report, SetStatistics
from pipeline.operations.report.frame import BYTES, framed
from pipeline.operations.report.html import figure, share
from pipeline.records import REASONS
from pipeline.times import hour_of, to_the_minute


def page(report: Report) -> str:
    """The whole page, always smaller than BYTES in UTF-8 for what gather.py keeps.

    One that would be larger goes without pictures, then without examples.
    """
    whole = _whole(report)
    if len(whole.encode()) >= BYTES:
        note = "pictures: the page would be too large"
        report = replace(report, thumbnails=(), notes=(*report.notes, note))
        whole = _whole(report)
    if len(whole.encode()) >= BYTES:
        reasons = tuple(replace(one, examples=()) for one in report.reasons)
        whole = _whole(replace(report, reasons=reasons, notes=(*report.notes, "examples: the page would be too large")))
    return whole


def _whole(report: Report) -> str:
    worked = any(one.shipped or one.computed or one.aggregated or one.delivered for one in report.hours)
    hours = report.hours if worked else ()
    return framed(
        "page.html.jinja",
        report,
        span=_span(report),
        heads=list(_heads(report)),
        funnels=list(_funnels(report)),
        hours=[(hour_of(one.at), one, _duration(median(one.lags)) if one.lags else "") for one in hours],
        hour_charts=list(_hour_charts(hours)),
        meaning=meaning,
        bar=bar,
        histogram=_histogram,
        duration=_duration,
    )


def _heads(report: Report) -> Iterator[tuple[str, str, str]]:
    """What is said in large letters: its name, the figure, and what belongs to it."""
    first, again = report.first, report.again
    lags = [lag for hour in report.hours for lag in hour.lags]
    yield (
        "Features delivered",
        figure(first.delivered + again.delivered),
        f"{figure(again.delivered)} of them by retries",
    )
    tried = first.refs - first.unfinished
    yield "Without a feature", share(first.failures, tried), f"of {figure(tried)}, first tries"
    if report.reasons:
        worst = report.reasons[0]
        number = worst.first + worst.again
        yield "Most frequent reason", worst.reason, f"{figure(number)} {'time' if number == 1 else 'times'}"
    else:
        yield "Most frequent reason", "\u2013", "nothing failed"
    yield "Still at work", figure(first.unfinished + again.unfinished), "images, retries among them"
    yield "Source to lake", _duration(median(lags)) if lags else "\u2013", "median" if lags else "nothing delivered"


def _span(report: Report) -> str:
    last = min(report.end, report.made)
    shipments = counted(len(report.shipments) + report.more.get("shipments", 0), "shipment")
    between = f"{to_the_minute(report.begin)} to {to_the_minute(last)} UTC"
    return f"{between}; {shipments}"


def _funnels(report: Report) -> Iterator[tuple[str, int, list[tuple[str, int, str, bool]]]]:
    """(caption, what is the whole, steps) of each funnel."""
    if report.first.rows:
        yield "First tries", max(report.first.rows, report.first.refs), list(_steps(report.first))
    if report.again.refs:
        whole = max(report.again.rows, report.again.refs)
        yield "Retries and releases", whole, list(_steps(report.again))[2:]


def _steps(one: RowCounts) -> Iterator[tuple[str, int, str, bool]]:
    """(name, images, colour, whether it is a part of the step above)."""
    yield "Rows of sources", one.rows, "idle", False
    yield "rejected: not image refs", one.rejected, "bad", True
    yield "Image refs", one.refs, "idle", False
    yield "still at work", one.unfinished, "idle", True
    yield "duplicates", one.duplicates - one.alike, "idle", True
    if one.alike:
        yield "ids alike: they differ in letter case or %-coding only", one.alike, "bad", True
    yield "failures", one.failures, "bad", True
    yield "Features", one.features, "good", False
    yield "delivered", one.delivered, "good", True
    if one.not_modified:
        yield "used again: the host said that the image did not change", one.not_modified, "good", True
    if one.equal_bytes:
        yield "used again: the host sent the same bytes", one.equal_bytes, "good", True
    if one.damaged:
        yield "of torn JPEGs: a part of the picture is missing", one.damaged, "bad", True


def meaning(reason: str) -> str:
    """What a reason of failures says, in words."""
    known = REASONS.get(reason)
    return known.meaning if known else "not known to this version"


def _hour_charts(hours: Sequence[Hour]) -> Iterator[tuple[str, str, Markup]]:
    """(heading, what stands below it, drawing)."""
    clocks = [hour_of(one.at) for one in hours]
    for name, what, values in (
        ("Shipped", "refs", [one.shipped for one in hours]),
        ("Computed", "images", [one.computed for one in hours]),
        ("Delivered", "rows", [one.delivered for one in hours]),
    ):
        label = f"{name}: {sum(values):,} {what}, {max(values, default=0):,} in the best hour"
        titles = [f"{clock} {value:,} {what}" for clock, value in zip(clocks, values, strict=True)]
        yield name, f"{figure(sum(values))} {what}", bars(label, values, titles)
    lags = [max(one.lags, default=0.0) for one in hours]
    if any(one.lags for one in hours):
        longest = f"{_duration(max(lags))} at most"
        told = [_duration(lag) if lag else "nothing" for lag in lags]
        titles = [f"{clock} {lag}" for clock, lag in zip(clocks, told, strict=True)]
        label = f"Longest way from source to lake, by the hour of delivery: {longest}"
        yield "Longest lag", longest, bars(label, lags, titles, "bad")


def _histogram(one: SetStatistics) -> Markup:
    low, high = one.edges
    step = (high - low) / len(one.histogram)
    titles = [f"{low + at * step:.3g} to {low + (at + 1) * step:.3g}: {n:,}" for at, n in enumerate(one.histogram)]
    label = f"Values of set {one.set}, from {low:.3g} to {high:.3g}; heights by the square root of their number"
    return bars(label, [number**0.5 for number in one.histogram], titles)


def _duration(seconds: float) -> str:
    """A length of time that no line of the page breaks in two."""
    return length_of_time(seconds).replace(" ", "\u00a0")
