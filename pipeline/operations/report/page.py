"""The facts of a day or a shipment as one HTML page, which asks nothing of anybody: no script, no request, no link out.

What comes from outside (URLs, ids, details, samples of rows) goes through html.py and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from pipeline import __version__
from pipeline.ledger.layout import version_of
from pipeline.operations.report.chart import bar, bars
from pipeline.operations.report.facts import Example, Funnel, Hour, ReasonCount, Report, SetStatistics, Thumbnail
from pipeline.operations.report.html import attribute, code, figure, share, table, text
from pipeline.operations.report.style import STYLE
from pipeline.records import REASONS

BYTES = 1_000_000
"""No page is larger: one that would be goes without pictures, then without examples."""


def page(report: Report) -> str:
    """The whole page, always smaller than BYTES in UTF-8 for what gather.py keeps."""
    whole = _whole(report)
    if len(whole.encode()) >= BYTES:
        note = "pictures: the page would be too large"
        report = replace(report, thumbnails=(), notes=(*report.notes, note))
        whole = _whole(report)
    if len(whole.encode()) >= BYTES:
        reasons = tuple(replace(one, examples=()) for one in report.reasons)
        whole = _whole(replace(report, reasons=reasons, notes=(*report.notes, "examples, for the same reason")))
    return whole


def _whole(report: Report) -> str:
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n',
        '<meta name="format-detection" content="telephone=no">\n<link rel="icon" href="data:,">\n',
        f"<title>Hathi: {attribute(report.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        *_header(report),
        "<main>\n",
        *_funnel(report),
        *_reasons(report.reasons),
        *_hosts(report),
        *_images(report),
        *_hours(report.hours),
        *_statistics(report.statistics),
        *_shipments(report),
        *_rejected(report),
        *_notes(report.notes),
        f"</main>\n<footer>Made {_when(report.made)} by Hathi {attribute(__version__)}. All times are UTC.</footer>\n",
        "</body>\n</html>\n",
    ]
    return "".join(parts)


def _header(report: Report) -> Iterator[str]:
    first, again = report.first, report.again
    lags = [lag for hour in report.hours for lag in hour.lags]
    delivered = first.delivered + again.delivered
    worst = report.reasons[0] if report.reasons else None
    failed = f"of {figure(first.refs - first.unfinished)}, first tries"
    heads = [
        ("Features delivered", figure(delivered), f"{figure(again.delivered)} of them by retries"),
        ("Without a feature", share(first.failures, first.refs - first.unfinished), failed),
        (
            "Most frequent reason",
            attribute(worst.reason) if worst else "\u2013",
            _times(worst) if worst else "nothing failed",
        ),
        ("Still at work", figure(first.unfinished + again.unfinished), "images, retries among them"),
        ("Source to lake", _long(median(lags)) if lags else "\u2013", "median" if lags else "nothing delivered"),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>" for name, value, more in heads)
    yield f'<header>\n<h1>{text(report.title)}</h1>\n<p class="soft">{_span(report)}</p>\n'
    yield f'<dl class="heads">{cells}</dl>\n</header>\n'


def _times(one: ReasonCount) -> str:
    number = one.first + one.again
    return f"{figure(number)} {'time' if number == 1 else 'times'}"


def _span(report: Report) -> str:
    last = min(report.end, report.made)
    count = len(report.shipments) + report.more.get("shipments", 0)
    return f"{_when(report.begin)} to {_when(last)} UTC; {count:,} {'shipment' if count == 1 else 'shipments'}"


def _funnel(report: Report) -> Iterator[str]:
    yield "<h2>From rows to features</h2>\n"
    if not report.first.rows and not report.again.refs:
        yield "<p>Nothing was aggregated or shipped.</p>\n"
        return
    yield (
        '<p class="soft">Each row of a source ends in exactly one place. Retries try again what was counted before, '
        "so they are counted by themselves.</p>\n"
    )
    if report.first.rows:
        yield _funnel_table("First tries", report.first)
    if report.again.refs:
        yield _funnel_table("Retries and releases", report.again)


def _funnel_table(caption: str, one: Funnel) -> str:
    steps = [
        ("Rows of sources", one.rows, "idle", ""),
        ("rejected: no refs", one.rejected, "bad", "in"),
        ("Image refs", one.refs, "idle", ""),
        ("still at work", one.unfinished, "idle", "in"),
        ("duplicates", one.duplicates - one.alike, "idle", "in"),
        *([("ids alike: they differ in letter case or %-coding only", one.alike, "bad", "in")] if one.alike else []),
        ("failures", one.failures, "bad", "in"),
        ("Features", one.features, "good", ""),
        ("delivered", one.delivered, "good", "in"),
    ]
    if one.damaged:
        steps.append(("of torn JPEGs: a part of the picture is missing", one.damaged, "bad", "in"))
    if caption != "First tries":
        steps = steps[2:]
    whole = max(one.rows, one.refs)
    rows = [
        (f'<span class="{kind}">{name}</span>' if kind else name, figure(number), share(number, whole),
         bar(number, whole, colour))
        for name, number, colour, kind in steps
    ]  # fmt: skip
    return table(caption, ["step", "#images", "#share", "="], rows, "funnel")


def _reasons(reasons: Sequence[ReasonCount]) -> Iterator[str]:
    yield "<h2>Why images have no feature</h2>\n"
    if not reasons:
        yield "<p>Nothing failed.</p>\n"
        return
    whole = sum(one.first + one.again for one in reasons)
    tried_again = any(one.again for one in reasons)
    rows = []
    for one in reasons:
        known = REASONS.get(one.reason)
        meaning = known.meaning if known else "not known to this version"
        name = f"{code(one.reason)}<br><small>{attribute(meaning)}</small>"
        counts = [figure(one.first), figure(one.again)] if tried_again else [figure(one.first)]
        rows.append((name, *counts, share(one.first + one.again, whole)))
    headings = ["~reason", "#first tries", "#retries", "#share"] if tried_again else ["~reason", "#images", "#share"]
    yield table("Reasons", headings, rows)
    yield "<h3>Examples</h3>\n"
    for one in reasons:
        if one.examples:
            number = f"{len(one.examples)} of {figure(one.first + one.again)}"
            yield f"<details><summary>{code(one.reason)}: {number}</summary>\n"
            yield table(
                f"Examples of {one.reason}", ["~item", "~URL, and what went wrong"], map(_example, one.examples)
            )
            yield "</details>\n"


def _example(one: Example) -> tuple[str, str]:
    item = code(one.external_id) if one.external_id and one.external_id != one.url else f"<code>{one.item}</code>"
    place = f"{item}<br><small>partner {one.partner}, item {one.item}</small>"
    url = code(one.url) if one.url else "<small>the image travelled inline</small>"
    later = "; tried again later" if one.retriable else ""
    return place, f"{url}<br><small>{text(one.detail)}{later}</small>"


def _hosts(report: Report) -> Iterator[str]:
    if not report.hosts:
        return
    most = report.hosts[0].failures
    rows = []
    for one in report.hosts:
        reasons = ", ".join(f"{attribute(reason)} {figure(number)}" for reason, number in one.reasons[:4])
        name = code(one.host) if one.host else "no host: inline images, URLs that are none"
        cell = f"{name}<br><small>{reasons}</small>"
        rows.append((cell, figure(one.failures), bar(one.failures, most, "bad")))
    yield "<h2>Hosts that fail most</h2>\n"
    yield table(_shown("Hosts", report, "hosts"), ["~host", "#failures", "="], rows)


def _shown(what: str, report: Report, key: str) -> str:
    more = report.more.get(key, 0)
    return f"{what}; {more:,} more are not shown" if more else what


def _images(report: Report) -> Iterator[str]:
    if not report.undecoded:
        return
    yield "<h2>What could not be decoded</h2>\n"
    if not report.thumbnails:
        yield (
            f"<p>{figure(report.undecoded)} images. Their bytes are not at hand: images that come by URL are not kept, "
            "and nothing is fetched again for a report. <code>hathi fetch --save DIR URL</code> fetches one.</p>\n"
        )
        return
    yield (
        f'<p class="soft">{len(report.thumbnails)} of {figure(report.undecoded)}: those whose bytes travelled inline. '
        "Pictures are made anew from what is there.</p>\n"
    )
    yield f'<div class="thumbs">{"".join(map(_thumbnail, report.thumbnails))}</div>\n'


def _thumbnail(one: Thumbnail) -> str:
    example = one.example
    name = example.external_id or str(example.item)
    if one.png:
        data = base64.b64encode(one.png).decode()
        alt = attribute(f"what can be seen of the image of item {name}")
        see = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    else:
        see = f"<code>{attribute(one.begins)}</code>" if one.begins else "<small>no bytes</small>"
    return (
        f'<figure><div class="see">{see}</div><figcaption>{code(name)}<br>partner {example.partner}: '
        f"{attribute(example.reason)}, {text(example.detail)}<br>{one.size:,} bytes; {attribute(one.note)}"
        "</figcaption></figure>"
    )


def _hours(hours: Sequence[Hour]) -> Iterator[str]:
    if not any(one.shipped or one.computed or one.aggregated or one.delivered for one in hours):
        return
    yield "<h2>Through the day</h2>\n"
    clocks = [_clock(one.at) for one in hours]
    yield '<div class="charts">'
    for name, what, values in (
        ("Shipped", "refs", [one.shipped for one in hours]),
        ("Computed", "images", [one.computed for one in hours]),
        ("Delivered", "rows", [one.delivered for one in hours]),
    ):
        most = max(values)
        label = f"{name}: {sum(values):,} {what}, {most:,} in the best hour"
        titles = [f"{clock} {value:,} {what}" for clock, value in zip(clocks, values, strict=True)]
        yield _chart(name, f"{figure(sum(values))} {what}", bars(label, values, titles), clocks)
    lags = [max(one.lags, default=0.0) for one in hours]
    if any(one.lags for one in hours):
        titles = [
            f"{clock} {_long(lag)}" if lag else f"{clock} nothing" for clock, lag in zip(clocks, lags, strict=True)
        ]
        label = f"Longest way from source to lake, by the hour of delivery: {_long(max(lags))} at most"
        yield _chart("Longest lag", f"{_long(max(lags))} at most", bars(label, lags, titles, "bad"), clocks)
    yield "</div>\n<details><summary>The same as a table</summary>\n"
    rows = [
        (clock, figure(one.shipped), figure(one.computed), figure(one.aggregated), figure(one.delivered),
         f"{one.computed / 3600:.1f}", _long(median(one.lags)) if one.lags else "")
        for clock, one in zip(clocks, hours, strict=True)
    ]  # fmt: skip
    headings = ["hour", "#shipped", "#computed", "#aggregated", "#delivered", "#images/s", "#lag, median"]
    yield table("What was done in each hour", headings, rows) + "</details>\n"


def _chart(name: str, figures: str, drawn: str, clocks: Sequence[str]) -> str:
    return (
        f"<figure><h3>{name}</h3><figcaption>{figures}</figcaption>{drawn}"
        f"<figcaption><span>{clocks[0]}</span><span>{clocks[-1]}</span></figcaption></figure>"
    )


def _statistics(sets: Sequence[SetStatistics]) -> Iterator[str]:
    if not sets:
        return
    yield "<h2>What the features look like</h2>\n"
    yield (
        '<p class="soft">Of a small sample; <code>hathi stats</code> looks at all of them. Norms: least, median, '
        "greatest. Dead: values that are zero in each sampled row.</p>\n"
    )
    rows = []
    for one in sets:
        norms = " / ".join(f"{norm:.4g}" for norm in one.norms) if one.histogram else ""
        zeros = share(one.zeros, 1.0) if one.histogram else ""
        made = f"<small>{attribute(one.fingerprint[:12])}, {attribute(one.engine)}</small>"
        rows.append(
            (f"{code(one.set)}<br>{made}", figure(one.dim), figure(one.features), figure(one.sampled),
             norms, zeros, figure(one.dead), figure(one.equal), figure(one.not_finite))
        )  # fmt: skip
    headings = ["~set", "#values", "#features", "#sampled", "#norms", "#zeros", "#dead", "#equal rows", "#NaN rows"]
    yield table("Sets", headings, rows)
    drawn = [_histogram(one) for one in sets if one.histogram]
    yield f'<div class="charts">{"".join(drawn)}</div>\n' if drawn else ""


def _histogram(one: SetStatistics) -> str:
    low, high = one.edges
    step = (high - low) / len(one.histogram)
    titles = [f"{low + at * step:.3g} to {low + (at + 1) * step:.3g}: {n:,}" for at, n in enumerate(one.histogram)]
    label = f"Values of set {one.set}, from {low:.3g} to {high:.3g}; heights by the square root of their number"
    drawn = bars(label, [number**0.5 for number in one.histogram], titles)
    return (
        f"<figure><h3>Values of {code(one.set)}</h3><figcaption>heights by square root</figcaption>{drawn}"
        f"<figcaption><span>{low:.3g}</span><span>{high:.3g}</span></figcaption></figure>"
    )


def _shipments(report: Report) -> Iterator[str]:
    if report.partners:
        partners = [
            (f"<code>{attribute(one.partner)}</code>", attribute(one.lake), figure(one.features), figure(one.failures),
             share(one.failures, one.features + one.failures), code(one.reason) if one.reason else "")
            for one in report.partners
        ]  # fmt: skip
        yield "<h2>Partners</h2>\n"
        caption = _shown("Those with the most failures first", report, "partners")
        yield table(caption, ["partner", "lake", "#features", "#failures", "#share that failed", "mostly"], partners)
    if report.shipments:
        rows = [
            (code(one.name), attribute(one.kind), attribute(one.set), code(one.source), figure(one.refs),
             figure(one.features), figure(one.failures), attribute(one.state),
             _long(one.lag) if one.lag is not None else "")
            for one in report.shipments
        ]  # fmt: skip
        yield "<h2>Shipments</h2>\n"
        headings = ["~shipment", "kind", "set", "~source", "#refs", "#features", "#failures", "~state", "#lag"]
        yield table(_shown("The newest first", report, "shipments"), headings, rows)


def _rejected(report: Report) -> Iterator[str]:
    if report.rejected:
        rows = [(code(one.file), figure(one.row), text(one.why), code(one.sample)) for one in report.rejected]
        yield "<h2>Rows that are no refs</h2>\n"
        yield table("Samples", ["~file", "#row", "~why", "~sample"], rows)


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield f"<h2>What is not in here</h2>\n<ul>{''.join(f'<li>{text(one)}</li>' for one in notes)}</ul>\n"


def _when(seconds: float) -> str:
    version = version_of(seconds)
    return f"{version[:4]}-{version[4:6]}-{version[6:8]} {version[9:11]}:{version[11:13]}"


def _clock(seconds: float) -> str:
    return version_of(seconds)[9:11] + ":00"


def _long(seconds: float) -> str:
    """Two units at the most."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return f"{int(seconds)}\u00a0s"
    if minutes < 60:
        return f"{minutes}\u00a0min"
    if minutes < 48 * 60:
        return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"
    return f"{minutes // 1440}\u00a0d {minutes // 60 % 24}\u00a0h"
