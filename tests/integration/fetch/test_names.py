"""Names are asked of a real DNS server over UDP: once, as long as the answer holds, also when it is no."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from pipeline.fetch import Fetched, Fetcher
from pipeline.fetch.dns import Answer
from pipeline.records import Failure
from tests.integration.fetch.asking import Hand, Names, fetch_one, limits, outcomes
from tests.integration.fetch.hostile import Hostile


class NameServer:
    """Answers A and AAAA questions from a table: name -> list of (addresses, TTL), the last one for ever.

    Of an unknown name: no such name.  "silent.example": nothing.  "broken.example": SERVFAIL.
    """

    def __init__(self, table: dict[str, list[tuple[list[str], int]]]) -> None:
        self.table = table
        self.asked: Counter[str] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(4096)
            if not question:
                self._socket.close()
                return
            reply = self._reply(question)
            if reply:
                self._socket.sendto(reply, sender)

    def _reply(self, question: bytes) -> bytes | None:
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += 1 + question[at]
        name, end = ".".join(labels).lower(), at + 5
        kind = struct.unpack("!H", question[at + 1 : at + 3])[0]
        if kind == 1:
            self.asked[name] += 1
        if name == "silent.example":
            return None
        code = 2 if name == "broken.example" else 0 if name in self.table else 3
        addresses, ttl = [], 0
        if name in self.table:
            answers = self.table[name]
            addresses, ttl = answers.pop(0) if len(answers) > 1 and kind == 1 else answers[0]
        records = [ip_address(text).packed for text in addresses if ip_address(text).version == (4 if kind == 1 else 6)]
        head = question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(record)) + record for record in records)
        return head + question[12:end] + body


@pytest.fixture
def shop(server: Hostile) -> Iterator[NameServer]:
    names = NameServer(
        {
            "shop.example": [(["127.0.0.1"], 300)],
            "half.example": [(["10.0.0.1", "127.0.0.1"], 300)],
            "nowhere.example": [([], 300)],
            "_a.-b.c-.example": [(["127.0.0.1"], 300)],
            "xn--i-7iq.example": [(["127.0.0.1"], 300)],
        }
    )
    yield names
    names.close()


def test_a_name_is_asked_once_for_many_urls(server: Hostile, shop: NameServer) -> None:
    urls = [server.url(f"/ok.jpg?{number}", "shop.example") for number in range(50)]
    found = outcomes(Fetcher(limits(dns_servers=[shop.place])), urls)
    assert all(isinstance(outcome, Fetched) for outcome in found.values())
    assert shop.asked == {"shop.example": 1}


@pytest.mark.parametrize(
    "host", ["_a.-b.c-.example", "I❤.example", "shop.example.", "SHOP\u3002example", "%73hop%2Eexample"]
)
def test_a_name_that_browsers_open_is_asked_for_and_reached(server: Hostile, shop: NameServer, host: str) -> None:
    outcome = fetch_one(server.url("/ok.jpg", host), dns_servers=[shop.place])
    assert isinstance(outcome, Fetched), outcome


def test_an_answer_holds_as_long_as_it_says(server: Hostile, hand: Hand) -> None:
    names = Names({"shop.example": Answer(["127.0.0.1"], 300.0)})
    fetcher = Fetcher(limits(), clock=hand.clock, resolver=names)

    def items() -> Iterator[tuple[int, str] | None]:
        for number, seconds in enumerate((0, 290, 20, 290)):
            hand.turn(seconds)
            yield number, server.url(f"/ok.jpg?{number}", "shop.example")
            while fetcher.pending:
                yield None

    results = [result[1] for result in fetcher.stream(items()) if result is not None]
    assert all(isinstance(outcome, Fetched) for outcome in results)
    assert names.asked == ["shop.example"] * 2


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("missing.example", "no such name"),
        ("nowhere.example", "no address"),
        ("broken.example", "server failure"),
    ],
)
def test_a_name_without_an_address_is_dns_and_asked_once(
    server: Hostile, shop: NameServer, name: str, detail: str
) -> None:
    urls = [server.url(f"/ok.jpg?{number}", name) for number in range(20)]
    found = outcomes(Fetcher(limits(dns_servers=[shop.place], dns_seconds=1.0)), urls)
    failures = {
        (outcome.reason, outcome.detail, outcome.retriable)
        for outcome in found.values()
        if isinstance(outcome, Failure)
    }
    assert failures == {("dns", detail, True)}
    assert shop.asked[name] <= 2  # c-ares itself asks a broken server again


def test_a_name_server_that_says_nothing_ends_as_dns(server: Hostile, shop: NameServer) -> None:
    outcome = fetch_one(server.url("/ok.jpg", "silent.example"), dns_servers=[shop.place], dns_seconds=0.4)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.detail) == ("dns", "no answer")


def test_a_search_domain_is_never_added_to_a_name(server: Hostile, shop: NameServer) -> None:
    fetch_one(server.url("/ok.jpg", "shop"), dns_servers=[shop.place])
    assert set(shop.asked) == {"shop"}


def test_of_several_addresses_only_the_allowed_ones_are_connected_to(server: Hostile, shop: NameServer) -> None:
    def refuse(address: object) -> str | None:
        return None if str(address) == "127.0.0.1" else "private"

    outcome = fetch_one(
        server.url("/ok.jpg", "half.example"),
        allow_private=False,
        allow_ports=[server.port],
        refuse=refuse,
        dns_servers=[shop.place],
    )
    assert isinstance(outcome, Fetched)


def test_a_slow_name_does_not_hold_up_other_hosts(server: Hostile, shop: NameServer) -> None:
    urls = [server.url("/ok.jpg", "silent.example"), *(server.url(f"/ok.jpg?{n}", "shop.example") for n in range(20))]
    fetcher = Fetcher(limits(dns_servers=[shop.place], dns_seconds=3.0))
    order = [result[0] for result in fetcher.stream((url, url) for url in urls) if result is not None]
    assert "silent" in order[-1]
