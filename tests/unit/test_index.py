"""The index as a value, and its writers' rounds over a store in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.ledger.deliveries import Delivery, Index, IndexFile, Proposal
from pipeline.ledger.layout import Root
from pipeline.stages import index
from pipeline.times import HOUR
from tests.simulation.memory import MemoryStore
from tests.simulation.world import World

ROOT = Root("features")
NOW = "20261120T185900Z"


def delivery(folder: str, partner: int, version: str, name: str = "a.parquet", size: int = 7) -> Delivery:
    file = IndexFile(name=name, size=size, sha256="0" * 64, rows=1)
    return Delivery(
        folder=f"{folder}/{partner}", partner_id=partner, files=(file,), features=1, failures=0, fingerprint="ab" * 32,
        jobTimeStamp=version, round=0, generation=0, delivered="",
    )  # fmt: skip


def test_parts_of_one_version_add_up_and_a_newer_version_replaces() -> None:
    one = index.next_index(Index(), [delivery("s1", 5, "20250101T000000Z")], "features", NOW, 7)
    two = index.next_index(one, [delivery("s2", 5, "20250101T000000Z")], "features", NOW, 7)
    assert two.partners["5"].files == ("s1/5/a.parquet", "s2/5/a.parquet")
    assert two.partners["5"].outputSize == 14
    three = index.next_index(two, [delivery("s3", 5, "20250102T000000Z")], "features", NOW, 7)
    assert three.partners["5"].files == ("s3/5/a.parquet",)
    assert three.partners["5"].outputFolder == "features"
    assert three.version == 3


def test_an_older_version_that_comes_late_is_listed_and_changes_no_partner() -> None:
    new = index.next_index(Index(), [delivery("s3", 5, "20250102T000000Z")], "features", NOW, 7)
    late = index.next_index(new, [delivery("s1", 5, "20250101T000000Z")], "features", NOW, 7)
    assert late.partners["5"].files == ("s3/5/a.parquet",)
    assert [one.folder for one in late.deliveries] == ["s3/5", "s1/5"]


def test_deliveries_leave_the_list_after_their_days_and_partners_stay() -> None:
    one = index.next_index(Index(), [delivery("s1", 5, "20250101T000000Z")], "features", "20250101T000000Z", 7)
    two = index.next_index(one, [delivery("s2", 6, "20250109T000000Z")], "features", "20250109T000000Z", 7)
    assert [one.folder for one in two.deliveries] == ["s2/6"]
    assert set(two.partners) == {"5", "6"}


def test_a_delivery_is_entered_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    context = world.context()
    mine = [delivery("s1", 5, "20250101T000000Z")]
    assert index.enter(context, ROOT, {"no/done": mine}, NOW).version == 1
    assert index.enter(context, ROOT, {"no/done": mine}, NOW).version == 1
    assert index.read_index(MemoryStore(world.lake), ROOT).deliveries[0].delivered == NOW  # type: ignore[arg-type]
    left = sorted(key for key in world.lake.files)
    assert left == ["features/_index/0000000001", "features/outputByPartner"]


def test_a_proposal_that_its_writer_left_is_finished_by_the_next(tmp_path: Path) -> None:
    world = World(tmp_path)
    lake = MemoryStore(world.lake)
    theirs = index.next_index(Index(), [delivery("s1", 5, "20250101T000000Z")], "features", NOW, 7)
    lake.put(ROOT.token("t1"), theirs.encode())
    lake.put(ROOT.proposal(1), Proposal(token="t1").encode())
    done = index.enter(world.context(), ROOT, {"no/done": [delivery("s2", 6, "20250101T000000Z")]}, NOW)
    assert done.version == 2
    assert {one.folder for one in done.deliveries} == {"s1/5", "s2/6"}


def test_a_proposal_whose_token_is_lost_is_an_alert_and_left_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    MemoryStore(world.lake).put(ROOT.proposal(1), Proposal(token="lost").encode())
    with pytest.raises(index.IndexStuck, match="stays at version 0"):
        index.enter(world.context(), ROOT, {"no/done": [delivery("s1", 5, "20250101T000000Z")]}, NOW)
    assert list(world.lake.files) == [ROOT.proposal(1)]


@pytest.mark.parametrize("seconds", [1.0, 100.0, 4000.0])
def test_what_was_read_before_another_entered_loses_nothing_of_the_others(tmp_path: Path, seconds: float) -> None:
    world = World(tmp_path)
    context = world.context()
    seen = index.look(context, ROOT)
    index.enter(world.context("box.two"), ROOT, {"no/done": [delivery("s1", 5, "20250101T000000Z")]}, NOW)
    world.hand.at += seconds
    done = index.enter(context, ROOT, {"no/done": [delivery("s2", 6, "20250101T000000Z")]}, NOW, seen)
    assert (done.version, [one.folder for one in done.deliveries]) == (2, ["s1/5", "s2/6"])
    assert not [key for key in world.lake.files if "/tokens/" in key], "nothing is left of the proposal that lost"


def test_what_was_read_an_hour_ago_proposes_nothing_even_where_the_old_proposals_are_pruned(tmp_path: Path) -> None:
    world = World(tmp_path)
    context = world.context()
    seen = index.look(context, ROOT)
    for number in (1, 2):
        one = delivery(f"s{number}", 5, "20250101T000000Z")
        index.enter(world.context("box.two"), ROOT, {f"no/{number}": [one]}, NOW)
        world.lake.remove(ROOT.proposal(number))
    world.hand.at += HOUR
    done = index.enter(context, ROOT, {"no/done": [delivery("s3", 6, "20250101T000000Z")]}, NOW, seen)
    assert (done.version, [one.folder for one in done.deliveries]) == (3, ["s1/5", "s2/5", "s3/6"])
