"""Each way in which a server can be bad ends as the failure that names it, or as an image all the same."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address
from pathlib import Path

import pytest

from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.address import blocked_range
from pipeline.fetch.dns import Answer
from pipeline.records import Failure
from tests.integration.fetch.asking import Hand, Names, fetch_one, limits, outcomes
from tests.integration.fetch.hostile import JPEG, Hostile, Visit, answer


def expect_failure(outcome: Fetched | Failure, reason: str, detail: str) -> None:
    assert isinstance(outcome, Failure), outcome
    assert (outcome.reason, outcome.detail) == (reason, detail)


@pytest.mark.parametrize(
    "path",
    [
        "/ok.jpg",
        "/octet-stream",
        "/http10",
        "/continue",
        "/chunked",
        "/chunked-and-length",
        "/close-after",
        "/gzip",
        "/deflate",
        "/gzip-lie",
        "/same-length-twice",
        "/duplicated-headers",
        "/longer-than-announced",
        "/cookie",
        "/redirect-hangs",
    ],
)
def test_an_image_comes_whole_through_odd_but_lawful_answers(server: Hostile, path: str) -> None:
    outcome = fetch_one(server.url(path))
    assert isinstance(outcome, Fetched), outcome
    assert outcome.content == JPEG
    assert outcome.sha256 == hashlib.sha256(JPEG).digest()


@pytest.mark.parametrize(
    ("path", "reason", "detail"),
    [
        ("/half", "truncated", "body ended early"),
        ("/reset-in-body", "truncated", "connection reset"),
        ("/chunks-cut", "truncated", "body ended early"),
        ("/gzip-half", "truncated", "compressed body ended early"),
        ("/close", "protocol", "closed before an answer"),
        ("/reset", "protocol", "closed before an answer"),
        ("/negative-length", "protocol", "malformed answer"),
        ("/two-lengths", "protocol", "malformed answer"),
        ("/wrong-chunking", "protocol", "wrong chunking"),
        ("/gzip-lie-page", "protocol", "content-encoding does not decode"),
        ("/http09", "protocol", "not http/1"),
        ("/garbage", "protocol", "not http/1"),
        ("/http2", "protocol", "malformed answer"),
        ("/bad-status", "protocol", "malformed answer"),
        ("/nul-in-header", "protocol", "malformed answer"),
        ("/endless-headers", "protocol", "headers over the cap"),
        ("/one-endless-header", "protocol", "headers over the cap"),
        ("/many-headers", "protocol", "headers over the cap"),
        ("/endless-continue", "protocol", "headers over the cap"),
        ("/to-nowhere", "protocol", "redirect without location"),
        ("/to-two-places", "protocol", "malformed answer"),
        ("/partial", "protocol", "status 206"),
        ("/not-modified", "protocol", "status 304"),
        ("/endless-body", "too_large", "body"),
        ("/endless-chunks", "too_large", "body"),
        ("/announces-too-much", "too_large", "announced length"),
        ("/gzip-bomb", "too_large", "after decompression"),
        ("/html", "not_image", "html"),
        ("/short-html", "not_image", "html"),
        ("/endless-html", "not_image", "html"),
        ("/empty", "empty", "200"),
        ("/no-content", "empty", "204"),
        ("/nothing-here", "http_4xx", "404"),
        ("/403", "http_4xx", "403"),
        ("/drip-404", "http_4xx", "404"),
        ("/429", "http_429", "429"),
        ("/500-twice", "http_5xx", "500"),
        ("/loop", "redirect", "loop"),
        ("/chain?6", "redirect", "too many"),
        ("/to?file:///etc/passwd", "redirect", "to scheme file"),
        ("/to?ftp://127.0.0.1/", "redirect", "to scheme ftp"),
        ("/to?javascript:alert(1)", "redirect", "to scheme javascript"),
        ("/to?data:image/gif;base64,R0lGODlhAQABAAAAACw=", "redirect", "to scheme data"),
        ("/to?http://[oops/", "redirect", "to a bad url"),
        ("/to?http://no-such-name.invalid/", "dns", "no such name"),
    ],
)
def test_a_bad_answer_ends_as_the_failure_that_names_it(server: Hostile, path: str, reason: str, detail: str) -> None:
    outcome = fetch_one(server.url(path), max_bytes=2**20, resolver=Names({}))
    expect_failure(outcome, reason, detail)


@pytest.mark.parametrize(
    ("path", "reason", "detail"),
    [
        ("/hang", "timeout", "waiting for headers"),
        ("/hang-in-status", "timeout", "waiting for headers"),
        ("/hang-after-headers", "timeout", "body"),
    ],
)
def test_a_server_that_hangs_ends_at_the_deadline(
    server: Hostile, hand: Hand, path: str, reason: str, detail: str
) -> None:
    outcome = fetch_one(server.url(path), hand=hand, turn=25.0, when=lambda: server.visits[path] > 0)
    expect_failure(outcome, reason, detail)
    assert hand.passed() > 60


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/drip", "body"),
        ("/hang-in-body", "body"),
        ("/hang-in-chunk", "body"),
        ("/drip-headers", "headers"),
        ("/hang-in-headers", "headers"),
    ],
)
def test_an_answer_that_drips_ends_at_the_floor_of_speed(server: Hostile, hand: Hand, path: str, detail: str) -> None:
    outcome = fetch_one(server.url(path), hand=hand, turn=3.0, when=lambda: server.visits[path] > 0)
    expect_failure(outcome, "too_slow", detail)
    assert hand.passed() < 60


def test_redirects_up_to_the_limit_are_followed(server: Hostile) -> None:
    outcome = fetch_one(server.url("/chain?5"))
    assert isinstance(outcome, Fetched)
    assert outcome.final_url == server.url("/ok.jpg")
    assert outcome.url == server.url("/chain?5")


def test_cookies_credentials_and_referrer_are_not_carried_over(server: Hostile) -> None:
    url = server.url("/cookie").replace("http://", "http://user:secret@")
    assert isinstance(fetch_one(url), Fetched)
    first, second = server.heads
    assert "Authorization: Basic dXNlcjpzZWNyZXQ=" in first
    assert not any(word in second.lower() for word in ("authorization:", "cookie:", "referer:"))


def test_a_redirect_cannot_bring_credentials_of_its_own(server: Hostile) -> None:
    outcome = fetch_one(server.url(f"/to?http://user:secret@127.0.0.1:{server.port}/ok.jpg"))
    assert isinstance(outcome, Fetched)
    assert "authorization" not in server.heads[1].lower()


def all_but_loopback(address: object) -> str | None:
    return None if str(address) == "127.0.0.1" else blocked_range(ip_address(str(address)))


@pytest.mark.parametrize(
    ("where", "detail"),
    [
        ("http://169.254.169.254/latest/meta-data/", "to address: link-local"),
        ("http://inner.example/", "to address: private"),
        ("http://[::1]/", "to address: loopback"),
        ("http://[::ffff:169.254.169.254]/", "to address: ipv4-mapped"),
        ("http://0xA9FEA9FE/", "to address: link-local"),
        ("http://2852039166/", "to address: link-local"),
        ("http://0251.0376.0251.0376/", "to address: link-local"),
        ("http://10.1/", "to address: private"),
        ("http://8.8.8.8:22/", "to port 22"),
        ("//192.168.0.1/x.jpg", "to address: private"),
    ],
)
def test_a_redirect_to_an_inner_place_is_refused_before_any_connection(
    server: Hostile, where: str, detail: str
) -> None:
    outcome = fetch_one(
        server.url(f"/to?{where}"),
        allow_private=False,
        allow_ports=[80, server.port],
        refuse=all_but_loopback,
        resolver=Names({"inner.example": Answer(["10.0.0.7"], 60.0)}),
    )
    expect_failure(outcome, "redirect", detail)
    assert not outcome.retriable  # type: ignore[union-attr]


def test_the_address_that_was_checked_is_connected_to_though_the_name_moves(server: Hostile) -> None:
    names = Names({"shop.example": [Answer(["127.0.0.1"], 1.0), Answer(["10.0.0.1"], 1.0)]})
    url = server.url("/chain?3", host="shop.example")
    outcome = fetch_one(url, allow_private=False, allow_ports=[server.port], refuse=all_but_loopback, resolver=names)
    assert isinstance(outcome, Fetched)
    assert names.asked == ["shop.example"]


def test_a_name_that_moves_inside_after_its_answer_ran_out_is_refused(server: Hostile, hand: Hand) -> None:
    names = Names({"shop.example": [Answer(["127.0.0.1"], 1.0), Answer(["10.0.0.1"], 1.0)]})
    url = server.url("/429-once", host="shop.example")  # asks for seven seconds; the answer holds for ten
    outcome = fetch_one(
        url,
        hand=hand,
        turn=11.0,
        allow_private=False,
        allow_ports=[server.port],
        attempts=2,
        refuse=all_but_loopback,
        resolver=names,
    )
    expect_failure(outcome, "blocked", "address: private")
    assert server.visits["/429-once"] == 1


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://127.0.0.1/x.jpg", "address: loopback"),
        ("http://localhost/x.jpg", "address: loopback"),
        ("http://127.1/x.jpg", "address: loopback"),
        ("http://[::ffff:7f00:1]/x.jpg", "address: ipv4-mapped"),
        ("http://[64:ff9b::a9fe:a9fe]/", "address: nat64"),
        ("http://[2002:7f00:1::]/", "address: 6to4"),
        ("http://example.com:8080/x.jpg", "port 8080"),
        ("ftp://example.com/x.jpg", "scheme ftp"),
        ("file:///etc/passwd", "scheme file"),
        ("/etc/passwd", "scheme file"),
        ("s3://bucket/key", "scheme s3"),
    ],
)
def test_an_inner_place_is_refused_in_every_spelling(url: str, detail: str) -> None:
    outcome = fetch_one(url, allow_private=False)
    expect_failure(outcome, "blocked", detail)


def test_nothing_listens_there_is_connect(server: Hostile) -> None:
    with Hostile() as gone:
        url = gone.url("/ok.jpg")
    expect_failure(fetch_one(url), "connect", "refused")


def test_a_connection_that_died_between_requests_is_made_anew(server: Hostile) -> None:
    urls = [server.url(f"/close-after?{number}") for number in range(20)]
    found = outcomes(Fetcher(limits(connections_per_host=1)), urls)
    assert all(isinstance(outcome, Fetched) for outcome in found.values())


def test_a_host_is_told_who_asks_and_how_to_reach_them(server: Hostile) -> None:
    fetch_one(server.url("/ok.jpg"), contact="images@shop.example")
    assert "User-Agent: Hathi/0.1 (image features; contact: images@shop.example)" in server.heads[0]
    assert "Accept-Encoding: identity" in server.heads[0]


def test_no_proxy_and_no_netrc_of_the_environment_is_used(
    server: Hostile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert isinstance(fetch_one(server.url("/ok.jpg")), Fetched)
    assert "Authorization" not in server.heads[0]
    assert "Proxy" not in server.heads[0]


def test_what_one_answer_says_too_much_is_not_taken_for_the_next_one(server: Hostile) -> None:
    async def too_much(visit: Visit) -> None:
        await visit.send(answer(JPEG) + answer(b"GIF89a, of somebody else"))

    server.extra["/too-much"] = too_much
    urls = [server.url("/too-much"), server.url("/ok.jpg")]
    found = outcomes(Fetcher(limits(connections_per_host=1)), urls)
    assert all(isinstance(outcome, Fetched) and outcome.content == JPEG for outcome in found.values())
