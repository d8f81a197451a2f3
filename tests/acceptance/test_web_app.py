"""The service's web app in a real browser: texts of a new training are judged before anything is queued."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from tests.acceptance.test_report_page import CONTRAST, SIZES
from tests.servers.chromium import browser
from tests.servers.databases import sites
from tests.servers.service import Person, Stand, standing

HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"
OPENAPI = Path(__file__).parents[2] / "pipeline/service/http/openapi.json"
LONG_MS = 90_000
"""A training, where many others use the processors."""
VIOLATED = """document.addEventListener('securitypolicyviolation', event => {
  console.error(`policy: ${event.violatedDirective}`); })"""
DRAWN = 'figure.chart:not([data-points="0"]):not([data-points="1"])'


def known_paths() -> list[tuple[str, re.Pattern[str]]]:
    """Method and path of each route of the document."""
    paths = json.loads(OPENAPI.read_bytes())["paths"]
    return [
        (method.upper(), re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))))
        for path, methods in paths.items()
        for method in methods
    ]


@dataclass
class Watched:
    """A browser's context, and all that its pages asked for and said.  forgiven: while its server is down."""

    context: BrowserContext
    asked: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    forgiven: bool = False
    clicks: int = 0

    def page(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(LONG_MS)
        page.add_init_script(VIOLATED)
        page.on("console", lambda message: self._heard(message.text))
        page.on("pageerror", lambda error: self._heard(str(error)))
        page.on("request", self._requested)
        return page

    def click(self, page: Page, role: str, name: str) -> None:
        self.clicks += 1
        page.get_by_role(role, name=name, exact=True).first.click()  # type: ignore[arg-type]

    def _heard(self, text: str) -> None:
        if not self.forgiven:
            self.said.append(text)

    def _requested(self, request: Request) -> None:
        self.asked.append((request.method, request.url))

    def judge(self, origin: str, words: tuple[str, ...] = ()) -> None:
        """Nothing was said, nobody else was asked, and each request is a file of the pages or in the document."""
        assert [one for one in self.said if not any(word in one for word in words)] == []
        routes = known_paths()
        for method, url in self.asked:
            if url.startswith(("blob:", "data:")):
                continue
            parts = urlsplit(url)
            assert f"{parts.scheme}://{parts.netloc}" == origin, f"{url} is a stranger"
            if parts.path == "/" or parts.path.startswith("/static/"):
                assert method == "GET"
                continue
            assert any(method == one and way.fullmatch(parts.path) for one, way in routes), f"{method} {parts.path}"


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    expect.set_options(timeout=LONG_MS)
    with browser() as found:
        yield found


@contextlib.contextmanager
def watching(running: Browser, scheme: str = "light", size: str = "desk") -> Iterator[Watched]:
    width, height = SIZES[size]
    context = running.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        yield Watched(context)
    finally:
        context.close()


def readable(page: Page) -> None:
    """Everything can be read, nothing scrolls sideways, and no text has become markup."""
    assert page.title().split(" ")[-1] == "Hathi"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{page.url} scrolls sideways"
    least, text = page.evaluate(CONTRAST)
    assert least >= 4.5, f"{page.url}: hard to read: {text} ({least:.2f})"
    assert (
        page.locator("iframe, object, embed, [onmouseover], [onerror], main script, h1:text-is('owned')").count() == 0
    )
    assert page.locator("img:not([alt]), svg:not([aria-label]):not([aria-hidden])").count() == 0
    assert page.locator("a[href^='javascript:'], a[href*='//']").count() == 0
    unnamed = """() => [...document.querySelectorAll('button, input, select, textarea')].filter(one => !one.hidden
        && !one.getAttribute('aria-label') && !one.labels?.length && !one.textContent.trim()).length"""
    assert page.evaluate(unnamed) == 0, f"{page.url}: a control has no name"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("service")
    for site in sites("sqlite", folder, None):
        with standing(site, folder) as found:
            yield found


def test_a_wrong_text_is_shown_at_its_line_and_a_warning_before_anything_is_queued(
    stand: Stand, running: Browser
) -> None:
    ann = stand.person("texts", "ann")
    dataset = stand.dataset(ann, ann.datafile(b"no archive", "a.zip"), "drawings")
    with watching(running) as seen:
        page = _entered(seen, stand, ann, f"train?dataset={dataset}")
        page.get_by_role("button", name="Start the training").wait_for()
        page.get_by_text("Texts", exact=True).click()
        net = page.get_by_label("Net (prototxt)")
        good = net.input_value()
        net.fill(good.replace("num_output: 1", "num_output: 4"))
        page.get_by_role("button", name="Check the texts").click()
        expect(page.locator(".warnings")).to_contain_text("4 outputs, the dataset 1 labels")
        lines = good.split("\n")
        at = next(number for number, line in enumerate(lines, 1) if "InnerProduct" in line)
        chosen = """() => { const one = document.activeElement;
            return one.value.slice(0, one.selectionStart).split('\\n').length; }"""
        for wrong in ('"Outer"', '"InnerProduct" colour: 3'):
            net.fill(good.replace('"InnerProduct"', wrong))
            expect(page.get_by_role("button", name="Start the training")).to_have_count(0)
            page.get_by_role("button", name="Check the texts").click()
            page.get_by_role("button", name=re.compile(rf"^line {at}, column \d+$")).click()
            assert page.evaluate(chosen) == at, wrong
        readable(page)
        assert ann.got("GET", "/v1/training-jobs")["items"] == []
        seen.judge(stand.url, ("422",))


def _entered(seen: Watched, stand: Stand, who: Person, way: str) -> Page:
    """A page whose session began by a token."""
    page = seen.page()
    page.goto(f"{stand.url}/#link={who.token}")
    page.locator("nav").wait_for()
    page.goto(f"{stand.url}/#/{way}")
    return page
