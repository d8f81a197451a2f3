"""What a stage says of what it tries in vain: when a cause comes, when it comes again, and when it is over."""

from __future__ import annotations

import pytest

from pipeline.errors import PermanentError, TemporaryError
from pipeline.stages.said import Causes, Said

DOWN = TemporaryError("the S3 server cannot be reached", "port 9000", "start it")
FULL = TemporaryError("HDFS has no room for a block", "", "free space")
DENIED = PermanentError("user hathi is not allowed at /lake", "", "chown")


class World:
    """Lines as they come, and a clock by hand."""

    def __init__(self, lake: str = "") -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.causes: Causes = {}
        self.said = Said(self.lines.append, "deliver", lake, lambda: self.now, self.causes)

    def news(self) -> list[str]:
        lines, self.lines[:] = list(self.lines), []
        return lines


def test_an_outage_is_one_line_its_end_is_one_and_a_second_outage_is_told_again() -> None:
    world = World()
    for _ in range(2):
        for _turn in range(3):
            world.said.failed("", DOWN)
        assert world.news() == [f"{DOWN}; the next turn tries it again"]
        world.said.worked(["", "deliver S"])
        assert world.news() == ["deliver works again; this is over: the S3 server cannot be reached"]
        world.said.worked([""])
        assert world.news() == []


def test_what_passes_by_itself_is_one_line_for_all_that_it_meets_and_over_with_the_last() -> None:
    world = World()
    for name in ("S", "T", "U"):
        world.said.failed(f"deliver {name}", FULL)
    assert world.news() == [f"deliver S: {FULL}; the next turn tries it again"]
    world.said.worked(["deliver S", "deliver T"])
    assert world.news() == []
    world.said.worked(["deliver U"])
    assert world.news() == ["deliver works again; this is over: HDFS has no room for a block"]


def test_what_meets_all_stages_is_one_line_and_over_with_the_last_of_them() -> None:
    world = World()
    ship = Said(world.lines.append, "ship", "", lambda: world.now, world.causes)
    world.said.failed("", DOWN)
    ship.failed("", DOWN)
    assert world.news() == [f"{DOWN}; the next turn tries it again"]
    world.said.worked([""])
    assert world.news() == []
    ship.worked([""])
    assert world.news() == ["ship works again; this is over: the S3 server cannot be reached"]


def test_what_needs_a_person_is_a_line_for_each_and_over_for_each() -> None:
    world = World()
    for name in ("S", "T"):
        world.said.failed(f"deliver {name}", DENIED)
    assert world.news() == [f"deliver S: {DENIED}", f"deliver T: {DENIED}"]
    world.said.worked(["deliver T"])
    assert world.news() == ["deliver still fails; this is over: deliver T: user hathi is not allowed at /lake"]


def test_a_cause_that_gives_way_to_another_one_is_over() -> None:
    world = World()
    world.said.failed("", DOWN)
    world.said.failed("", FULL)
    assert world.news() == [
        f"{DOWN}; the next turn tries it again",
        f"{FULL}; the next turn tries it again",
        "deliver still fails; this is over: the S3 server cannot be reached",
    ]


def test_what_nobody_tries_any_more_is_over_after_an_hour() -> None:
    world = World()
    world.said.failed("deliver S", FULL)
    world.now = 3599.0
    world.said.worked([""])
    assert len(world.news()) == 1
    world.now = 3601.0
    world.said.worked([""])
    assert world.news() == ["deliver works again; this is over: HDFS has no room for a block"]


@pytest.mark.parametrize("error", [DOWN, DENIED])
def test_of_several_lakes_each_line_names_its_own(error: TemporaryError | PermanentError) -> None:
    world = World("near")
    world.said.failed("deliver S", error)
    world.said.worked(["deliver S"])
    assert [line.startswith("lake near: deliver ") for line in world.news()] == [True, True]
