"""When a polite limit counts as what sets the pace: by its share of the last seconds, and by how busy a machine is."""

from __future__ import annotations

import pytest

from pipeline.clock import Clock
from pipeline.extraction.pace import Pace
from pipeline.fetch.held_back import Held

ONE = Held(0.0, 20.0, "fetch.requests_per_second")


class Turned(Clock):
    """Turned by the test."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at


def paced(held: float, busy: float, seconds: float = 20.0) -> tuple[list[str], dict[str, str]]:
    """What is said of a host that is held back for a share of the time, while the machine works for a share."""
    clock, said = Turned(), []
    pace = Pace(clock, said.append)
    while clock.at < seconds:
        clock.at += 0.1
        at = clock.at
        pace.look(lambda at=at: {"img.example": Held(held * at, ONE.per_second, ONE.setting)}, busy * at)
    return said, pace.set_by


def test_a_limit_that_holds_refs_back_is_said_once_with_what_lifts_it_and_at_the_end() -> None:
    said, at_the_end = paced(0.9, 0.3)
    remedy = "if the host is yours, raise it: --set 'fetch.requests_per_second=200'"
    assert said == [f"img.example's limit of 20/s sets the pace, not this machine; {remedy}"]
    assert at_the_end == {"img.example": f"img.example's limit of 20/s set the pace; {remedy}"}


@pytest.mark.parametrize(
    ("held", "busy", "seconds"), [(0.9, 0.95, 20.0), (0.3, 0.1, 20.0), (0.0, 0.0, 20.0), (0.9, 0.3, 4.0)]
)
def test_nothing_is_said_where_the_machine_or_the_host_is_the_limit_or_too_little_was_seen(
    held: float, busy: float, seconds: float
) -> None:
    assert paced(held, busy, seconds) == ([], {})


def test_a_limit_that_ruled_for_a_short_while_is_not_said_to_have_set_the_pace() -> None:
    clock, said = Turned(), []
    pace = Pace(clock, said.append)
    while clock.at < 60:
        clock.at += 0.1
        at = min(clock.at, 8.0)
        pace.look(lambda at=at: {"img.example": Held(at, ONE.per_second, ONE.setting)}, 0.0)
    assert (len(said), pace.set_by) == (1, {})
