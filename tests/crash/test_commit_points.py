"""Every commit point of the protocol, killed before, killed after, and with its answer lost: the result is the same.

Real processes over the local store, each fault once, deterministically; whoever was cut is started again as cron,
run-all.sh or a person would.  Prints which points were hit.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.points import POINTS, Point
from tests.crash.site import Site
from tests.crash.stories import STORIES, Story, tell
from tests.crash.zygote import Zygote
from tests.faults.faults import Fault

CUTS = ("killed before", "killed after", "answer lost")
STOPPED = "asked to stop"
WORKERS = 2


@pytest.fixture(scope="module")
def zygotes() -> Iterator[list[Zygote]]:
    made = [Zygote() for _ in range(WORKERS)]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: it is the processes that are looked at, not the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Case:
    """A point and what happens there."""

    point: Point
    how: str

    def fault(self) -> Fault:
        return Fault(self.how, self.point.verb, self.point.keys, first=self.point.nth)

    def __str__(self) -> str:
        return f"{self.point.name}: {self.how}"


def live(folder: Path, zygote: Zygote, story: Story, template: Site, case: Case | None) -> tuple[Site, str]:
    """One life from the template on; the site, and what is wrong with how it went."""
    site = Site(template.folder, zygote).copy_to(folder)
    try:
        struck = tell(site, story, case.point.place if case else "", case.fault() if case else None)
    except AssertionError as error:
        return site, str(error)
    if case is not None and not struck:
        return site, "the point was not reached"
    return site, f"left behind: {site.left()}" if site.left() else ""


def differences(site: Site, whole: Site) -> str:
    """How what stands differs from what stands after a life without faults."""
    for what in ("delivered", "ledger"):
        mine, expected = getattr(site, what)(), getattr(whole, what)()
        if mine != expected:
            keys = sorted(key for key in {*mine, *expected} if mine.get(key) != expected.get(key))
            return f"{what} differs at {keys[:6]}"
    return "" if site.delivered_at() == whole.delivered_at() else "the times of delivery differ"


@pytest.mark.parametrize("name", STORIES, ids=lambda name: name.replace(" ", "-"))
def test_whoever_is_cut_at_a_commit_point_the_result_is_the_same(
    name: str, ground: Path, zygotes: list[Zygote], figures: Callable[[str], None]
) -> None:
    story = STORIES[name]
    template = Site(ground / "template", zygotes[0])
    template.folder.mkdir()
    story.prepare(template)
    whole, wrong = live(ground / "whole", zygotes[0], story, template, None)
    assert wrong == ""
    changes = whole.noted("change")
    unnamed = [row for row in changes if not any(point.is_like(row[0], row[2], row[3]) for point in POINTS)]
    assert unnamed == [], "the product writes what no point names"

    mine = [point for point in POINTS if point.story == name]
    hows = (*CUTS, STOPPED) if name == "whole" else CUTS
    cases = [Case(point, how) for point in mine for how in hows]
    free = list(zygotes)
    taking = threading.Lock()

    def run(number: int) -> str:
        with taking:
            zygote = free.pop()
        try:
            folder = ground / f"case-{number}"
            site, wrong = live(folder, zygote, story, template, cases[number])
            wrong = wrong or differences(site, whole)
            if not wrong:
                shutil.rmtree(folder)
            return wrong
        finally:
            with taking:
                free.append(zygote)

    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(run, range(len(cases))))
    figures(f"{name}: {len(mine)} points, {len(cases)} cases")
    for point in mine:
        hits = [how if not found[cases.index(Case(point, how))] else f"{how.upper()}: WRONG" for how in hows]
        figures(f"  {point.name:36} {', '.join(hits)}")
    assert [f"{case}: {wrong}" for case, wrong in zip(cases, found, strict=True) if wrong] == []


def test_every_story_has_its_points_and_every_point_its_story() -> None:
    assert {point.story for point in POINTS} == set(STORIES)
    names = [point.name for point in POINTS]
    assert len(names) == len(set(names))
