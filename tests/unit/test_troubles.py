"""What programs try in vain: noted in the state folder, judged by health with cause, remedy and beginning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PermanentError, PipelineError, TemporaryError
from pipeline.operations.health.facts import Facts, LakeFacts, StoreFacts
from pipeline.operations.health.judge import Finding, Level, judge
from pipeline.operations.health.memory import Memory
from pipeline.process.troubles import FILE, MOST, Trouble, Troubles, troubles
from pipeline.settings import Health
from pipeline.stages.loop import LakeStages
from pipeline.stores.local import LocalStore
from tests.simulation.folders import Folders, url, world_of
from tests.simulation.world import HandClock

NOW = 1_700_000_000.0
HOUR = 3600.0
SAFE = TemporaryError("HDFS is in safe mode", "NameNode one", "wait; hdfs dfsadmin -safemode get")
QUOTA = PermanentError("the quota of /features is used up", "10 GB", "hdfs dfsadmin -setSpaceQuota")


def test_what_fails_is_noted_since_it_began_until_it_works(tmp_path: Path) -> None:
    hand = HandClock(NOW)
    book = Troubles(tmp_path, hand.clock())
    book.turned("shop", "deliver", {"deliver S": SAFE, "": None})
    hand.at += 300
    book.turned("shop", "deliver", {"deliver S": SAFE, "": None})
    (one,) = troubles(tmp_path, hand.at)
    assert (one.message, one.hint, one.since, one.last, one.times) == (SAFE.message, SAFE.hint, NOW, NOW + 300, 2)
    book.turned("shop", "deliver", {"deliver S": None, "": None})
    assert troubles(tmp_path, hand.at) == ()


def test_what_rests_stays_and_what_nobody_tries_any_more_is_over(tmp_path: Path) -> None:
    hand = HandClock(NOW)
    book = Troubles(tmp_path, hand.clock())
    book.turned("shop", "deliver", {"deliver S": QUOTA})
    for minutes, known in ((15, 1), (50, 1), (70, 0)):
        hand.at = NOW + minutes * 60
        book.turned("shop", "deliver", {"": None})
        book.turned("shop", "ship", {"": None})
        assert len(troubles(tmp_path, hand.at)) == known


def test_a_healthy_turn_writes_nothing_and_a_lasting_trouble_little(tmp_path: Path) -> None:
    hand = HandClock(NOW)
    book = Troubles(tmp_path, hand.clock())
    book.turned("shop", "deliver", {"": None, "close S": None})
    assert list(tmp_path.iterdir()) == []
    for _ in range(200):
        hand.at += 0.2
        book.turned("shop", "deliver", {"deliver S": QUOTA})
    assert troubles(tmp_path, hand.at)[0].times < 10, "noted again once a minute"


def test_processes_of_a_host_share_the_file_and_each_hears_of_the_others(tmp_path: Path) -> None:
    hand = HandClock(NOW)
    one, other = Troubles(tmp_path, hand.clock()), Troubles(tmp_path, hand.clock())
    one.turned("shop", "ship", {"": SAFE})
    other.turned("shop", "deliver", {"": QUOTA})
    assert {made.stage for made in troubles(tmp_path, NOW)} == {"ship", "deliver"}
    other.turned("shop", "ship", {"": None})  # the program was started again, as another process
    assert {made.stage for made in troubles(tmp_path, NOW)} == {"deliver"}


def test_of_very_many_troubles_a_bounded_number_is_noted(tmp_path: Path) -> None:
    Troubles(tmp_path, HandClock(NOW).clock()).turned(
        "shop", "deliver", {f"deliver {n}": QUOTA for n in range(MOST + 50)}
    )
    assert len(troubles(tmp_path, NOW)) == MOST


@pytest.mark.parametrize("content", ["", "{", "[]", "[1]", '[{"lake": "x"}]', '{"a": 1}', "\xff"])
def test_a_damaged_file_tells_of_nothing_and_is_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_bytes(content.encode("latin-1"))
    assert troubles(tmp_path, NOW) == ()
    Troubles(tmp_path, HandClock(NOW).clock()).turned("shop", "ship", {"": QUOTA})
    assert len(troubles(tmp_path, NOW)) == 1


def test_secrets_of_urls_are_not_noted(tmp_path: Path) -> None:
    error = PermanentError("not read", "https://me:pass-4711@host/x?token=t-4711", "look")
    Troubles(tmp_path, HandClock(NOW).clock()).turned("shop", "ship", {"": error})
    assert "4711" not in (tmp_path / FILE).read_text()


def made(error: PipelineError, **more: Any) -> Trouble:
    passing = isinstance(error, TemporaryError)
    one = Trouble("shop", "deliver", "deliver S", error.message, error.detail, error.hint, NOW, NOW, 5, passing)
    return replace(one, **more)


def judged(*some: Trouble, **more: Any) -> list[Finding]:
    return list(judge(Facts(**{"at": NOW, "host": "gate", "troubles": some, **more}), Health()))


def test_a_stage_that_fails_in_each_turn_is_told_with_its_own_cause_remedy_and_beginning() -> None:
    quota, safe = judged(made(SAFE), made(QUOTA, since=NOW - HOUR))
    assert (safe.level, quota.level) == (Level.WARNING, Level.ALERT)
    assert "deliver fails on this host: HDFS is in safe mode (NameNode one); in vain: deliver S" in safe.text
    assert (safe.hint, quota.hint) == (SAFE.hint, QUOTA.hint)
    assert quota.since == NOW - HOUR
    assert judged(made(SAFE, times=1)) == [], "what may pass is told once it has failed again"
    (lasting,) = judged(made(SAFE, since=NOW - 7 * HOUR))
    assert lasting.level is Level.ALERT


def test_many_shipments_with_one_cause_are_one_finding() -> None:
    (one,) = judged(*(made(QUOTA, what=f"deliver S{n}", since=NOW - n) for n in range(9)))
    assert "deliver S4 and 4 more" in one.text
    assert one.since == NOW - 8


def test_a_cause_that_is_told_already_is_not_told_twice() -> None:
    store = StoreFacts("lake shop", f"{SAFE.message} (NameNode one)", SAFE.hint)
    assert [one.key for one in judged(made(SAFE), stores=(store,))] == ["store lake shop"]


def test_a_trouble_has_the_remedy_that_its_error_names() -> None:
    lake = LakeFacts("shop", NOW, troubles={"features/i": "x", "refs": "y"}, remedies={"features/i": "wait for HDFS"})
    first, second = judged(lakes=(lake,))
    assert first.hint == "wait for HDFS"
    assert "settings" in second.hint


def test_a_finding_that_rises_to_an_alert_keeps_its_beginning() -> None:
    memory = Memory().after([Finding(Level.WARNING, "k", "t")], [], NOW)
    alert = Finding(Level.ALERT, "k", "t")
    assert memory.after([alert], [], NOW + HOUR).dated([alert])[0].since == NOW


class Full(LocalStore):
    """A lake that can be read and takes nothing."""

    def put(self, key: str, content: Any) -> None:
        raise QUOTA


def delivering(world: Folders, book: Troubles) -> None:
    lake = Full(world.top / "lake", fsync=False, now=lambda: world.hand.at)
    context = replace(world.context(), lake=lake, turned=lambda stage, tried: book.turned("shop", stage, tried))
    LakeStages(context, world.serve, strict=True).take("deliver")


def test_a_deliver_that_is_refused_in_each_turn_is_known_from_its_first_turn_until_it_works(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    turns = world.turns()
    for stage in ("ship", "compute", "aggregate"):
        turns.take(stage)
    book = Troubles(tmp_path / "state", world.hand.clock())
    delivering(world, book)
    (one,) = troubles(tmp_path / "state", world.hand.at)
    assert (one.stage, one.message, one.passing) == ("deliver", QUOTA.message, False)
    world.hand.at += HOUR / 2
    context = replace(world.context(), turned=lambda stage, tried: book.turned("shop", stage, tried))
    LakeStages(context, world.serve, strict=True).take("deliver")
    assert troubles(tmp_path / "state", world.hand.at) == ()
