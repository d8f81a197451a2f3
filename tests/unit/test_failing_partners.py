"""A day on which too many of a partner's images fail: counted from the index, explained from the delivered failures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.app.status import as_tree
from pipeline.cli import status
from pipeline.ledger.deliveries import Delivery, Index
from pipeline.ledger.layout import Root, version_of
from pipeline.operations.health.facts import Facts, FailingPartner, LakeFacts
from pipeline.operations.health.failing import LOOKED_INTO, Failing, days, told, too_many
from pipeline.operations.health.judge import NAMED, judge
from pipeline.operations.health.remedies import REMEDIES
from pipeline.records import REASONS
from pipeline.settings import Health, Settings
from tests.simulation.folders import Folders, world_of
from tests.unit.test_health import look_of, settled
from tests.unit.test_status import status_of

NOW = 1_700_000_000.0
HOUR, DAY = 3600.0, 86400.0
LIMITS = Health()
ONE = FailingPartner("7", "demo", 400, 390, "blocked", 100.0, "img.shop.example")


def delivery(
    features: int, failures: int, *, ago: float = HOUR, part: int = 0, generation: int = 0, partner: int = 7
) -> Delivery:
    folder = f"20260101T000000Z.000.{part:05d}.{generation}-0123456789ab/{partner}"
    return Delivery(folder=folder, partner_id=partner, files=(), features=features, failures=failures, fingerprint="f",
                    jobTimeStamp="20260101T000000Z", round=0, generation=generation,
                    delivered=version_of(NOW - ago))  # fmt: skip


def counted(*deliveries: Delivery) -> list[tuple[int, int, int]]:
    return [(one.partner, one.refs, one.failed) for one in days(Index(deliveries=deliveries), NOW)]


def test_parts_of_a_day_are_added_and_partners_are_told_apart() -> None:
    assert counted(delivery(10, 90), delivery(5, 5, part=1), delivery(1, 0, partner=8)) == [(7, 110, 95), (8, 1, 0)]


def test_what_was_delivered_more_than_a_day_ago_does_not_count() -> None:
    assert counted(delivery(0, 500, ago=25 * HOUR), delivery(3, 2, part=1)) == [(7, 5, 2)]


def test_what_a_retry_brings_is_no_failure_any_more_and_a_retry_alone_is_no_day() -> None:
    first, again = delivery(600, 400), delivery(390, 10, generation=1, ago=60)
    assert counted(first, again) == [(7, 1000, 10)]
    assert counted(first, replace_features(again, 0, 400)) == [(7, 1000, 400)], "refs are counted once"
    late = replace_features(delivery(0, 400, generation=3), 0, 400)
    assert counted(delivery(600, 400, ago=4 * DAY), late) == [], "the retry of an old day"


def replace_features(one: Delivery, features: int, failures: int) -> Delivery:
    return one.model_copy(update={"features": features, "failures": failures})


@pytest.mark.parametrize(
    ("refs", "failed", "warns"),
    [(100, 51, True), (100, 50, False), (99, 99, False), (1_000_000, 500_001, True), (100, 0, False)],
)
def test_the_share_and_the_least_number_are_settings(refs: int, failed: int, warns: bool) -> None:
    assert too_many(refs, failed, LIMITS) is warns
    assert too_many(refs, failed, Health(failed_percent=100.0)) is False
    assert too_many(refs, failed, Health(failed_percent=0.0, failed_refs=1)) is (failed > 0)


def judged(*failing: FailingPartner, limits: Health = LIMITS) -> list[tuple[str, str, str, str]]:
    facts = Facts(at=NOW, host="gate", lakes=(LakeFacts(lake="shop", now=NOW, failing=failing),))
    return [(one.level.word, one.key, one.text, one.hint) for one in judge(facts, limits)]


def test_a_day_on_which_everything_is_blocked_is_a_warning_that_says_what_it_means_and_what_to_do() -> None:
    ((level, key, text, hint),) = judged(ONE)
    assert (level, key) == ("Warning", "failures shop blocked")
    assert "partner 7: 390 of 400 images (98 %; 100 % of them blocked, host img.shop.example" in text
    assert hint.startswith("blocked usually means: the URLs lead to a private network")
    assert "fetch.allow_private" in hint


def test_one_cause_for_many_partners_is_one_finding_and_each_cause_its_own() -> None:
    many = [replace(ONE, partner=str(number)) for number in range(NAMED + 3)]
    (one, other) = judged(*many, replace(ONE, reason="dns", host=""))
    assert "; and 3 more partners" in one[2]
    assert one[2].count("of 400 images") == NAMED
    assert other[1] == "failures shop dns"


def test_the_judge_keeps_its_own_limits_whatever_facts_hold() -> None:
    assert judged(ONE, limits=Health(failed_percent=99)) == []
    assert judged(ONE, limits=Health(failed_refs=401)) == []


def test_each_reason_has_a_meaning_and_a_remedy_and_names_only_settings_that_there_are() -> None:
    assert list(REMEDIES) == list(REASONS)
    for remedy in REMEDIES.values():
        assert remedy.means
        assert remedy.do
        for section, name in re.findall(r"\b(fetch|compute)\.([a-z_]+)", remedy.do):
            fields = type(Settings.model_fields[section].default).model_fields
            assert name in fields, f"{section}.{name}"


# ---- looks at a world in folders


def of(kind: str, count: int, partner: int = 7, host: str = "http://shop.example") -> list[str]:
    return [f"{partner},{kind}{number},{host}/{kind}-{number}" for number in range(count)]


def found(world: Folders, tmp_path: Path, **limits: float) -> list[FailingPartner]:
    health = Health(disk_percent=100.0, failed_refs=5, **limits)
    settings = settled(world, tmp_path, health=health)
    look = look_of(world, tmp_path, settings=settings)
    (lake,) = look(lambda key: 0.0).lakes
    assert lake.troubles == {}
    return list(lake.failing)


def test_reason_and_host_are_read_from_what_was_delivered(tmp_path: Path) -> None:
    lines = [*of("gone", 6), *of("down", 2), *of("ok", 1), *of("ok", 9, 8), *of("gone", 1, 8)]
    world = world_of(tmp_path, *lines)
    world.run()
    (one,) = found(world, tmp_path)
    assert (one.partner, one.set, one.refs, one.failed) == ("7", "demo", 9, 8)
    assert (one.reason, one.reason_percent, one.host) == ("http_4xx", 75.0, "shop.example")


def test_what_a_host_was_not_asked_for_any_more_counts_for_what_it_had_failed_of(tmp_path: Path) -> None:
    lines = [*of("down", 2), *of("unasked", 6), *of("gone", 3), *of("unasked", 6, 8, "http://silent.example")]
    world = world_of(tmp_path, *lines)
    world.run()
    one, other = found(world, tmp_path)
    assert (one.reason, one.host) == ("http_5xx", "shop.example"), "what was never asked is no cause"
    assert [round(one.reason_percent), one.unasked_percent] == [73, 75.0]
    assert "; 73 % of them http_5xx, or not asked for after that (75 %), host shop.example" in told(one)
    assert (other.reason, other.unasked_percent) == ("host_busy", 0.0), "nothing says of what that host had failed"


def test_where_no_host_has_most_of_the_failures_none_is_named(tmp_path: Path) -> None:
    lines = [f"7,i{number},http://host{number}.example/gone-1" for number in range(6)]
    world = world_of(tmp_path, *lines)
    world.run()
    (one,) = found(world, tmp_path)
    assert (one.reason, one.host) == ("http_4xx", "")
    assert "host" not in told(one)


def test_images_that_a_retry_brings_end_the_warning(tmp_path: Path) -> None:
    world = world_of(tmp_path, *of("later-1", 6))
    world.run()
    assert [one.reason for one in found(world, tmp_path)] == ["timeout"]
    world.hand.at += 2 * HOUR
    world.run()
    assert found(world, tmp_path) == []


def test_a_look_reads_each_file_of_failures_once_and_none_where_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, *of("gone", 6), *of("ok", 6, 8))
    world.run()
    look = look_of(world, tmp_path, settings=settled(world, tmp_path, health=Health(disk_percent=100, failed_refs=5)))
    opened: list[str] = []
    store = type(world.context().lake)
    original = store.open

    def counting(self: object, key: str, *more: object) -> object:
        opened.append(key)
        return original(self, key, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "open", counting)
    for _ in range(3):
        look(lambda key: 0.0)
    failures = [key for key in opened if "/failures/" in key]
    assert len(failures) == len(set(failures)) == len(list(tmp_path.glob("lake/features/*/7/failures/*.parquet")))


def test_of_very_many_bad_partners_only_the_worst_are_read(tmp_path: Path) -> None:
    class NoStore:
        def open(self, key: str) -> object:
            raise AssertionError(key)

    index = Index(deliveries=tuple(delivery(0, 100 + n, partner=n + 1) for n in range(LOOKED_INTO + 10)))
    some = Failing().look(NoStore(), Root("r"), "demo", index, NOW, LIMITS, {})  # type: ignore[arg-type]
    assert len(some) == LOOKED_INTO + 10
    assert some[0].failed == 100 + LOOKED_INTO + 9


def test_a_damaged_file_of_failures_is_trouble_and_hides_no_number(tmp_path: Path) -> None:
    world = world_of(tmp_path, *of("gone", 6))
    world.run()
    for path in tmp_path.glob("lake/features/*/7/failures/*.parquet"):
        path.write_bytes(b"no parquet")
    settings = settled(world, tmp_path, health=Health(disk_percent=100.0, failed_refs=5))
    (lake,) = look_of(world, tmp_path, settings=settings, folders=0)(lambda key: 0.0).lakes
    assert [(one.failed, one.reason) for one in lake.failing] == [(6, "")]
    assert all("its failures cannot be read" in why for why in lake.troubles.values())
    assert lake.troubles


def test_status_shows_the_same(tmp_path: Path) -> None:
    world = world_of(tmp_path, *of("gone", 6))
    world.run()
    settings = settled(world, tmp_path, health=Health(disk_percent=100.0, failed_refs=5))
    found = status_of(world, tmp_path, settings=settings)
    lines = list(status.as_lines(found, 20))
    assert "too many images of the last day failed: " + told(found.facts.lakes[0].failing[0]) in lines
    body = as_tree(found)
    assert [(one["lake"], one["partner"], one["reason"]) for one in body["failing"]] == [("shop", "7", "http_4xx")]
