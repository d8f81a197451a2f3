"""What failed finally is tried again by one command, once; a silent partner is told by its own rhythm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.app.ship_again import Announced, Underway, announce_failed
from pipeline.errors import ConfigError
from pipeline.ledger.layout import seconds_of
from pipeline.operations.health.facts import Facts, LakeFacts
from pipeline.operations.health.judge import Level, judge
from pipeline.operations.health.memory import Memory, read_memory, write_memory
from pipeline.operations.health.rhythm import RENEWALS, joined, silent
from pipeline.settings import Health
from tests.simulation.folders import HEADER, Folders, url, world_of
from tests.unit.test_health import look_of

DAY = 86400.0
NOW = 1_700_000_000.0


def tried_again(world: Folders, reason: str, partner: str = "") -> Sequence[Announced | Underway]:
    found = list(announce_failed([world.context("gate.operator")], reason, partner, ()))
    world.hand.at += 10
    return found


def test_what_failed_finally_is_shipped_again_and_typing_it_twice_ships_it_once(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('gone', 1)}", f"7,b,{url('ok', 1)}")
    world.put_refs("b.csv", HEADER + f"8,c,{url('ok', 2)}\n")
    world.hand.at += 10
    world.run()
    (one,) = tried_again(world, "http_4xx")
    assert isinstance(one, Announced)
    assert (one.source, one.shipment.round) == ("refs/a.csv", 1)
    (two,) = tried_again(world, "http_4xx")
    assert isinstance(two, Underway), "nothing is shipped twice"
    world.run()
    (three,) = tried_again(world, "http_4xx")
    assert isinstance(three, Announced), "it was tried, and failed again"
    assert three.shipment.round == 2
    world.run()
    assert [f for f in world.look() if f.level == "damage"] == []


def test_only_the_partner_and_the_reason_that_are_named_are_tried_again(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('gone', 1)}")
    world.put_refs("b.csv", HEADER + f"8,c,{url('gone', 2)}\n")
    world.hand.at += 10
    world.run()
    (one,) = tried_again(world, "http_4xx", "8")
    assert one.source == "refs/b.csv"
    world.run()
    with pytest.raises(ConfigError, match="of partner 9 failed finally"):
        tried_again(world, "http_4xx", "9")
    with pytest.raises(ConfigError, match="failed finally for decode"):
        tried_again(world, "decode")
    with pytest.raises(ConfigError, match="no reason weather"):
        tried_again(world, "weather")


def test_what_is_retried_by_itself_is_final_after_its_last_try_only(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('down', 1)}")
    world.run()
    (one,) = tried_again(world, world_reason(world))
    assert isinstance(one, Underway)
    for _ in range(4):
        world.hand.at += 4 * DAY
        world.run()
    (two,) = tried_again(world, world_reason(world))
    assert isinstance(two, Announced)


def world_reason(world: Folders) -> str:
    """The reason for which `down` fails in this world."""
    import json

    outs = sorted((world.top / "bucket").glob("shop/c/*/out"))
    (reason,) = json.loads(outs[0].read_text())["reasons"]
    return str(reason)


def test_the_warning_of_failures_names_the_command() -> None:
    from pipeline.operations.health.facts import FailingPartner

    bad = FailingPartner("7", "demo", 200, 200, "http_4xx", 100.0, "shop.example")
    lake = LakeFacts("shop", NOW, sees_lake=True, failing=(bad,))
    (one,) = judge(Facts(NOW, "gate", (lake,)), Health())
    assert "hathi ship --again --failed http_4xx --partner 7" in one.hint
    assert "shop.example" in one.text
    both = replace(lake, failing=(bad, replace(bad, partner="8")))
    (two,) = judge(Facts(NOW, "gate", (both,)), Health())
    assert "`hathi ship --again --failed http_4xx` tries them again" in two.hint


# ---- silent partners


def daily(days: int, until: float = NOW) -> tuple[float, ...]:
    return tuple(until - DAY * back for back in range(days - 1, -1, -1))


def test_a_partner_that_came_daily_is_silent_after_two_days_and_forgotten_after_thirty() -> None:
    known = {"7": daily(5)}
    assert silent(known, NOW + 1.9 * DAY, 2.0) == ()
    (one,) = silent(known, NOW + 2.1 * DAY, 2.0)
    assert (one.partner, one.last, one.rhythm) == ("7", NOW, DAY)
    assert silent(known, NOW + 31 * DAY, 2.0) == ()


def test_a_rhythm_is_the_partners_own_and_of_few_renewals_none_is_known() -> None:
    weekly = tuple(NOW - 7 * DAY * back for back in range(4, -1, -1))
    hourly = tuple(NOW - 3600.0 * back for back in range(9, -1, -1))
    assert silent({"w": weekly}, NOW + 13 * DAY, 2.0) == ()
    assert [one.partner for one in silent({"w": weekly, "h": hourly}, NOW + 15 * DAY, 2.0)] == ["h", "w"]
    assert silent({"h": hourly}, NOW + 1.5 * DAY, 2.0) == (), "a shorter silence than days is none"
    assert silent({"new": daily(3)}, NOW + 9 * DAY, 2.0) == ()


def test_a_silent_partner_is_a_warning_with_its_name() -> None:
    lake = LakeFacts("shop", NOW + 3 * DAY, sees_lake=True, renewals={"7": daily(6), "8": daily(6, NOW + 2.5 * DAY)})
    (one,) = judge(Facts(NOW, "gate", (lake,)), Health())
    assert (one.level, one.key, one.since) == (Level.WARNING, "silent shop", NOW)
    assert "partner 7" in one.text
    assert "partner 8" not in one.text
    assert judge(Facts(NOW, "gate", (lake,)), Health(silent_days=4)) == ()


def test_rhythms_are_remembered_over_restarts_and_bounded(tmp_path: Path) -> None:
    lake = LakeFacts("shop", NOW, sees_lake=True, renewals={"7": daily(3)})
    write_memory(tmp_path, Memory().after([], [], NOW).knowing(Facts(NOW, "gate", (lake,))))
    later = replace(lake, renewals={"7": (NOW + DAY,)})
    facts = read_memory(tmp_path).joined(Facts(NOW + DAY, "gate", (later,)), 360.0)
    assert facts.lakes[0].renewals["7"] == (*daily(3), NOW + DAY)
    unseen = read_memory(tmp_path).joined(Facts(NOW, "box", (replace(lake, sees_lake=False, renewals={}),)), 360.0)
    assert unseen.lakes[0].renewals == {}, "who cannot see the source judges no silence"
    assert len(joined(range(90), (91.0,))) == RENEWALS


def test_a_look_knows_the_versions_of_deliveries(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.hand.at += DAY
    world.put_refs("a.csv", HEADER + f"7,a,{url('ok', 2)}\n")
    world.hand.at += 10
    world.run()
    (lake,) = look_of(world, tmp_path)(lambda key: 0.0).lakes
    names = sorted({path.name.partition(".")[0] for path in (world.top / "bucket/shop/c").iterdir()})
    assert lake.renewals["7"] == tuple(seconds_of(name) for name in names)
    assert len(names) == 2
