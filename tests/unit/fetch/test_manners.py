"""Rate, backoff and breaker of a host, and the head of an answer, by the clock that is handed in."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fetch.answer import Head, read_head, seconds_to_wait, verdict
from pipeline.fetch.host import Bucket, Domain, Host, registered_domain
from pipeline.records import Failure
from pipeline.settings import Fetch

NOW = datetime(2016, 3, 13, 7, 0, 0, tzinfo=UTC)


def host(**changes: object) -> Host:
    limits = Fetch(**changes)  # type: ignore[arg-type]
    return Host("a.example", Domain(limits, 0.0), limits, 0.0)


@given(st.floats(0.1, 1000), st.integers(1, 50), st.lists(st.floats(0, 2), max_size=200))
def test_a_bucket_never_gives_more_than_its_rate_and_its_burst(rate: float, burst: int, steps: list[float]) -> None:
    bucket = Bucket(rate, burst, 0.0)
    now, given_out = 0.0, 0
    for step in steps:
        now += step
        while bucket.wait(now) == 0:
            bucket.take()
            given_out += 1
            assert given_out <= burst + rate * now + 1.001


@given(st.floats(0.5, 100), st.integers(1, 20))
def test_a_token_is_there_when_a_bucket_said_that_it_would_be(rate: float, burst: int) -> None:
    bucket = Bucket(rate, burst, 5.0)
    now = 5.0
    for _ in range(burst + 10):
        now += bucket.wait(now)
        assert bucket.wait(now) == 0
        bucket.take()


def test_a_clock_that_goes_back_gives_no_tokens() -> None:
    bucket = Bucket(10.0, 1, 100.0)
    bucket.take()
    assert bucket.wait(50.0) > 0


def test_the_breaker_stays_open_longer_each_time_it_opens_again() -> None:
    one = host(breaker_failures=3, breaker_seconds=30.0)
    for _ in range(3):
        assert not one.is_open(0.0)
        one.went_badly(0.0)
    assert one.open_until == 30.0
    one.went_badly(1.0)  # was under way when it opened
    assert one.open_until == 30.0
    one.went_badly(30.5)  # the probe
    assert one.open_until == 30.5 + 60.0
    assert one.half_open()
    one.went_well()
    assert not one.half_open()
    one.went_badly(100.0)
    assert not one.is_open(100.0)


def test_a_whole_deadline_on_each_connection_opens_the_breaker() -> None:
    one = host(breaker_failures=20, connections_per_host=4)
    for _ in range(4):
        assert not one.is_open(60.0)
        one.went_badly(60.0, hung=True)
    assert one.is_open(60.0)
    patient = host(breaker_failures=3, connections_per_host=1)
    for _ in range(3):
        assert not patient.is_open(60.0)
        patient.went_badly(60.0, hung=True)
    assert patient.is_open(60.0)


def test_a_success_in_between_keeps_the_breaker_closed() -> None:
    one = host(breaker_failures=3)
    for _ in range(10):
        one.went_badly(0.0)
        one.went_badly(0.0)
        one.went_well()
    assert not one.is_open(0.0)


@given(st.integers(0, 2**32))
def test_backoff_grows_with_jitter_and_stays_bounded(seed: int) -> None:
    one = host(retry_seconds=1.0)
    random = Random(seed)
    now, waits = 0.0, []
    for _ in range(12):
        one.push_back(None, now, random)
        waits.append(one.paused_until - now)
        now = one.paused_until + 0.001
    assert all(0.5 * min(2**k, 30) <= wait <= 1.5 * min(2**k, 30) + 1e-6 for k, wait in enumerate(waits))


def test_a_shared_host_is_met_at_this_boxs_part_of_its_limits() -> None:
    one = host(share=0.25, connections_per_host=8, requests_per_second=20.0, burst=4)
    assert one.limit == 2
    one.bucket.take()
    assert one.bucket.wait(0.0) == pytest.approx(1 / 5.0)


@pytest.mark.parametrize(
    ("key", "is_name", "domain"),
    [
        ("img1.shop.co.uk", True, "shop.co.uk"),
        ("shop.co.uk", True, "shop.co.uk"),
        ("a.b.example", True, "b.example"),
        ("localhost:8080", True, "localhost"),
        ("127.0.0.1:8080", False, "127.0.0.1:8080"),
        ("me.github.io", True, "me.github.io"),
        ("x.xn--bcher-kva.example:81", True, "xn--bcher-kva.example"),
    ],
)
def test_hosts_belong_to_the_domain_that_was_registered(key: str, is_name: bool, domain: str) -> None:
    assert registered_domain(key, is_name) == domain


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Sun, 13 Mar 2016 07:00:09 GMT", 9.0),
        ("Sun, 13 Mar 2016 06:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 30, None),
        ("Sun, 99 Mar 2016 07:00:09 GMT", None),
    ],
)
def test_retry_after_is_read_as_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert seconds_to_wait(text, NOW) == seconds


def head_of(*lines: str, status: str = "HTTP/1.1 200 OK") -> Head | Failure:
    return read_head([f"{line}\r\n".encode() for line in (status, *lines, "")])


def test_a_head_is_read_whatever_the_case_of_its_names() -> None:
    head = head_of("CONTENT-length: 12", 'eTag:\t"x"  ', "Location: /ü", "X-Content-Length: 9", "Content-Length-X: 8")
    assert head == Head(200, 12, "", "/%C3%BC", '"x"', "", "")


def test_an_interim_answer_and_trailers_are_left_out() -> None:
    lines = [
        b"HTTP/1.1 103 Early\r\n",
        b"ETag: no\r\n",
        b"\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"ETag: yes\r\n",
        b"\r\n",
        b"Location: /trailer\r\n",
    ]
    head = read_head(lines)
    assert isinstance(head, Head)
    assert (head.status, head.etag, head.location) == (200, "yes", "")


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 1", "Content-Length: 2"),
        ("Content-Length: 1, 2",),
        ("Content-Length: abc",),
        ("Content-Length: -1",),
        ("Location: /a", "Location: /b"),
    ],
)
def test_headers_that_contradict_each_other_are_refused(lines: tuple[str, ...]) -> None:
    head = head_of(*lines)
    assert isinstance(head, Failure)
    assert head.reason == "protocol"


@given(st.lists(st.binary(max_size=40).map(lambda line: line + b"\r\n"), min_size=1, max_size=10))
def test_no_header_lines_are_an_exception(lines: list[bytes]) -> None:
    assert isinstance(read_head(lines), Head | Failure)


@given(st.integers(0, 999))
def test_every_status_has_a_verdict_and_only_good_ones_are_read_on(status: int) -> None:
    head = Head(status, None, "", "/x", "", "", "")
    reads_on = verdict(head, 100) is None
    assert reads_on == (status in (301, 302, 303, 307, 308) or (200 <= status < 300 and status not in (204, 205, 206)))


@pytest.mark.parametrize(
    ("status", "retriable"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (410, False),
        (408, True),
        (425, True),
        (429, True),
        (500, True),
        (503, True),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(status: int, retriable: bool) -> None:
    failure = verdict(Head(status, None, "", "", "", "", ""), 100)
    assert failure is not None
    assert failure.retriable == retriable
