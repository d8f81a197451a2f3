"""A gateway that is dead or stopped is told by whoever sees the bucket; one that was never there is not missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.ledger.protocol import beat, leave
from pipeline.operations.health.facts import Facts, Heard, LakeFacts
from pipeline.operations.health.gateways import FORGOTTEN, heard, remembered
from pipeline.operations.health.judge import Finding, Level, judge
from pipeline.operations.health.memory import Memory, read_memory, write_memory
from pipeline.settings import Health
from tests.simulation.folders import Folders, url, world_of

NOW = 1_700_000_000.0
MINUTE, HOUR = 60.0, 3600.0
ALIVE = 360.0
LIMITS = Health()


def lake(now: float, estop: float | None = None, **heard_of: float) -> LakeFacts:
    """What a look at `now` reads of the bucket: the last beat of each stage whose beat lies there."""
    return LakeFacts("shop", now, estop=estop, gateway={stage: Heard(last) for stage, last in heard_of.items()})


class Box:
    """A host that looks now and then, and remembers."""

    def __init__(self) -> None:
        self.memory = Memory()

    def look(self, seen: LakeFacts, **more: Any) -> list[Finding]:
        facts = self.memory.joined(Facts(seen.now, "box", (seen,), **more), ALIVE)
        self.memory = self.memory.knowing(facts)
        return list(judge(facts, LIMITS))


def test_a_gateway_that_was_never_seen_is_not_missed() -> None:
    box = Box()
    assert [box.look(lake(NOW + hours * HOUR)) for hours in range(100)] == [[]] * 100


def test_a_daemon_that_is_killed_leaves_its_beat_and_is_told_of_as_warning_then_as_alert_until_one_beats() -> None:
    box = Box()
    dead = {"ship": NOW, "deliver": NOW + 20 * MINUTE}
    assert box.look(lake(NOW, ship=NOW, deliver=NOW)) == []
    assert box.look(lake(NOW + 20 * MINUTE, **dead)) == []
    (one,) = box.look(lake(NOW + 50 * MINUTE, **dead))
    assert (one.level, one.key, one.since) == (Level.WARNING, "gateway shop ship", NOW)
    assert "ship on the gateway is dead or stopped" in one.text
    assert "50 min" in one.text
    assert one.hint
    assert [two.key for two in box.look(lake(NOW + 90 * MINUTE, **dead))] == ["gateway shop deliver", one.key]
    late = NOW + 7 * HOUR
    assert {two.level for two in box.look(lake(late, **dead))} == {Level.ALERT}
    assert box.look(lake(late + MINUTE, ship=late, deliver=late)) == []


def test_one_that_stopped_in_good_order_leaves_nothing_and_is_missed_all_the_same() -> None:
    box = Box()
    box.look(lake(NOW, ship=NOW))
    assert box.look(lake(NOW + 10 * MINUTE)) == []
    assert box.look(lake(NOW + 39 * MINUTE)) == []
    assert [one.key for one in box.look(lake(NOW + 41 * MINUTE))] == ["gateway shop ship"]
    assert box.look(lake(NOW + 42 * MINUTE, ship=NOW + 42 * MINUTE)) == []


def test_at_a_start_of_everything_the_first_look_is_no_alarm() -> None:
    box = Box()
    box.look(lake(NOW, ship=NOW))
    week = NOW + 7 * 24 * HOUR  # all hosts were off; the box is up first
    assert box.look(lake(week)) == []
    assert box.look(lake(week + 5 * MINUTE, ship=week + 5 * MINUTE)) == []
    assert box.look(lake(week + 50 * MINUTE, ship=week + 50 * MINUTE)) == []


def test_a_box_that_looks_once_a_day_tells_it_the_second_time() -> None:
    box = Box()
    day = 24 * HOUR
    box.look(lake(NOW, ship=NOW))
    assert box.look(lake(NOW + day)) == []
    assert [one.level for one in box.look(lake(NOW + 2 * day))] == [Level.ALERT]


def test_where_estop_stands_silence_is_what_was_asked_for_and_counts_anew_once_it_is_lifted() -> None:
    box = Box()
    box.look(lake(NOW, ship=NOW))
    for minutes in (10, 40, 300):
        (one,) = box.look(lake(NOW + minutes * MINUTE, estop=NOW, ship=NOW))
        assert one.key == "estop shop"
    assert box.look(lake(NOW + 301 * MINUTE, ship=NOW)) == []
    assert [one.key for one in box.look(lake(NOW + 331 * MINUTE, ship=NOW))] == ["gateway shop ship"]


def test_what_this_host_says_of_its_own_programs_is_not_said_twice() -> None:
    gateway = Box()
    gateway.look(lake(NOW, ship=NOW))
    for minutes in (10, 45):
        found = gateway.look(lake(NOW + minutes * MINUTE, ship=NOW), died={"ship": "pid 7 since then"})
    assert [one.key for one in found] == ["program ship"]


def test_one_that_was_taken_out_of_service_is_forgotten() -> None:
    before = {"ship": Heard(NOW, NOW + HOUR)}
    assert remembered(before, lake(NOW + FORGOTTEN - 1), ALIVE, first_look=0.0) == before
    assert remembered(before, lake(NOW + FORGOTTEN), ALIVE, first_look=0.0) == {}


def test_a_person_who_looks_once_hears_of_the_last_beat() -> None:
    seen = Facts(NOW, "box", (lake(NOW, ship=NOW - 45 * MINUTE),))
    assert [one.key for one in judge(Memory().joined(seen, ALIVE, notes=False), LIMITS)] == ["gateway shop ship"]
    assert judge(Memory().joined(seen, ALIVE), LIMITS) == ()


def test_what_is_remembered_survives_a_restart(tmp_path: Path) -> None:
    box = Box()
    box.look(lake(NOW, ship=NOW, deliver=NOW))
    box.look(lake(NOW + 10 * MINUTE, ship=NOW))
    write_memory(tmp_path, box.memory)
    assert read_memory(tmp_path).gateways == box.memory.gateways
    assert {"ship", "deliver"} == box.memory.gateways["shop"].keys()


@pytest.fixture
def world(tmp_path: Path) -> Folders:
    return world_of(tmp_path, f"7,a,{url('ok', 1)}")


def test_only_the_beats_of_daemons_that_serve_the_lake_are_a_gateways(world: Folders) -> None:
    context = world.context("box.one")
    process = {name: world.context(name) for name in ("gate.daemon", "gate.cron", "box.daemon")}
    beat(process["gate.daemon"], ("ship", "deliver"))
    beat(process["gate.cron"])
    beat(process["box.daemon"], ("compute", "aggregate"))
    context.bucket.put(context.keys.alive_hint("old"), b"x" * 300)
    context.bucket.put(context.keys.estop, b"ship")
    known: dict[str, frozenset[str]] = {}
    assert heard(context, known).keys() == {"ship", "deliver"}
    assert len(known) == 2, "an empty beat is not read, nor one that is too long"
    leave(process["gate.daemon"])
    assert heard(context, known) == {}
    assert len(known) == 1
