"""Hosts are met politely, and none of them can hold up the others."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.dns import Answer
from pipeline.records import Failure
from tests.integration.fetch.asking import Hand, Names, fetch_one, limits, outcomes
from tests.integration.fetch.hostile import Hostile, Visit, ok

HERE = Answer(["127.0.0.1"], 3600.0)


async def slow(visit: Visit) -> None:
    await asyncio.sleep(0.02)
    await ok(visit)


def test_never_more_connections_to_a_host_than_allowed(server: Hostile) -> None:
    server.extra["/slow"] = slow
    found = outcomes(Fetcher(limits(connections_per_host=3)), [server.url(f"/slow?{n}") for n in range(60)])
    assert all(isinstance(outcome, Fetched) for outcome in found.values())
    assert server.most == 3
    assert server.connections == 3


def test_several_boxes_share_a_host(server: Hostile) -> None:
    server.extra["/slow"] = slow
    outcomes(Fetcher(limits(connections_per_host=4, share=0.25)), [server.url(f"/slow?{n}") for n in range(10)])
    assert server.most == 1


def test_hosts_of_one_registered_domain_share_its_connections(server: Hostile) -> None:
    server.extra["/slow"] = slow
    names = Names({f"img{n}.shop.co.uk": HERE for n in range(8)} | {f"other{n}.co.uk": HERE for n in range(2)})
    of_shop = [server.url(f"/slow?{n}", f"img{n % 8}.shop.co.uk") for n in range(48)]
    outcomes(Fetcher(limits(connections_per_domain=2), resolver=names), of_shop)
    assert server.most == 2
    others = [server.url(f"/slow?{n}", f"other{n % 2}.co.uk") for n in range(24)]
    outcomes(Fetcher(limits(connections_per_domain=2), resolver=names), others)
    assert server.most == 4


def test_requests_to_a_host_keep_to_its_rate(server: Hostile, hand: Hand) -> None:
    changes = {"requests_per_second": 2.0, "burst": 5}
    fetcher = Fetcher(limits(**changes), clock=hand.clock)
    found = outcomes(fetcher, [server.url(f"/ok.jpg?{n}") for n in range(25)], lambda: hand.turn(1.0))
    assert len(found) == 25
    assert hand.passed() >= (25 - 5) / 2.0 - 0.1


def test_the_hosts_of_a_domain_together_keep_to_its_rate(server: Hostile, hand: Hand) -> None:
    names = Names({f"img{n}.shop.example": HERE for n in range(10)})
    fetcher = Fetcher(limits(requests_per_second=2.0, burst=1, rates_per_domain=2.0), clock=hand.clock, resolver=names)
    urls = [server.url(f"/ok.jpg?{n}", f"img{n % 10}.shop.example") for n in range(40)]
    outcomes(fetcher, urls, lambda: hand.turn(0.5))
    assert hand.passed() >= (40 - 2) / 4.0 - 0.1


@pytest.mark.parametrize(("path", "seconds"), [("/429-once", 7), ("/503-date-once", 5)])
def test_retry_after_is_obeyed_in_seconds_and_as_a_date(server: Hostile, hand: Hand, path: str, seconds: float) -> None:
    outcome = fetch_one(server.url(path), hand=hand, turn=0.5, attempts=2)
    assert isinstance(outcome, Fetched), outcome
    assert hand.passed() >= seconds
    assert server.visits[path] == 2


def test_a_host_that_wants_hours_is_left_alone_and_its_refs_carried_over(server: Hostile, hand: Hand) -> None:
    fetcher = Fetcher(limits(attempts=3, connections_per_host=1), clock=hand.clock)
    found = outcomes(fetcher, [server.url(f"/429-for-hours?{n}") for n in range(20)], lambda: hand.turn(1.0))
    reasons = [outcome.reason for outcome in found.values() if isinstance(outcome, Failure) and outcome.retriable]
    assert sorted(reasons) == ["host_busy"] * 19 + ["http_429"]
    assert sum(server.visits.values()) == 1
    assert hand.passed() < 60


def test_a_failure_that_may_pass_is_tried_again_within_the_attempt(server: Hostile, hand: Hand) -> None:
    outcome = fetch_one(server.url("/500-twice"), hand=hand, turn=1.0, attempts=3, retry_seconds=1.0)
    assert isinstance(outcome, Fetched)
    assert server.visits["/500-twice"] == 3
    assert hand.passed() >= 1.5  # 1 s and 2 s, each with jitter down to a half


def test_a_final_failure_is_not_tried_again(server: Hostile) -> None:
    assert isinstance(fetch_one(server.url("/403"), attempts=3), Failure)
    assert server.visits["/403"] == 1


def test_the_breaker_opens_after_failures_in_a_row_and_fails_the_rest_at_once(server: Hostile) -> None:
    fetcher = Fetcher(limits(breaker_failures=5, connections_per_host=1))
    found = outcomes(fetcher, [server.url(f"/close?{n}") for n in range(100)])
    reasons = [outcome.reason for outcome in found.values() if isinstance(outcome, Failure)]
    assert reasons.count("protocol") == 5
    assert reasons.count("host_busy") == 95
    assert all(outcome.retriable for outcome in found.values() if isinstance(outcome, Failure))


def test_a_half_open_breaker_lets_one_probe_through_and_closes_when_it_comes_back_well(
    server: Hostile, hand: Hand
) -> None:
    beside: list[int] = []

    async def watched(visit: Visit) -> None:
        await asyncio.sleep(0.1)
        beside.append(server.busy)
        await ok(visit)

    server.extra["/slow"] = watched
    fetcher = Fetcher(limits(breaker_failures=3, breaker_seconds=30.0), clock=hand.clock)
    waves = [[server.url(f"/close?{n}") for n in range(3)], [server.url(f"/slow?{n}") for n in range(12)]]

    def items() -> object:
        yield from ((url, url) for url in waves[0])
        while fetcher.pending:
            yield None
        assert isinstance(results[-1], Failure)
        hand.turn(31.0)
        yield from ((url, url) for url in waves[1])

    results: list[Fetched | Failure] = []
    for result in fetcher.stream(items()):  # type: ignore[arg-type]
        if result is not None:
            results.append(result[1])
    assert sum(isinstance(outcome, Fetched) for outcome in results) == 12
    assert beside[0] == 1  # nobody else went while the probe was away
    assert max(beside[1:]) > 1


def test_missing_images_do_not_open_the_breaker(server: Hostile) -> None:
    found = outcomes(Fetcher(limits(breaker_failures=3)), [server.url(f"/nothing?{n}") for n in range(30)])
    assert {outcome.reason for outcome in found.values() if isinstance(outcome, Failure)} == {"http_4xx"}


def test_a_host_that_hangs_does_not_hold_up_the_others(server: Hostile, hand: Hand) -> None:
    with Hostile() as dead:
        urls = []
        for number in range(2000):
            urls.append(dead.url(f"/hang?{number}") if number % 100 == 0 else server.url(f"/ok.jpg?{number}"))
        order: list[str] = []
        fetcher = Fetcher(limits(breaker_failures=5), clock=hand.clock)
        for result in fetcher.stream((url, url) for url in urls):
            if result is not None:
                order.append("well" if isinstance(result[1], Fetched) else result[1].reason)
            elif len(order) >= 1980:
                hand.turn(61.0)
    assert order[:1980] == ["well"] * 1980
    assert set(order[1980:]) <= {"timeout", "host_busy"}
    assert len(order) == 2000


def test_hosts_take_turns_whatever_the_order_of_their_urls(server: Hostile) -> None:
    server.extra["/slow"] = slow
    names = Names({"big.example": HERE, "small.example": HERE})
    urls = [server.url(f"/slow?{n}", "big.example") for n in range(200)]
    urls += [server.url(f"/slow?{n}", "small.example") for n in range(20)]
    ended = [result[0] for result in Fetcher(limits(), resolver=names).stream((url, url) for url in urls) if result]
    last_small = max(index for index, url in enumerate(ended) if "small" in url)
    assert last_small < 80
