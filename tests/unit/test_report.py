"""The report: the ledger of a world in folders as facts, and facts as a page that hostile data cannot break."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from jinja2 import UndefinedError
from pyarrow import parquet as pq

from pipeline.codec.delivered.failures import failures_schema
from pipeline.errors import ConfigError, FormatError
from pipeline.ledger.forgetting import Request, ask
from pipeline.ledger.layout import version_of
from pipeline.ledger.row_counts import RowCounts
from pipeline.operations.backfills import Backfill
from pipeline.operations.report.chart import bars
from pipeline.operations.report.facts import (
    Example,
    HostCount,
    Hour,
    PartnerCount,
    ReasonCount,
    RejectedRow,
    Report,
    SetStatistics,
    ShipmentRow,
    Thumbnail,
)
from pipeline.operations.report.failing import EXAMPLES, Failing
from pipeline.operations.report.gather import HOSTS, gather
from pipeline.operations.report.html import attribute, environment, figure, share, text, visible
from pipeline.operations.report.page import page
from pipeline.operations.report.scope import Scope, scope_of
from pipeline.operations.report.statistics import Sample
from pipeline.operations.report.thumbnails import thumbnail
from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.simulation.folders import Folders, hold, url, world_of

HOUR, DAY = 3600.0, 86400.0
HOSTILE = (
    "<script>document.title='owned'</script>",
    '" onmouseover="document.title=\'owned\'" x="',
    "'><img src=x onerror=document.title='owned'>",
    "</title></style></svg></code></td></table><h1>owned</h1>",
    "<!-- ]]> --!> <![CDATA[ &lt; &#60;script&#62;",
    "photo\u202egpj.exe\u202c\u2066\u200f\u061c",
    "nul\x00 esc\x1b[31m del\x7f nel\x85 tab\t line\n\u2028\u2029",
    "zero\u200bwidth\ufeff tag\U000e0041 private\ue000",
    "javascript:document.title='owned'",
    "\u05d0\u05d1\u05d2 \u0627\u0644",
    "a" * 5000,
)


def today(world: Folders) -> Scope:
    return scope_of("today", world.hand.at)


def told(world: Folders, scope: Scope | None = None) -> Report:
    return gather([world.context("box.report")], scope or today(world), True)


def noon(world: Folders) -> None:
    """So that no test runs over midnight."""
    world.hand.at = world.hand.at // DAY * DAY + DAY / 2


@contextmanager
def stamped(world: Folders) -> Iterator[None]:
    """What is written meanwhile bears the hand clock's time."""
    before = set((world.top / "bucket").rglob("*"))
    yield
    for path in set((world.top / "bucket").rglob("*")) - before:
        os.utime(path, (world.hand.at, world.hand.at))


def run(world: Folders, stage: str = "") -> None:
    """All stages, or one."""
    with stamped(world):
        if stage:
            world.turns().take(stage)
        else:
            world.run()


def test_every_row_ends_in_one_place_and_reasons_hosts_and_examples_are_named(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(4)), f"7,x,{url('gone')}?key=secret", "no,ref")
    noon(world)
    run(world)
    found = told(world)
    assert found.first == RowCounts(rows=6, rejected=1, refs=5, features=4, failures=1, delivered=4)
    assert [(one.reason, one.first, one.again) for one in found.reasons] == [("http_4xx", 1, 0)]
    (row,) = found.rejected
    assert (row.row, bool(row.why)) == (5, True)
    assert [(one.partner, one.features, one.failures, one.reason) for one in found.partners] == [
        ("7", 4, 1, "http_4xx")
    ]
    assert {one.state for one in found.shipments} == {"delivered"}
    assert sum(hour.delivered for hour in found.hours) == 5
    assert "secret" not in page(found)


def test_retries_are_counted_by_themselves_on_the_day_that_they_are_done(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}", f"7,b,{url('later-1')}")
    noon(world)
    run(world)
    (waits,) = [one for one in told(world).shipments if one.kind == "retry"]
    assert (waits.refs, waits.state[:4]) == (1, "due ")
    first_day = today(world)
    world.hand.at += DAY
    run(world)
    assert told(world).first == RowCounts()
    assert told(world).again == RowCounts(rows=1, refs=1, features=1, delivered=1)
    then = told(world, first_day)
    assert then.first == RowCounts(rows=2, refs=2, features=1, failures=1, delivered=1)
    assert then.again == RowCounts(), "it was aggregated on the next day"


def test_a_shipment_is_told_alone_and_a_day_without_work_says_so(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(8)))
    noon(world)
    run(world)
    rows = told(world).shipments
    assert [one.refs for one in rows] == [2, 6], "the newest name first"
    one = told(world, scope_of(rows[1].name, world.hand.at))
    assert (one.first.refs, [row.name for row in one.shipments]) == (6, [rows[1].name])
    assert "Nothing was aggregated or shipped" in page(told(world, scope_of("2001-01-01", 0)))


def test_what_is_still_at_work_is_told(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(2)))
    noon(world)
    run(world, "ship")
    found = told(world)
    assert found.first == RowCounts(rows=2, refs=2, unfinished=2)
    assert [one.state for one in found.shipments] == ["waits for compute"]


def test_an_old_file_that_is_shipped_today_is_told_today(tmp_path: Path) -> None:
    """Its version is of long ago; what shows it is its open hint, and later its data."""
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    noon(world)
    old = world.hand.at - 90 * DAY
    os.utime(tmp_path / "lake" / "refs" / "a.csv", (old, old))
    run(world, "ship")
    shutil.rmtree(tmp_path / "bucket" / "shop" / "d")
    assert told(world).first.unfinished == 1
    (row,) = told(world).shipments
    assert row.name.startswith(version_of(old))


def test_held_batches_are_failures_with_that_reason(tmp_path: Path) -> None:
    limits = {"strikes": 1, "lost": 1, "strikes_alone": 1, "lost_alone": 1}
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", compute=limits)
    noon(world)
    with stamped(world):
        hold(world)
    found = told(world)
    assert [(one.reason, one.first) for one in found.reasons] == [("held", 1)]


def test_what_is_pruned_from_the_bucket_is_read_on_the_lake_and_what_is_nowhere_is_named(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}", f"7,b,{url('gone')}", f"7,c,{url('junk')}")
    noon(world)
    run(world)
    shutil.rmtree(tmp_path / "bucket" / "shop" / "d")
    found = told(world)
    assert {len(one.examples) for one in found.reasons} == {1}
    assert [one.host for one in found.hosts] == ["shop.example"]
    assert found.statistics[0].sampled == 1
    shutil.rmtree(tmp_path / "lake" / "features")
    found = told(world)
    assert [(one.reason, one.first, one.examples) for one in found.reasons] == [
        ("http_4xx", 1, ()),
        ("not_image", 1, ()),
    ]
    assert any("files of failures that are pruned" in note for note in found.notes)
    assert (found.undecoded, found.thumbnails) == (1, ())
    assert "does not keep the bytes of images that come by URL" in page(found)


def failures(path: Path, rows: int, urls: list[str], reason: str = "http_4xx", text_of: str = "") -> Path:
    """A delivered file of failures, made by columns."""
    ids = np.arange(rows, dtype=np.int64)
    columns = [
        pa.array(np.full(rows, 7, np.int64)), pa.array(ids),
        pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [text_of]),
        pa.DictionaryArray.from_arrays((ids % len(urls)).astype(np.int32), urls),
        pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [reason]), pa.array(np.zeros(rows, np.bool_)),
        *[pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [one]) for one in ("status 404", "v", "f")],
    ]  # fmt: skip
    schema = failures_schema()
    plain = [one.cast(field.type) for one, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.table(plain, schema=schema), path, row_group_size=8192)
    return path


def test_hosts_are_those_that_a_browser_would_ask(tmp_path: Path) -> None:
    urls = [
        "http://a.example/x", "HTTPS://A.Example:8443/y?z", "http://user:pass@a.example/", "http://[2001:db8::1]:80/",
        "http://b.example\\@a.example/", "no url", "", "http://b.example#@a.example/", "data:image/png;base64,AAAA",
    ]  # fmt: skip
    failing = Failing(redact_queries=True)
    with failures(tmp_path / "f.parquet", 9, urls).open("rb") as stream:
        failing.add(stream, "shop", "S")
    hosts, more = failing.hosts(10)
    assert {one.host: one.failures for one in hosts} == {"a.example": 3, "b.example": 2, "[2001:db8::1]": 1, "": 3}
    assert more == 0


def test_a_day_of_a_million_failures_is_a_small_page_and_bounded_work(tmp_path: Path) -> None:
    urls = [f"http://host-{n}.example/" + HOSTILE[n % len(HOSTILE)] * (1 + n % 3) for n in range(3000)]
    failing = Failing(redact_queries=False)
    for number, reason in enumerate(("http_4xx", "decode", "dns", "timeout")):
        path = failures(tmp_path / f"{reason}.parquet", 250_000, urls, reason, HOSTILE[number])
        with path.open("rb") as stream:
            failing.add(stream, "shop", "S")
    hosts, more = failing.hosts(HOSTS)
    assert (failing.rows, len(hosts), more) == (1_000_000, HOSTS, 3000 - HOSTS)
    assert sum(one.failures for one in failing.hosts(10_000)[0]) == 1_000_000
    reasons = [
        ReasonCount(name, 250_000, 0, failing.examples(name)) for name in ("decode", "dns", "http_4xx", "timeout")
    ]
    assert all(len(one.examples) == EXAMPLES for one in reasons)
    full = replace(
        hostile(),
        first=RowCounts(rows=1_000_000, refs=1_000_000, failures=1_000_000),
        reasons=tuple(reasons) + hostile().reasons,
        hosts=hosts,
        shipments=(hostile().shipments * 5)[:50],
        rejected=hostile().rejected * 2,
        thumbnails=tuple(Thumbnail(one, 10**6, "ff " * 16, b"\x89" * 12_000) for one in failing.broken),
    )
    assert len(failing.broken) == 24
    content = page(full)
    assert len(content.encode()) < 1_000_000
    assert content.count("<img") == 24
    worst = replace(full, thumbnails=full.thumbnails * 4)
    assert len(page(worst).encode()) < 1_000_000
    assert "pictures: the page would be too large" in page(worst)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a file of failures is damaged"):
        Failing(True).add(io.BytesIO(b"PAR1 not really PAR1"), "shop", "S")
    with pytest.raises(FormatError, match="a file of features is damaged"):
        Sample("s", "f", "e", 4).add(io.BytesIO(b"PAR1 not really PAR1"), "S")


def features(path: Path, matrix: np.ndarray) -> Path:
    flat = pa.array(matrix.astype(np.float32).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])
    pq.write_table(pa.table({"features": column}), path, row_group_size=1024)
    return path


def test_features_are_told_by_norm_zeros_dead_values_equal_rows_and_nan(tmp_path: Path) -> None:
    matrix = np.zeros((5, 4), np.float32)
    matrix[:, 0] = [3, 3, 1, 2, np.nan]
    matrix[:, 1] = [4, 4, 0, 0, 1]
    sample = Sample("demo", "ab" * 32, "numpy", 4, features=5)
    with features(tmp_path / "f.parquet", matrix).open("rb") as stream:
        sample.add(stream, "S")
    one = sample.told()
    assert (one.sampled, one.not_finite, one.dead, one.equal) == (5, 1, 2, 1)
    assert one.norms == pytest.approx((1.0, 3.5, 5.0))
    assert one.zeros == pytest.approx(10 / 16)
    assert (sum(one.histogram), one.edges) == (16, (0.0, 4.0))


def test_a_sample_is_small_whatever_the_files_hold(tmp_path: Path) -> None:
    path = features(tmp_path / "f.parquet", np.ones((6000, 512), np.float32))
    sample = Sample("demo", "ab" * 32, "numpy", 512)
    while sample.wants:
        with path.open("rb") as stream:
            sample.add(stream, "S")
    assert (sample.files, sample.told().sampled) == (4, 2048), "2 ** 20 values"
    assert Sample("empty", "f", "e", 0).told().sampled == 0


def example(value: str = "x") -> Example:
    return Example("shop", "S", 7, 2**64 - 1, value, value, "decode", True, value)


def jpeg() -> bytes:
    rows = np.linspace(0, 255, 300, dtype=np.uint8)
    pixels = np.stack([np.broadcast_to(rows[:, None], (300, 400))] * 3, axis=-1)
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(pixels))[1])


def test_of_a_cut_image_what_is_there_is_shown_and_of_others_their_first_bytes() -> None:
    whole = jpeg()
    cut = thumbnail(example(), whole[: len(whole) // 2])
    assert (cut.note, cut.size) == ("what is there of it", len(whole) // 2)
    pixels = cv2.imdecode(np.frombuffer(cut.png, np.uint8), cv2.IMREAD_COLOR)
    assert max(pixels.shape[:2]) == 96
    for content in (b"", b"<svg onload=alert(1)>", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n" + b"\0" * 50):
        none = thumbnail(example(), content)
        assert (none.png, none.begins) == (b"", content[:16].hex(" "))
        assert none.note.startswith("nothing can be seen of it")


def test_an_image_that_declares_too_many_pixels_is_not_opened() -> None:
    head = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    bomb = head[:16] + (60_000).to_bytes(4, "big") * 2 + head[24:]
    import zlib

    bomb = bomb[:29] + zlib.crc32(bomb[12:29]).to_bytes(4, "big") + bomb[33:]
    assert not thumbnail(example(), bomb).png


class Seen(HTMLParser):
    """What a browser would make of a page: elements, attributes, text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.values: list[str] = []
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


def filled(*texts: str) -> Report:
    """Each text in each place where one from outside can stand."""
    found = Report(title=" ".join(texts), made=DAY, begin=0, end=DAY, first=RowCounts(9, 1, 8, 1, 1, 3, 3, 2))
    return replace(
        found,
        reasons=tuple(ReasonCount(one, 3, 1, (example(one),)) for one in texts),
        hosts=tuple(HostCount(one, 3, ((one, 3),)) for one in texts),
        hours=(Hour(0.0, 1, 2, 3, 4, (60.0,)), Hour(HOUR)),
        partners=tuple(PartnerCount(one, one, 1, 1) for one in texts),
        shipments=tuple(ShipmentRow(one, one, one, one, one, 1, 1, 1, one, 5.0) for one in texts),
        rejected=tuple(RejectedRow(one, 1, one, one) for one in texts),
        statistics=tuple(
            SetStatistics(one, one, one, 4, 5, 5, (1, 1, 1), 0.5, 0, 0, 0, (1, 2, 3), (0.0, 1.0)) for one in texts
        ),
        thumbnails=tuple(Thumbnail(example(one), 3, "ff d8", note=one) for one in texts),
        undecoded=9,
        notes=texts,
    )


def hostile() -> Report:
    return filled(*HOSTILE)


def test_hostile_texts_make_no_element_no_attribute_and_no_comment() -> None:
    harmless = Seen(page(filled(*["plain"] * len(HOSTILE))))
    seen = Seen(page(hostile()))
    assert seen.tags == harmless.tags
    assert seen.attributes == harmless.attributes
    assert not [name for name in seen.attributes if name.startswith("on") or name == "style"]
    assert {"script", "iframe", "object", "a", "form"}.isdisjoint(seen.tags)
    assert "<script>document.title='owned'</script>" in seen.text, "it can be read as it is"


def test_what_cannot_be_seen_or_turns_text_round_is_made_visible() -> None:
    content = page(hostile())
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ue000]", content
    )
    assert visible("a\u202eb\x00c") == "a<U+202E>b<U+0000>c"
    assert text("a\u202eb") == "<bdi>a&lt;U+202E&gt;b</bdi>"
    assert attribute("\"'<>&\x1b") == "&quot;&#x27;&lt;&gt;&amp;&lt;U+001B&gt;"
    assert visible("x" * 301).endswith("... (301 characters)")
    assert visible("\ud800") == "<U+D800>"
    content.encode("utf-8")


def test_what_a_template_shows_is_text_unless_its_type_says_markup() -> None:
    shown = environment().from_string("{{ one }}|{{ 7 }}|<p title='{{ one }}'>|{{ 'a ' ~ one }}|{{ ours }}").render
    said = "&lt;b&gt;&#x27;&lt;U+202E&gt;"
    assert shown(one="<b>'\u202e", ours=text("<i>")) == (f"{said}|7|<p title='{said}'>|a {said}|<bdi>&lt;i&gt;</bdi>")
    with pytest.raises(UndefinedError):
        shown(one="")


def test_the_page_allows_itself_nothing_and_names_its_style_by_hash() -> None:
    import base64
    import hashlib

    content = page(hostile())
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', content)
    (style,) = re.findall(r"<style>(.*?)</style>", content, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"url\(|@import|https?://(?!10\.|host)", style)


def test_pictures_of_a_chart_say_in_words_what_they_show() -> None:
    drawn = bars("five <refs>", [0, 5, 0.001], ["none", "five", "hardly"])
    assert 'aria-label="five &lt;refs&gt;"' in drawn
    assert drawn.count("<title>") == 3
    assert 'height="64.00"' in drawn
    assert 'height="1.00"' in drawn, "what is not nothing is seen"
    assert bars("nothing", [], []).startswith("<svg")


def test_figures_are_short_and_shares_do_not_lie() -> None:
    assert [figure(n) for n in (0, 1234, 9_999_499, 12_345_678)] == ["0", "1,234", "9,999,499", "12.3\u00a0M"]
    assert [share(n, 100_000) for n in (0, 1, 50_000, 99_999, 100_000)] == [
        "0.0\u00a0%", "< 0.1\u00a0%", "50.0\u00a0%", "> 99.9\u00a0%", "100.0\u00a0%",
    ]  # fmt: skip
    assert share(0, 0) == "\u2013"


def test_a_day_is_named_in_several_ways_and_nothing_else_is_one() -> None:
    now = 20_000 * DAY + 5000
    assert scope_of("", now) == scope_of("today", now) == scope_of("2024-10-04", 0) == scope_of("20241004", 0)
    assert scope_of("yesterday", now).begin == scope_of("", now).begin - DAY
    name = f"{version_of(now)}.000.00000.0-0123456789ab"
    assert str(scope_of(name, now).shipment) == name
    for wrong in ("2024-13-01", "tomorrow", "../etc", "2024-02-30", "20241004T"):
        with pytest.raises(ConfigError, match="neither a day nor a shipment"):
            scope_of(wrong, now)


def hathi(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli.main", "report", *words]
    kept = {**environ(), "HATHI_CONFIG": str(folder / "here.toml"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, timeout=100)


def test_the_command_writes_a_page_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "here.toml").write_text('bucket.url = "bucket"\nlakes.shop.url = "lake"\nstate = "state"\n')
    (tmp_path / "bucket").mkdir()
    done = hathi(tmp_path, "2026-11-20")
    assert (done.returncode, done.stdout) == (0, "hathi-2026-11-20.html\n"), done.stderr
    assert (tmp_path / "hathi-2026-11-20.html").read_text().startswith("<!doctype html>")
    assert hathi(tmp_path, "--out", "-").stdout.endswith("</html>\n")
    unknown = hathi(tmp_path, "20261120T185900Z.000.00000.0-0123456789ab")
    assert (unknown.returncode, "Hathi knows no shipment" in unknown.stderr) == (1, True)
    nowhere = hathi(tmp_path, "--out", str(tmp_path / "no" / "page.html"))
    assert (nowhere.returncode, "name another file with --out" in nowhere.stderr) == (1, True)
    assert hathi(tmp_path, "tomorrow").returncode == 2


def test_open_requests_to_forget_are_on_the_page_without_who_it_is(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    assert "To be forgotten" not in page(told(world))
    context = world.context()
    ask(context, Request(partner_id=7, items=(4711,), at=version_of(world.hand.at)))
    world.hand.at += 3600
    found = told(world)
    assert (found.forgets, found.forgets_for > 3000) == (1, True)
    made = page(found)
    assert "To be forgotten" in made
    assert "4711" not in made


def test_what_a_person_shipped_again_is_no_back_fill() -> None:
    one = Backfill("shop", "demo", "again", "", 1, 0, 10, 0, 0.0, None)
    assert (one.word, one.what) == ("shipped again", "demo shipped again")
    assert replace(one, kind="backfill").what == "back-fill of demo"
