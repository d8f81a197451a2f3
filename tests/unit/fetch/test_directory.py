"""Answers of the name service: how long they are remembered, good ones and bad ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.clock import Clock
from pipeline.fetch.dns import LONGEST, SHORTEST, Answer, Directory, Places


class Service:
    """Answers everything alike, at once."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.at = 1000.0

    def lookup(self, name: str, done: Callable[[Answer], None]) -> None:
        self.asked += 1
        done(self.answer)

    def close(self) -> None: ...

    def directory(self, negative_seconds: float = 60.0) -> Directory:
        return Directory(self, Clock(monotonic=lambda: self.at), lambda address: None, negative_seconds)


def held(service: Service, directory: Directory) -> float:
    """Seconds for which an answer that is given now is remembered."""
    found: list[Places] = []
    directory.ask("shop.example", found.append)
    assert directory.known("shop.example") == found[0]
    began, low, high = service.at, 0.0, 2 * LONGEST
    while high - low > 0.01:
        middle = (low + high) / 2
        service.at = began + middle
        low, high = (middle, high) if directory.known("shop.example") else (low, middle)
    assert service.asked == 1
    return high


@pytest.mark.parametrize(("ttl", "seconds"), [(0.0, SHORTEST), (300.0, 300.0), (1e9, LONGEST)])
def test_an_answer_is_remembered_for_its_ttl_within_bounds(ttl: float, seconds: float) -> None:
    service = Service(Answer(["192.0.2.1"], ttl))
    assert held(service, service.directory()) == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(
    ("why", "seconds", "final"),
    [
        ("no such name", 60.0, True),
        ("no address", 60.0, True),
        ("server failure", 5.0, False),
        ("no answer", 5.0, False),
    ],
)
def test_that_a_name_has_no_address_is_remembered_too_and_trouble_for_less_long(
    why: str, seconds: float, final: bool
) -> None:
    service = Service(Answer((), 0.0, why))
    directory = service.directory(negative_seconds=60.0)
    assert held(service, directory) == pytest.approx(seconds, abs=0.1)
    again: list[Places] = []
    directory.ask("shop.example", again.append)
    assert (again[0].final, again[0].failure and again[0].failure.detail) == (final, why)
