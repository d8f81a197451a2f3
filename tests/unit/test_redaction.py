"""What is secret in a URL is hidden, wherever it stands and however it is written; what is not stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.refs.rows import sample_of
from pipeline.process.redaction import _redacted_slowly, redact_query, redact_text, redact_tree, redact_value

SECRET = "Planted"
PLACES = [
    "{scheme}user:{s}@{host}/x.jpg",
    "{scheme}{s}@{host}/x.jpg",
    "{scheme}{s}:@{host}/x.jpg",
    "{scheme}user:{s}@more@{host}/x.jpg",
    "{scheme}user:a@{s}@{host}",
    "{scheme}user:{s}/{s}@{host}/x.jpg",
    "{scheme}user:{s}:{s}@{host}:8080/x",
    "{scheme}{host}/x.jpg?token={s}",
    "{scheme}{host}?{s}",
    "{scheme}{host}/x.jpg#access_token={s}",
    "{scheme}{host}/x.jpg?a=b#{s}",
    "{scheme}{host}/x.jpg?a=b?{s}",
    "{scheme}{host}/x.jpg;jsessionid={s}",
    "{scheme}{host}/x;jsessionid={s}/y.jpg?z",
    "{scheme}{host}/token={s}/x.jpg",
    "{scheme}cdn.example/fetch/https://user:{s}@{host}/x.jpg",
    "{scheme}cdn.example/x.jpg?url=https://user:{s}@{host}/x.jpg",
    "{scheme}user:pass@{host}/x.jpg?a={s}&b={s}",
    "user:{s}@{host}/x.jpg",
    "//user:{s}@{host}/x.jpg",
    "data:image/png;base64,{s}",
]
SCHEMES = [
    "http://", "https://", "HTTP://", "hTTps://", "ftp://", "s3://", "s3a://", "webhdfs://", "http:\\\\", "http:/", "http:///",
    "http:\\/\\/", "http:////", "//",
]  # fmt: skip
HOSTS = ["h.example", "127.0.0.1", "[::1]", "b\u00fccher.example", "a_b.example", "h.example:8080"]


def percent(text: str) -> str:
    return quote(text, safe="")


SPELLINGS: list[Callable[[str], str]] = [
    str,
    percent,
    lambda url: percent(percent(url)),
    lambda url: percent(percent(percent(url))).lower().replace(SECRET.lower(), SECRET),
    lambda url: json.dumps(url)[1:-1],
    lambda url: "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in url),
    lambda url: url.replace("@", "&#64;").replace("?", "&quest;").replace(":", "&#x3a;"),
    lambda url: url.replace("@", "\uff20").replace("?", "\uff1f"),
    lambda url: f"  {url}\n",
    lambda url: url.replace("http", "ht\ntp", 1),
]  # fmt: skip
URLS = st.builds(
    lambda place, scheme, host, spelling: spelling(place.format(scheme=scheme, host=host, s=SECRET)),
    st.sampled_from(PLACES),
    st.sampled_from(SCHEMES),
    st.sampled_from(HOSTS),
    st.sampled_from(SPELLINGS),
)


@settings(max_examples=1500, deadline=None)
@given(URLS)
def test_no_secret_of_a_url_is_shown_in_any_spelling(url: str) -> None:
    assert SECRET not in redact_query(url)
    assert SECRET not in redact_query(redact_query(url))
    assert SECRET not in str(redact_tree({"url": url, "more": [{"final_url": url}]}))


@settings(max_examples=1500, deadline=None)
@given(URLS, st.sampled_from(["{}", "7,a1,{}", '"7","a1","{}"', '{{"url":"{}"}}', "7\ta1\t{}\tx", "url={}"]))
def test_no_secret_of_a_url_is_shown_in_a_row_that_is_quoted(url: str, row: str) -> None:
    text = row.format(url)
    if "//" in text or "%" in text or "?" in text or "data:" in text or ":" in text:
        assert SECRET not in sample_of(text)
    assert SECRET not in sample_of(f"partner_id=x external_id=y url={redact_value(url, 1024)}")


@settings(max_examples=1500, deadline=None)
@given(URLS, st.sampled_from(["it is {}", "({}) failed", "'{}': refused", 'url="{}"', "one,{}", "<{}>"]))
def test_no_secret_of_a_url_is_shown_in_a_text(url: str, text: str) -> None:
    if not any(character.isspace() for character in url.strip()):
        assert SECRET not in redact_text(text.format(url))


@given(URLS, st.integers(100, 400))
def test_a_url_that_is_cut_within_its_secret_shows_none_of_it(url: str, length: int) -> None:
    at = url.find(SECRET)
    before = "x" * (8 * length - at - 4) + " "
    for cut in (redact_value(url[:at] + SECRET * 4 * length, length), sample_of("x" * 1590 + " " + url)):
        assert "Plan" not in cut
    assert "Plan" not in redact_value(before + url, length)


@given(
    st.lists(
        st.sampled_from(
            ["http://", "https://", "a", "h.example", ":80", "/", "?", "#", "x.jpg", "@", ";", ":", "7", "-", "."]
        ),
        max_size=9,
    ).map("".join)
)
def test_the_quick_way_and_the_slow_way_agree(url: str) -> None:
    assert redact_query(url) == _redacted_slowly(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://h.example/a@b", "http://h.example/img/logo@2x.png", "http://h.example:8080/x", "localhost:8000/x.jpg",
        "http://[::1]:80/x", "/srv/x.jpg", "C:\\x\\y.jpg", "http://h.example/100%.jpg", "http://h.example/@user/x.jpg",
        "http://h.example/o/images%2Fx.jpg", "http://h.example/partner_id=7/x.jpg", "s3://bucket/key", "nonsense", "",
        "hdfs://one:9870,two:9870/lake", "http://h.example/it's.jpg",
    ],
)  # fmt: skip
def test_what_holds_no_secret_stays_as_it_is(url: str) -> None:
    assert redact_query(url) == url
    assert redact_text(f"the lake {url} is not there") == f"the lake {url} is not there"


@pytest.mark.parametrize(
    "text",
    [
        "at 12:30:05 mail ops@shop.example: 5/6 = ok",
        "ship: 41 refs; which lake?",
        "name host and port in lakes.*.url: hdfs://one:9870,two:9870/folder; see: hdfs haadmin -getAllServiceState",
        "s3://bucket/prefix at http://minio.example:9000",
        "hdfs/nn.example@REALM.EXAMPLE has no ticket",
        "refs/b.jsonl row 2: the partner id is not an integer partner_id=zz external_id=c2",
        "see http://h.example/x; then go on",
        "some data: 5, and more",
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert redact_text(text) == text


def test_what_is_shown_keeps_its_host_and_its_spelling() -> None:
    assert redact_query("HTTP:\\\\u:p@h.example\\x?y#z") == "HTTP:\\\\redacted@h.example\\x?redacted"
    assert redact_query("https%3A%2F%2Fu%3Ap%40h%2Fx%3Ft") == "https%3A%2F%2Fredacted%40h%2Fx%3Fredacted"
    assert redact_query("http://h/x;v=1/y.jpg") == "http://h/x;redacted/y.jpg"
    assert redact_query("http://u:p/q@h/x") == "http://redacted@h/x"
    assert redact_text("(proxy http://u:p@proxy.example:3128) refused") == (
        "(proxy http://redacted@proxy.example:3128) refused"
    )
    assert redact_text("with url: /services/x?token=y (Caused by z)") == (
        "with url: /services/x?redacted (Caused by z)"
    )
