"""The stream's contract with the window of open batches: who pulls when, what is bounded, how it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pipeline.amounts import size
from pipeline.errors import PipelineError
from pipeline.fetch import Fetched, Fetcher, fetch_all
from pipeline.fetch.dns import Answer
from pipeline.records import Failure
from tests.integration.fetch.asking import Hand, Names, limits, outcomes
from tests.integration.fetch.hostile import JPEG, Hostile, Visit, answer, ok


def test_fetch_all_gives_each_url_back_as_it_was_given(server: Hostile) -> None:
    urls = [
        server.url("/ok.jpg"),
        server.url("/ok.jpg#part"),
        f" {server.url('/ok.jpg')} ",
        "nonsense",
        server.url("/nope"),
    ]
    found = {outcome.url: outcome for outcome in fetch_all(urls, limits())}
    assert sorted(found) == sorted(urls)
    assert isinstance(found["nonsense"], Failure)
    assert found["nonsense"].reason == "bad_url"


def test_a_fetched_image_carries_what_a_later_fetch_can_be_spared_by(server: Hostile, hand: Hand) -> None:
    url = server.url("/ok.jpg")
    fetched = outcomes(Fetcher(limits(), clock=hand.clock), [url])[url]
    assert isinstance(fetched, Fetched)
    assert (fetched.etag, fetched.last_modified) == ('"v1"', "Wed, 21 Oct 2015 07:28:00 GMT")
    assert fetched.status == 200
    assert datetime(2023, 11, 14, 22, 13, tzinfo=UTC) < fetched.fetched_at < datetime(2023, 11, 14, 22, 14, tzinfo=UTC)
    assert 0 < fetched.seconds < 5


def test_equal_urls_in_flight_are_fetched_once_and_serve_all(server: Hostile) -> None:
    async def slow(visit: Visit) -> None:
        await asyncio.sleep(0.2)
        await ok(visit)

    server.extra["/slow"] = slow
    url = server.url("/slow")
    spellings = [url, url + "#a", url.replace("http:", "HTTP:"), url + "#b"] * 5
    items = list(enumerate(spellings))
    found = [result for result in Fetcher(limits()).stream(items) if result is not None]
    assert sorted(item for item, _ in found) == list(range(20))
    assert all(outcome.url == spellings[item] for item, outcome in found)
    assert server.visits["/slow"] == 1


def test_items_are_pulled_only_inside_next_and_only_in_the_callers_thread(server: Hostile) -> None:
    pulled: list[int] = []

    def items() -> Iterator[tuple[int, str]]:
        for number in range(500):
            assert threading.current_thread() is threading.main_thread()
            pulled.append(number)
            yield number, server.url(f"/ok.jpg?{number}")

    with Fetcher(limits(pending_urls=10)) as fetcher:
        stream = fetcher.stream(items())
        given = 0
        for result in stream:
            if result is None:
                continue
            given += 1
            assert len(pulled) - given <= 10
            before = len(pulled)
            time.sleep(0.001)
            assert len(pulled) == before
    assert given == 500


def test_none_from_the_items_means_nothing_more_just_now(server: Hostile) -> None:
    def items() -> Iterator[tuple[int, str] | None]:
        yield 0, server.url("/ok.jpg")
        for _ in range(3):
            yield None
        yield 1, server.url("/ok.jpg?again")

    results = list(Fetcher(limits()).stream(items()))
    assert [result[0] for result in results if result is not None] == [0, 1]
    assert results.count(None) >= 1


def test_none_comes_back_while_nothing_ends_so_that_the_caller_can_beat(server: Hostile) -> None:
    stream = Fetcher(limits()).stream([(0, server.url("/hang"))])
    assert [next(stream) for _ in range(3)] == [None] * 3
    stream.close()


def test_closing_cuts_off_what_is_in_flight_and_leaves_no_thread_and_no_socket(server: Hostile) -> None:
    before = set(threading.enumerate())
    stream = Fetcher(limits(connections_per_host=50, connections_per_domain=50)).stream(
        (number, server.url(f"/hang?{number}")) for number in range(50)
    )
    while server.busy < 50:
        next(stream)
    stream.close()
    assert set(threading.enumerate()) <= before
    assert server.busy == 50  # it still hangs; only our ends are closed


def test_a_stream_that_is_left_in_the_middle_can_be_closed_by_its_fetcher(server: Hostile) -> None:
    fetcher = Fetcher(limits())
    stream = fetcher.stream((number, server.url("/ok.jpg")) for number in range(1000))
    next(stream)
    fetcher.close()
    fetcher.close()
    with pytest.raises(PipelineError, match="used once"):
        next(fetcher.stream([]))


def test_urls_that_ask_no_host_do_not_keep_back_what_others_have_ended_with(server: Hostile) -> None:
    good = server.url("/ok.jpg")
    pulled = 0

    def items() -> Iterator[tuple[str, str]]:
        nonlocal pulled
        yield "good", good
        while True:
            pulled += 1
            yield "bad", "no url"

    fetcher = Fetcher(limits(pending_urls=10**9))
    most = 0
    for result in fetcher.stream(items()):
        most = max(most, fetcher.pending)
        if result is not None and result[0] == "good":
            break
        assert pulled < 10**6
    assert most <= 200
    fetcher.close()


def test_an_item_ends_at_its_deadline_by_what_kept_it(server: Hostile, hand: Hand) -> None:
    fetcher = Fetcher(limits(connections_per_host=2), clock=hand.clock)
    deadline = hand.monotonic() + 10.0
    items = [(number, server.url(f"/hang?{number}"), deadline) for number in range(20)]
    ended = []
    for result in fetcher.stream(items):
        if result is None:
            hand.turn(4.0 if server.busy == 2 or ended else 0.0)
        else:
            ended.append((result[1].reason, result[1].detail, result[1].retriable))  # type: ignore[union-attr]
    assert sorted(ended) == [("host_busy", "batch deadline", True)] * 18 + [("timeout", "batch deadline", True)] * 2
    assert hand.passed() < 20


def test_a_later_deadline_of_an_equal_url_keeps_the_transfer_alive(server: Hostile, hand: Hand) -> None:
    async def late(visit: Visit) -> None:
        while not server.released.is_set():
            await asyncio.sleep(0.01)
        await ok(visit)

    server.extra["/late"] = late
    url = server.url("/late")
    soon = hand.monotonic() + 5.0
    ended = {}
    for result in Fetcher(limits(), clock=hand.clock).stream([("soon", url, soon), ("whenever", url)]):  # type: ignore[arg-type]
        if result is None:
            hand.turn(3.0)
            continue
        ended[result[0]] = result[1]
        server.released.set()
    assert isinstance(ended["soon"], Failure)
    assert isinstance(ended["whenever"], Fetched)


@pytest.mark.parametrize("take_slowly", [False, True])
def test_bodies_in_memory_stay_under_the_buffers_size(server: Hostile, take_slowly: bool) -> None:
    body = JPEG + bytes(700_000)

    async def large(visit: Visit) -> None:
        await visit.send(answer(body))

    server.extra["/large"] = large
    fetcher = Fetcher(limits(buffer_bytes=2**20 * 4, connections_per_host=30, connections_per_domain=30))
    room = fetcher._room
    given = 0
    for result in fetcher.stream((number, server.url(f"/large?{number}")) for number in range(120)):
        if take_slowly and given < 20:
            time.sleep(0.01)
        if result is not None:
            assert isinstance(result[1], Fetched), result[1]
            given += 1
        assert room.waiting() + room._arriving <= 2**20 * 4 + len(body)
    assert given == 120


def test_a_consumer_that_sleeps_stops_the_sockets_and_no_transfer_is_blamed(server: Hostile, hand: Hand) -> None:
    body = JPEG + bytes(400_000)

    async def large(visit: Visit) -> None:
        await visit.send(answer(body))

    server.extra["/large"] = large
    fetcher = Fetcher(limits(buffer_bytes=2**20, connections_per_host=20, connections_per_domain=20), clock=hand.clock)
    stream = fetcher.stream((number, server.url(f"/large?{number}")) for number in range(40))
    found = []
    while len(found) < 1:
        result = next(stream)
        found += [result] if result is not None else []
    deadline = time.monotonic() + 5
    active = fetcher._engine._wire.active
    while not (active and all(transfer.paused_at for transfer in list(active.values()))):
        time.sleep(0.01)
        assert time.monotonic() < deadline
    for _ in range(5):
        hand.turn(100.0)  # the consumer is away for long
        time.sleep(0.06)
    found += [result for result in stream if result is not None]
    reasons = [outcome.reason for _, outcome in found if isinstance(outcome, Failure)]
    assert len(found) == 40
    assert not reasons


def test_a_fetch_counts_what_it_did_by_host_and_reason(server: Hostile) -> None:
    fetcher = Fetcher(limits(), resolver=Names({"a.example": Answer(["127.0.0.1"], 60)}))
    urls = [server.url("/ok.jpg", "a.example"), server.url("/nope", "a.example"), "http://b.example/", "nonsense"]
    outcomes(fetcher, urls)
    counts = fetcher.counts
    assert counts.by_host[f"a.example:{server.port}"].images == 1
    assert counts.by_host[f"a.example:{server.port}"].requests == 2
    assert counts.by_host[f"a.example:{server.port}"].failures == {"http_4xx": 1}
    assert counts.by_host["b.example"].failures == {"dns": 1}
    got = size(counts.total().bytes)
    assert got[0] != "0", "a little is not 0 MB"
    assert counts.summary() == (
        f"fetched 1 image ({got}) with 2 requests to 2 hosts, 3 failures (bad_url 1, dns 1, http_4xx 1)"
    )


def test_the_caller_can_see_how_much_of_a_host_is_pending(server: Hostile) -> None:
    fetcher = Fetcher(limits(pending_per_host=3))
    url = server.url("/hang")
    host = fetcher.host_of(url)
    assert host == f"127.0.0.1:{server.port}"
    assert fetcher.has_room(url)
    stream = fetcher.stream((number, server.url(f"/hang?{number}")) for number in range(3))
    next(stream)
    assert fetcher.pending_of(host) == fetcher.pending == 3
    assert not fetcher.has_room(url)
    assert fetcher.has_room("http://elsewhere.example/")
    stream.close()


def test_an_error_in_the_fetchers_thread_reaches_the_caller(server: Hostile) -> None:
    def broken(head: bytes) -> str | None:
        raise AssertionError("in a callback of libcurl")

    def names(_reactor: object) -> object:
        class Broken:
            def lookup(self, name: str, done: object) -> None:
                raise RuntimeError("resolver")

            def close(self) -> None: ...

        return Broken()

    with pytest.raises(PipelineError, match="resolver"):
        list(Fetcher(limits(), resolver=names).stream([(0, "http://a.example/")]))  # type: ignore[arg-type]


def test_a_thousand_refused_connections_leave_nothing_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        urls = [f"http://127.0.0.1:{port}/{number}" for number in range(1000)]
        found = list(fetch_all(urls, limits(breaker_failures=100_000)))
    assert {outcome.reason for outcome in found if isinstance(outcome, Failure)} == {"connect"}
    assert len(found) == 1000
