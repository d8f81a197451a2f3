"""The page of `hathi report` in a real browser, by day and by night, on a desk and on a phone, over hostile data."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from sample import random_features
from tests.integration.conftest import OwnList, picture, row
from tests.servers.chromium import browser
from tests.unit.test_report import HOSTILE

SIZES = {"desk": (1280, 900), "phone": (390, 844)}
CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = rgb(getComputedStyle(node).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    throw new Error('no ground');
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest('svg')) continue;
    const [a, b] = [light(rgb(getComputedStyle(parent).color)), light(ground(parent))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), node.data.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0])[0];
}"""

ADD = """address => new Promise(done => {
  const refused = [];
  document.addEventListener('securitypolicyviolation', event => {
    refused.push(event.effectiveDirective);
    if (refused.length === 3) done(refused);
  });
  document.body.insertAdjacentHTML('beforeend', `<img src="${address}"><p style="color:red">x</p>`);
  const script = document.createElement('script');
  script.textContent = "document.title = 'owned'";
  document.body.append(script);
})"""
"""Adds an image from outside, a style and a script; what the policy refuses of them."""


def jpeg() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", cv2.resize(pixels, (400, 300), interpolation=cv2.INTER_CUBIC))[1])


def hostile_refs() -> Iterator[str]:
    """Good images, broken ones inline, and every hostile text as id, as URL, as row."""
    yield from (row(f"sku-{number}", picture(number)) for number in range(12))
    whole = jpeg()
    yield row("cut", whole[: len(whole) // 2])
    yield row("<script>document.title='owned'</script>", b"<html><script>document.title='owned'</script></html>")
    for text in HOSTILE:
        # partner 8: each reason shows some of these; the URLs lead nowhere that may be asked
        for number, url in enumerate((f"http://10.0.0.1/{text}", text, f"http://{text}/")):
            yield json.dumps({"partner_id": 8, "external_id": f"{number}{text}", "url": url})
        content = base64.b64encode(b"\xff\xd8" + text.encode()).decode()
        yield json.dumps({"partner_id": 9, "external_id": text, "content": content})
        yield f"no row {text}".replace("\n", " ")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the commands, over real features and failures."""
    own = OwnList(tmp_path_factory.mktemp("report"))
    random_features.write(own.weights)
    own.refs.write_text("\n".join(hostile_refs()), encoding="utf-8")
    done = own.run("--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["features"] == 12
    (shipment,) = {path.parts[-2] for path in own.out.glob("*/*") if path.parent.name[:2] == "20"}
    made = own.hathi("report", shipment, "--features", str(own.out), "--out", str(own.folder / "page.html"))
    assert made.returncode == 0, made.stderr
    return own.folder / "page.html"


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(params=[(scheme, size) for scheme in ("light", "dark") for size in SIZES], ids="-".join)
def shown(request: pytest.FixtureRequest, running: Browser, report: Path) -> Iterator[Page]:
    """The page as somebody sees it, everything unfolded; a word on the console or a request is an error."""
    scheme, size = request.param
    width, height = SIZES[size]
    context = running.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    page.wait_for_load_state("networkidle")
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    context.close()


def test_hostile_data_stays_text_and_the_page_fits_in_both_schemes_and_sizes(shown: Page) -> None:
    assert shown.title().startswith("Hathi: shipment 20")
    assert shown.locator("script, iframe, object, embed, form, a[href], [onmouseover], [onerror], [style]").count() == 0
    assert shown.get_by_text("document.title='owned'").count() > 0, "it is there to be read"
    body = shown.locator("body").inner_text()
    assert "<U+202E>" in body
    assert "holds a zero byte" in body
    assert "0nul\\x00 esc\\x1b[31m" in body, "a row that was rejected for it is shown, and says so"
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing to scroll sideways"
    least, text = shown.evaluate(CONTRAST)
    assert least >= 4.5, f"hard to read: {text} ({least:.2f})"
    picture = shown.locator(".thumbs img").first
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 96


def test_the_figures_add_up_and_can_be_found_by_a_screen_reader(running: Browser, report: Path) -> None:
    page = running.new_page()
    page.goto(report.as_uri())
    funnel = page.get_by_role("table", name="First tries")
    rows = funnel.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(one => one.textContent))"
    )
    number = {row[0]: int(row[1].replace(",", "")) for row in rows}
    assert number["Rows of sources"] == number["rejected: not image refs"] + number["Image refs"]
    parts = ("still at work", "duplicates", "failures", "Features")
    assert number["Image refs"] == sum(number[name] for name in parts)
    assert number["Features"] == number["delivered"] == 12
    levels = [int(one.evaluate("node => node.tagName[1]")) for one in page.get_by_role("heading").all()]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), "no level is skipped"
    assert page.locator("table").count() == page.locator("table > caption").count()
    assert page.locator("img:not([alt]), svg:not([aria-label]):not([aria-hidden])").count() == 0
    assert page.locator("html").get_attribute("lang") == "en"
    page.close()


def test_day_and_night_differ_and_the_policy_forbids_what_somebody_might_add(running: Browser, report: Path) -> None:
    page = running.new_page()
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(report.as_uri())
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
    with socket.create_server(("127.0.0.1", 0)) as outside:
        outside.setblocking(False)
        address = f"http://127.0.0.1:{outside.getsockname()[1]}/x.png"
        refused = page.evaluate(ADD, address)
        assert sorted(refused) == ["img-src", "script-src-elem", "style-src-attr"]
        with pytest.raises(BlockingIOError):  # nobody has called
            outside.accept()
    assert page.title() != "owned"
    assert page.evaluate("getComputedStyle(document.body.querySelector('p[style]')).color") != "rgb(255, 0, 0)"
    page.close()
