"""The only retry loop, under an injected clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.clock import Clock
from pipeline.errors import PermanentError, PipelineError, TemporaryError, Unknown
from pipeline.stores.retrying import LONGEST_PAUSE, Retry


class Hand:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.at = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += seconds

    def retry(self, seconds: float, chance: float = 1.0) -> Retry:
        return Retry(seconds, Clock(lambda: self.at, lambda: self.at, self.sleep), lambda: chance)


def failing(times: int, error: Callable[[], PipelineError]) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def request() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error()
        return "done"

    return request, calls


def test_what_may_pass_is_asked_again_later_and_later() -> None:
    hand = Hand()
    request, calls = failing(3, lambda: TemporaryError("busy", delay=1.0))
    assert hand.retry(60.0)(request) == "done"
    assert len(calls) == 4
    assert hand.pauses == [1.0, 2.0, 4.0]


def test_half_of_a_pause_is_chance() -> None:
    hand = Hand()
    request, _ = failing(2, lambda: TemporaryError("busy", delay=1.0))
    hand.retry(60.0, chance=0.0)(request)
    assert hand.pauses == [0.5, 1.0]


def test_a_pause_has_a_longest_length() -> None:
    hand = Hand()
    request, _ = failing(9, lambda: TemporaryError("busy", delay=1.0))
    hand.retry(1000.0)(request)
    assert max(hand.pauses) == LONGEST_PAUSE


def test_the_deadline_ends_it_with_the_last_error() -> None:
    hand = Hand()
    request, calls = failing(99, lambda: TemporaryError(f"busy {len(calls)}", delay=1.0))
    with pytest.raises(TemporaryError, match="busy 3"):
        hand.retry(5.0)(request)
    assert hand.at <= 5.0


@pytest.mark.parametrize("error", [PermanentError("no"), Unknown("perhaps")])
def test_what_is_permanent_or_unknown_is_for_the_caller_at_once(error: PipelineError) -> None:
    hand = Hand()
    request, calls = failing(1, lambda: error)
    with pytest.raises(type(error)):
        hand.retry(60.0)(request)
    assert len(calls) == 1
    assert hand.pauses == []
