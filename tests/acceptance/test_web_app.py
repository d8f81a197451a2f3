"""The service's web app in a real browser: five minutes by clicks, by keys alone, over hostile data, at two sizes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from pipeline.app.overview import Overviews
from pipeline.clock import Clock
from tests.acceptance.test_report_page import CONTRAST, SIZES
from tests.servers.chromium import browser
from tests.servers.databases import sites
from tests.servers.demand import Server, free_port, until
from tests.servers.promoting import Lake, served, worker_of
from tests.servers.service import Person, Stand, standing
from tests.servers.shapes import LABELS, drawing, png
from tests.servers.shown_lake import shown_lake
from tests.unit.test_report import HOSTILE

HATHI = Path(__file__).parents[2] / ".venv/bin/hathi"
OPENAPI = Path(__file__).parents[2] / "pipeline/service/http/openapi.json"
LONG_MS = 300_000
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


@dataclass
class Started:
    """`hathi service start` over a folder of its own, always at the same address."""

    config: Path
    url: str
    program: Server | None = None
    begun: int = 0

    def begin(self) -> str:
        """The link that it prints."""
        self.begun += 1
        log = self.config.parent / f"service-{self.begun}.log"
        environ = {**os.environ, "PYTHONPATH": str(HATHI.parents[2])}
        self.program = Server.start([HATHI, "service", "start", "--config", self.config], log=log, env=environ)
        until(lambda: "/openapi.json" in log.read_text(), "the API answers", 60)
        return next(line for line in log.read_text().splitlines() if "#link=" in line)

    def kill(self) -> None:
        assert self.program is not None
        os.killpg(self.program.process.pid, signal.SIGKILL)
        self.program.process.wait()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    pytest.importorskip("torch", reason="LEFT OUT: a training needs torch: scripts/training.sh")
    folder = tmp_path_factory.mktemp("web")
    listen = f"127.0.0.1:{free_port()}"
    config = folder / "service.toml"
    config.write_text(
        f'state = "{folder}/state"\nlogs.folder = "{folder}/logs"\n[bucket]\nurl = "{folder}/bucket"\n'
        f'[service]\nlisten = "{listen}"\ndatabase = "{folder}/service.db"\n'
    )
    found = Started(config, f"http://{listen}")
    yield found
    if found.program is not None:
        found.program.stop()


def test_from_the_printed_link_to_a_picture_of_ones_own_in_eight_clicks(started: Started, running: Browser) -> None:
    link = started.begin()
    with watching(running) as seen:
        page = seen.page()
        page.goto(link)
        expect(page.get_by_role("heading", level=1)).to_have_text("What shall a net learn?")
        assert "link=" not in page.url, "the secret stays in no history"
        seen.click(page, "button", "Take the sample")
        page.wait_for_url("**/#/jobs/*")
        first = page.locator(DRAWN).first
        first.wait_for()
        points = int(first.get_attribute("data-points") or 0)
        other = seen.page()
        other.goto(f"{started.url}/#/jobs")
        expect(other.locator("tbody tr")).to_have_count(1)
        expect(page.locator(".facts .state.succeeded")).to_be_visible()
        assert int(first.get_attribute("data-points") or 0) > points, "the curve grew under the page"
        expect(other.locator(".state.succeeded")).to_be_visible(), "and the other tab's table moved"
        tested = [int(one) for one in page.locator(".matrix td").all_text_contents()]
        assert sum(tested) == 36, "each example of the test side stands in the matrix"
        own = png(drawing("circle", 77))
        seen.clicks += 2  # the zone, and the file in the system's dialog
        with page.expect_file_chooser() as chooser:
            page.locator(".drop").first.click()
        chooser.value.set_files({"name": "own.png", "mimeType": "image/png", "buffer": own})
        likeliest = page.locator(".bars li:first-child .label")
        likeliest.wait_for()
        told = page.request.get(f"{started.url}/v1/classifiers").json()["items"]
        assert len(told) == 1, "one classifier, however often a picture is given"
        answer = page.request.post(
            f"{started.url}/v1/classifiers/{told[0]['id']}/classify", data=own,
            headers={"Content-Type": "image/png", "Sec-Fetch-Site": "same-origin", "Origin": started.url},
        )  # fmt: skip
        [result] = answer.json()["results"]
        assert likeliest.text_content() == result["predictions"][0]["label"]
        assert {one["label"] for one in result["predictions"]} <= set(LABELS)
        assert seen.clicks <= 8
        readable(page)
        [data] = page.request.get(f"{started.url}/v1/datasets").json()["items"]
        other.goto(f"{started.url}/#/data/{data['id']}")
        expect(other.locator("img.thumb")).to_have_count(24)  # four of each shape
        readable(other)
        other.goto(f"{started.url}/#/jobs")
        _killed_and_begun_again(started, seen, page, other)
        seen.judge(started.url)


def _killed_and_begun_again(started: Started, seen: Watched, page: Page, other: Page) -> None:
    seen.forgiven = True
    started.kill()
    away = other.get_by_role("status").filter(has_text="does not answer")
    expect(away).to_be_visible()
    started.begin()
    expect(away).to_have_count(0)
    seen.forgiven = False
    seen.click(page, "button", "Train again")
    expect(other.locator("tbody tr")).to_have_count(2)  # under the open page, by the stream that came back
    row = other.locator("tbody tr").first
    row.get_by_role("button", name="Cancel").click()
    row.get_by_role("button", name="Yes, cancel it").click()
    expect(other.locator(".state.cancelled")).to_be_visible()
    page.locator(".facts .state.cancelled").wait_for()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    folder = tmp_path_factory.mktemp("lake")
    found = Lake(folder / "pipeline", folder / "bucket")
    found.write({"using": ["b"], "hostile": ["b"]})
    return found


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, lake: Lake) -> Iterator[Stand]:
    shown = shown_lake(tmp_path_factory.mktemp("shown"), [*HOSTILE, *(f"http://10.0.0.1/{one}" for one in HOSTILE)])
    overview = Overviews(shown.config, Clock())
    for site in sites("sqlite", tmp_path_factory.mktemp("service"), None):
        with standing(site, lake.folder.parent, promoter=lake.promoter(), overview=overview) as found:
            yield found
    overview.close()


def _keys(page: Page, wanted: Callable[[], bool], key: str = "Tab", most: int = 60) -> None:
    """Presses a key until that holds."""
    for _ in range(most):
        if wanted():
            return
        page.keyboard.press(key)
    raise AssertionError(f"{most} times {key} led nowhere on {page.url}")


def _focused(page: Page, text: str) -> Callable[[], bool]:
    script = """() => { const one = document.activeElement; if (one === document.body) return '';
        return (one.getAttribute('aria-label') || one.labels?.[0]?.textContent || one.textContent || '').trim(); }"""
    return lambda: str(page.evaluate(script)).startswith(text)


def test_by_keys_alone_from_the_login_to_a_job_that_is_queued_and_cancelled(stand: Stand, running: Browser) -> None:
    ann = stand.person("keys", "ann")
    datafile = ann.datafile(b"no archive", "a.zip")
    dataset = stand.dataset(ann, datafile, "drawings")
    with watching(running) as seen:
        page = seen.page()
        page.goto(stand.url)
        _keys(page, _focused(page, "With a token"))
        page.keyboard.press("Enter")
        _keys(page, _focused(page, "Token"))
        page.keyboard.type(ann.token)
        page.keyboard.press("Enter")
        page.locator("nav").wait_for()
        _keys(page, _focused(page, "To the page"))
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.tagName") == "MAIN"
        page.goto(f"{stand.url}/#/data/{dataset}")
        page.get_by_role("link", name="Train on it").wait_for()
        _keys(page, _focused(page, "Train on it"))
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Start the training").wait_for()
        _keys(page, _focused(page, "Start the training"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", (
            "one sees where one is"
        )
        page.keyboard.press("Enter")
        page.wait_for_url("**/#/jobs/*")
        page.get_by_role("button", name="Cancel").wait_for()
        _keys(page, _focused(page, "Cancel"))
        page.keyboard.press("Enter")
        _keys(page, _focused(page, "Yes, cancel it"))
        page.keyboard.press("Enter")
        expect(page.locator(".facts .state.cancelled")).to_be_visible()
        seen.judge(stand.url, ("401",))


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


def test_a_trained_net_goes_into_use_for_a_feature_set_by_two_clicks(
    stand: Stand, running: Browser, lake: Lake
) -> None:
    ann = stand.person("using", "ann")
    job = ann.job("Best shoes!")
    stand.trained(ann, job, "m", served(1), over=True)
    with watching(running) as seen:
        page = _entered(seen, stand, ann, f"jobs/{job}")
        page.get_by_label("also compute anew what is there").check()
        seen.click(page, "button", "Use it for this set")
        seen.click(page, "button", "Yes, in shop")
        page.wait_for_url("**/#/promotions/*")
        expect(page.locator(".facts .state.queued")).to_be_visible()
        worker_of(stand, lake.promoter())
        expect(page.locator(".facts .state.succeeded")).to_be_visible()
        expect(page.locator("tbody td").nth(0)).to_have_text("shop")
        assert len(lake.promotions()) == 1
        expect(page.locator("tbody td").nth(2)).to_have_text("1")
        expect(page.get_by_role("heading", name="What was there before")).to_be_visible()
        [model] = ann.got("GET", "/v1/models")["items"]
        assert model["name"] == "best-shoes"
        page.goto(f"{stand.url}/#/models/{model['id']}")
        page.get_by_role("button", name="Use it for this set").wait_for()
        assert len(ann.got("GET", f"/v1/models/{model['id']}/versions")["items"]) == 1
        seen.judge(stand.url)


def _entered(seen: Watched, stand: Stand, who: Person, way: str) -> Page:
    """A page whose session began by a token."""
    page = seen.page()
    page.goto(f"{stand.url}/#link={who.token}")
    page.locator("nav").wait_for()
    page.goto(f"{stand.url}/#/{way}")
    return page


@pytest.fixture(scope="module")
def hostile(stand: Stand) -> tuple[Person, list[str]]:
    """Somebody whose things have hostile names, labels, metrics and log lines; and the pages that show them."""
    ann = stand.person("hostile", "ann", platform=True)
    ways = ["", "data", "train", "jobs", "classify", "models", "promotions", "team", "operator", "pipeline"]
    for number, text in enumerate(HOSTILE):
        name = re.sub("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", "?", text)[:200]
        datafile = ann.datafile(b"no archive", name)
        job = ann.job(name, inputs={"train": datafile})
        stand.trained(ann, job, text, over=number > 0)
        ann.got("POST", "/v1/classifiers", {"name": name, "training_job_id": job, "labels": [name, "b"]})
        ann.got("POST", "/v1/tokens", {"name": name, "role": "viewer"})
        if number % 4 == 0:
            dataset = stand.dataset(ann, datafile, name)
            model = ann.got("POST", "/v1/models", {"name": f"model-{number}"})["id"]
            ann.got(
                "POST", f"/v1/models/{model}/versions", {"training_job_id": job, "labels": [name, "b"], "note": name}
            )
            ways += [f"data/{dataset}", f"train?dataset={dataset}", f"jobs/{job}", f"models/{model}"]
    # a worker of the light kind would have taken it before the datasets
    used = ann.got("POST", "/v1/promotions", {"feature_set": "b", "model_id": model, "version": 1, "why": name})
    ways.append(f"promotions/{used['id']}")
    ways += [
        f"jobs/compare?a={job}&b={next(one for one in ways if one.startswith('jobs/')).split('/')[1]}",
        f"classify?job={job}",
    ]
    return ann, ways


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_and_runs_nothing_of_hostile_texts(
    scheme: str, size: str, stand: Stand, running: Browser, hostile: tuple[Person, list[str]]
) -> None:
    ann, ways = hostile
    with watching(running, scheme, size) as seen:
        page = _entered(seen, stand, ann, "")
        for way in ways if (scheme, size) == ("light", "desk") else [*ways[:10], *ways[-7:]]:
            page.goto(f"{stand.url}/#/{way}")
            page.locator("main h1").wait_for()
            page.wait_for_timeout(250)
            expect(page.get_by_text("One moment")).to_have_count(0)
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            readable(page)
        seen.judge(stand.url)


def test_a_session_that_ends_in_one_tab_ends_in_the_other(stand: Stand, running: Browser) -> None:
    ann = stand.person("tabs", "ann")
    with watching(running) as seen:
        page = _entered(seen, stand, ann, "team")
        other = seen.page()
        other.goto(f"{stand.url}/#/jobs")
        other.locator("nav").wait_for()
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("button", name="Log in").first).to_be_visible()
        other.get_by_role("link", name="Models").click()
        expect(other.get_by_role("button", name="Log in").first).to_be_visible()
        seen.judge(stand.url, ("401",))
