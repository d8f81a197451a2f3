"""The page of a training in a real browser, by day and by night, on a desk and on a phone: it can be read, and fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from pipeline.operations.report.training.page import page as page_of
from pipeline.training.predictions.confusion import judgement
from tests.acceptance.test_report_page import CONTRAST, SIZES
from tests.servers.chromium import browser
from tests.unit.test_report import HOSTILE
from tests.unit.test_report_training import predictions, report, rows_of

TEXTS = """() => [...document.querySelectorAll('svg.plot')].map(svg => [...svg.querySelectorAll('text')].map(one => {
  const box = one.getBoundingClientRect(), all = svg.getBoundingClientRect();
  return {text: one.textContent, left: box.left - all.left, right: box.right - all.left, top: box.top - all.top,
          bottom: box.bottom - all.top, width: all.width, height: all.height};
}))"""
"""Where each text of each chart is within its chart, in pixels."""
COLOURS = """() => ['l0', 'l1', 'l2', 'l3', 'l4', 'l5', 'l6', 'l7'].map(name => {
  const path = document.querySelector(`.legend path.${name}`), style = getComputedStyle(path);
  return [style.stroke, style.strokeDasharray];
})"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of few classes with hostile names; and of a thousand classes and many layers and snapshots."""
    folder = tmp_path_factory.mktemp("pages")
    base = report()
    names = {f"grad_norm/{text}": 0.1 for text in HOSTILE}
    rows = tuple({**row, "values": {**row["values"], **names}} for row in base.rows)
    mistakes = tuple(replace(one, key=HOSTILE[at % len(HOSTILE)]) for at, one in enumerate(base.judgements[0].mistakes))
    hostile = replace(base, title=HOSTILE[0], rows=rows, why=" ".join(HOSTILE), notes=HOSTILE, state="diverged",
                      judgements=(replace(base.judgements[0], mistakes=mistakes),))  # fmt: skip
    large = replace(base, rows=tuple(rows_of(2_000, layers=64)),
                    judgements=(judgement("test net", predictions(1000, 20_000)),))  # fmt: skip
    found = {}
    for name, one in (("hostile", hostile), ("large", large)):
        found[name] = folder / f"{name}.html"
        found[name].write_bytes(page_of(one).encode("utf-8", "backslashreplace"))
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(
    params=[(name, scheme, size) for name in ("hostile", "large") for scheme in ("light", "dark") for size in SIZES],
    ids="-".join,
)
def shown(request: pytest.FixtureRequest, running: Browser, pages: dict[str, Path]) -> Iterator[Page]:
    """The page as somebody sees it, everything unfolded; a word on the console or a request is an error."""
    name, scheme, size = request.param
    width, height = SIZES[size]
    context = running.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.wait_for_load_state("networkidle")
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    context.close()


def test_everything_can_be_read_and_nothing_scrolls_sideways(shown: Page) -> None:
    assert shown.title() != "owned"
    assert shown.locator("script, iframe, object, embed, form, a[href], [onmouseover], [onerror], [style]").count() == 0
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing to scroll sideways"
    least, text = shown.evaluate(CONTRAST)
    assert least >= 4.5, f"hard to read: {text} ({least:.2f})"
    assert shown.locator("table").count() == shown.locator("table > caption").count()
    assert shown.locator("img:not([alt]), svg:not([aria-label]):not([aria-hidden])").count() == 0


def test_each_chart_has_labelled_axes_whose_texts_are_within_it_and_apart(shown: Page) -> None:
    plots = shown.evaluate(TEXTS)
    assert len(plots) >= 6
    for texts in plots:
        assert len(texts) >= 6, "ticks of two axes and their two names"
        for one in texts:
            assert one["left"] >= -1, one
            assert one["right"] <= one["width"] + 1, one
            assert -1 <= one["top"] < one["bottom"] <= one["height"] + 1, one
            assert max(one["bottom"] - one["top"], one["right"] - one["left"]) >= 9, f"too small to read: {one}"
        for number, one in enumerate(texts):
            for other in texts[number + 1 :]:
                apart = (
                    one["right"] <= other["left"] + 1 or other["right"] <= one["left"] + 1
                    or one["bottom"] <= other["top"] + 2 or other["bottom"] <= one["top"] + 2
                )  # fmt: skip
                assert apart, f"{one['text']} lies on {other['text']}"


def test_lines_differ_by_colour_and_by_dashes(shown: Page) -> None:
    looks = shown.evaluate(COLOURS)
    assert len({colour for colour, _ in looks}) == len({dashes for _, dashes in looks}) == 8


def test_a_place_of_a_chart_says_its_values_and_pictures_are_shown(running: Browser, pages: dict[str, Path]) -> None:
    page = running.new_page()
    page.goto(pages["hostile"].as_uri())
    title = page.locator("svg.plot g:has(.hit) > title").first.text_content() or ""
    assert title.startswith("iteration ")
    assert "train, smoothed" in title
    picture = page.locator(".mistakes img").first
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 8
    matrix = page.get_by_role("region", name="Confusion matrix of the test net").locator("tbody tr")
    cells = matrix.evaluate_all("rows => rows.map(row => [...row.cells].slice(1).map(one => +one.textContent))")
    assert sum(map(sum, cells)) == 500
    page.close()
