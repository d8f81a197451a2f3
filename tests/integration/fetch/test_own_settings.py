"""Settings of one host: they hold for it in every spelling, and for no other; its headers go nowhere else."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.dns import Answer
from tests.integration.fetch.asking import Hand, Names, fetch_one, limits, outcomes
from tests.integration.fetch.hostile import Hostile, Visit, ok

HERE = Answer(["127.0.0.1"], 3600.0)
TOKEN = "planted-token"


async def slow(visit: Visit) -> None:
    await asyncio.sleep(0.02)
    await ok(visit)


def header(head: str, name: str) -> list[str]:
    """The values of a header in a request as it came in."""
    lines = [line.partition(": ") for line in head.split("\r\n")]
    return [value for key, _, value in lines if key.lower() == name.lower()]


def own(server: Hostile, name: str = "shop.example", **settings: object) -> dict[str, object]:
    return {f"{name}:{server.port}": settings}


def test_a_host_gets_its_headers_and_user_agent_and_others_do_not(server: Hostile) -> None:
    names = Names({"shop.example": HERE, "other.example": HERE})
    hosts = own(server, headers={"X-Token": TOKEN, "Accept": "image/avif"}, user_agent="Own/1 ({contact})")
    fetcher = Fetcher(limits(hosts=hosts, contact="me@example.org", connections=1), resolver=names)
    urls = [server.url(f"/ok.jpg?{n}", host) for n, host in enumerate(["shop.example", "other.example"] * 4)]
    assert all(isinstance(one, Fetched) for one in outcomes(fetcher, urls).values())
    assert len(server.heads) == 8
    for head in server.heads:
        if header(head, "host") == [f"shop.example:{server.port}"]:
            assert header(head, "x-token") == [TOKEN]
            assert header(head, "accept") == ["image/avif"]
            assert header(head, "user-agent") == ["Own/1 (me@example.org)"]
            assert header(head, "accept-encoding") == ["identity"]
        else:
            assert TOKEN not in head
            assert header(head, "user-agent") == ["Hathi/0.1 (image features; contact: me@example.org)"]
            assert header(head, "accept")[0].startswith("image/jpeg")


def test_headers_are_not_carried_over_by_a_redirect_and_are_given_where_one_leads_to_their_host(
    server: Hostile,
) -> None:
    names = Names({"shop.example": HERE, "other.example": HERE, "cdn.shop.example": HERE})
    hosts = own(server, headers={"Authorization": f"Bearer {TOKEN}"})
    there = server.url("/ok.jpg", "other.example")
    for start in ("shop.example", "cdn.shop.example"):
        assert isinstance(fetch_one(server.url(f"/to?{there}", start), hosts=hosts, resolver=names), Fetched)
    back = server.url(f"/to?{server.url('/ok.jpg', 'shop.example')}", "other.example")
    assert isinstance(fetch_one(back, hosts=hosts, resolver=names), Fetched)
    sent = [(header(head, "host")[0].partition(":")[0], TOKEN in head) for head in server.heads]
    assert sent == [
        ("shop.example", True), ("other.example", False),
        ("cdn.shop.example", False), ("other.example", False),
        ("other.example", False), ("shop.example", True),
    ]  # fmt: skip


def test_a_redirect_to_another_port_of_the_host_gets_no_headers(server: Hostile) -> None:
    with Hostile() as second:
        names = Names({"shop.example": HERE})
        url = server.url(f"/to?{second.url('/ok.jpg', 'shop.example')}", "shop.example")
        hosts = own(server, headers={"X-Token": TOKEN})
        assert isinstance(fetch_one(url, hosts=hosts, resolver=names), Fetched)
        assert [TOKEN in head for head in (*server.heads, *second.heads)] == [True, False]


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("IMG.Shop.Example", "img.shop.example"),
        ("img.shop.example", "IMG.SHOP.EXAMPLE"),
        ("img.shop.example.", "img.shop.example"),
        ("img.shop.example", "img.shop.example."),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "B\u00dcCHER.example"),
        ("127.1", "127.0.0.1"),
    ],
)
def test_a_host_is_found_in_every_spelling(server: Hostile, name: str, host: str) -> None:
    names = Names({"img.shop.example": HERE, "xn--bcher-kva.example": HERE})
    hosts = own(server, name, headers={"X-Token": TOKEN})
    assert isinstance(fetch_one(server.url("/ok.jpg", host), hosts=hosts, resolver=names), Fetched)
    assert header(server.heads[0], "x-token") == [TOKEN]


def test_the_name_alone_is_the_host_at_the_ports_of_the_web(server: Hostile) -> None:
    hosts = {"shop.example": {"headers": {"X-Token": TOKEN}}}
    names = Names({"shop.example": HERE})
    assert isinstance(fetch_one(server.url("/ok.jpg", "shop.example"), hosts=hosts, resolver=names), Fetched)
    assert TOKEN not in server.heads[0], "this server is at another port"


def test_a_header_of_the_settings_stands_in_the_place_of_the_user_that_the_url_names(server: Hostile) -> None:
    hosts = own(server, "127.0.0.1", headers={"authorization": f"Bearer {TOKEN}"})
    url = server.url("/ok.jpg").replace("http://", "http://user:word@")
    assert isinstance(fetch_one(url, hosts=hosts), Fetched)
    assert header(server.heads[0], "authorization") == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize(("connections", "most"), [(1, 1), (9, 9)])
def test_a_host_has_connections_of_its_own_and_its_domain_does_not_hold_it_back(
    server: Hostile, connections: int, most: int
) -> None:
    server.extra["/slow"] = slow
    rules = limits(hosts=own(server, connections=connections), connections_per_domain=2)
    urls = [server.url(f"/slow?{n}", "shop.example") for n in range(60)]
    outcomes(Fetcher(rules, resolver=Names({"shop.example": HERE})), urls)
    assert server.most == most


def test_the_other_hosts_of_the_domain_keep_to_its_limits(server: Hostile) -> None:
    server.extra["/slow"] = slow
    names = Names({f"img{n}.shop.example": HERE for n in range(4)})
    rules = limits(hosts=own(server, connections=8), connections_per_domain=3)
    outcomes(Fetcher(rules, resolver=names), [server.url(f"/slow?{n}", f"img{n % 4}.shop.example") for n in range(40)])
    assert server.most == 3


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_host_has_a_rate_of_its_own_of_which_each_box_takes_its_share(
    server: Hostile, hand: Hand, share: float
) -> None:
    rules = limits(hosts=own(server, "127.0.0.1", requests_per_second=2.0, burst=4), share=share)
    found = outcomes(
        Fetcher(rules, clock=hand.clock), [server.url(f"/ok.jpg?{n}") for n in range(20)], lambda: hand.turn(1.0)
    )
    assert all(isinstance(one, Fetched) for one in found.values())
    assert hand.passed() >= (20 - 4 * share) / (2.0 * share) - 0.1


def test_a_faster_host_is_held_back_by_no_other_limit(server: Hostile, hand: Hand) -> None:
    rules = limits(
        requests_per_second=1.0, burst=1, rates_per_domain=1.0,
        hosts=own(server, "127.0.0.1", requests_per_second=1000.0, burst=1000),
    )  # fmt: skip
    outcomes(Fetcher(rules, clock=hand.clock), [server.url(f"/ok.jpg?{n}") for n in range(60)], lambda: hand.turn(1.0))
    assert hand.passed() < 20


def test_no_step_of_a_fetch_tells_a_header(server: Hostile) -> None:
    told: list[str] = []
    hosts = own(server, "127.0.0.1", headers={"X-Token": TOKEN})
    for path in ("/ok.jpg", "/403", "/close", f"/to?{server.url('/ok.jpg')}"):
        outcome = fetch_one(server.url(path), hosts=hosts, trace=lambda *step: told.append(str(step)))
        told.append(repr(outcome))
    assert server.heads
    assert all(TOKEN in head for head in server.heads)
    assert told
    assert TOKEN not in "".join(told)
