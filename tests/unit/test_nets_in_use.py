"""Which net readers take where a partner has several lists: another one takes the place when it holds all of each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import hathi
from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import PartnerManifest
from pipeline.ledger.layout import MANIFEST, ShipmentName
from pipeline.stages import operator_requests
from pipeline.stages.compact.nets import InUse, Stand, in_use, net_in_use
from pipeline.stages.compact.running import Compacted
from pipeline.stages.compact.running import run as compact
from pipeline.times import DAY
from tests.simulation.folders import Folders, world_of
from tests.unit.deltas import ROOT, deliver
from tests.unit.test_nets_of_a_root import NEW, OLD, THIRD, counts, name, read, tables, vectors
from tests.unit.test_stages import url
from tests.unit.test_stages import world_of as world_of_stages

SHOP, DAY2, DAY3 = ("shop.csv", 1), ("day2.csv", 2), ("day3.csv", 3)
"""Lists: the source, and the day of its version."""
BASE = {7: (1, 2, 3), 8: (5, 6)}


def at(hour: int) -> dict[str, object]:
    return {"delivered": f"20260110T{hour:02d}0000Z", "last": True}


def shipment(of: tuple[str, int], round_: int) -> ShipmentName:
    return replace(name(of[1], round_), hash=f"{int.from_bytes(of[0].encode()) % 2**48:012x}")


def bring(
    lake: Path, of: tuple[str, int], round_: int, net: str, hour: int, items: Mapping[int, tuple[int, ...]]
) -> ShipmentName:
    """A list of some partners, delivered at an hour."""
    whole = shipment(of, round_)
    for partner, mine in items.items():
        said = at(hour) | {"source": of[0]}
        deliver(lake, whole, vectors(net, *mine), partner, fingerprint=net, said=said)
    return whole


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A list of all, of two partners, under the old net."""
    bring(tmp_path / "lake", SHOP, 0, OLD, 1, BASE)
    return tmp_path / "lake"


@pytest.fixture
def world(lake: Path) -> Folders:
    return world_of(lake.parent)


def all_of(net: str, *items: int) -> dict[int, str]:
    return dict.fromkeys(items, net[0])


def lacks(lake: Path) -> dict[str, list[tuple[int, str]]]:
    return {one.fingerprint[0]: list(one.lacks) for one in hathi.fingerprints(lake / ROOT.root)}


def test_a_small_list_under_a_new_net_takes_nothing_from_readers(lake: Path, world: Folders) -> None:
    bring(lake, DAY2, 0, NEW, 2, {7: (21,), 8: (22,)})
    old = all_of(OLD, 1, 2, 3, 5, 6)
    assert read(lake) == old
    assert read(lake, partner=7) == all_of(OLD, 1, 2, 3)
    assert counts(lake) == [("a", 5, True), ("b", 2, False)]
    assert lacks(lake) == {"a": [], "b": [(7, "shop.csv"), (8, "shop.csv")]}
    assert tables(world) == {7: {"a": 3}, 8: {"a": 2}}, "the table has one net's rows, and no reader's are fewer"
    assert tables(world) == {}
    assert read(lake) == old
    bring(lake, DAY3, 0, NEW, 3, {7: (31,), 8: (32,)})
    assert read(lake) == old, "more of such lists change nothing"
    bring(lake, SHOP, 1, NEW, 4, BASE)
    everything = all_of(NEW, 1, 2, 3, 5, 6, 21, 22, 31, 32)
    assert read(lake) == everything
    assert tables(world) == {7: {"b": 5}, 8: {"b": 4}}
    assert read(lake) == everything


@pytest.mark.parametrize("compacted", [False, True])
def test_half_a_back_fill_of_several_lists_is_not_seen(lake: Path, world: Folders, compacted: bool) -> None:
    bring(lake, DAY2, 0, OLD, 2, {7: (21,), 8: (22,)})
    bring(lake, DAY3, 0, OLD, 2, {7: (31, 1)})
    if compacted:  # the folders go that the table covers
        assert tables(world) == {7: {"a": 5}, 8: {"a": 3}}
        for folder in (lake / ROOT.root).glob("2026*"):
            shutil.rmtree(folder)
    old = all_of(OLD, 1, 2, 3, 5, 6, 21, 22, 31)
    bring(lake, DAY2, 1, NEW, 5, {7: (21,), 8: (22,)})
    bring(lake, DAY3, 1, NEW, 5, {7: (31, 1)})
    assert read(lake) == old, "the small lists are there, the great one is not"
    assert lacks(lake)["b"] == [(7, "shop.csv"), (8, "shop.csv")]
    assert tables(world) == ({} if compacted else {7: {"a": 5}, 8: {"a": 3}})
    bring(lake, SHOP, 1, NEW, 6, {7: (1, 2, 3)})
    assert read(lake) == old
    bring(lake, SHOP, 2, NEW, 7, BASE)
    new = all_of(NEW, 1, 2, 3, 5, 6, 21, 22, 31)
    assert read(lake) == new
    assert tables(world) == {7: {"b": 5}, 8: {"b": 3}}
    assert read(lake) == new
    if compacted:
        for folder in (lake / ROOT.root).glob("2026*"):
            shutil.rmtree(folder)
        assert read(lake) == new, "the table says what it covers"
        bring(lake, DAY3, 0, THIRD, 8, {7: (31, 1)})
        assert read(lake) == new


def test_daily_lists_of_partners_that_come_one_by_one(lake: Path) -> None:
    partners = (7, 8, 9, 10)
    bring(lake, DAY2, 0, OLD, 2, {one: (one * 10,) for one in partners})
    old = all_of(OLD, 1, 2, 3, 5, 6, 70, 80, 90, 100)
    for hour, one in enumerate(partners):
        bring(lake, (f"day3-{one}.csv", 3), 0, NEW, 4 + hour, {one: (one * 10 + 1,)})
        assert read(lake) == old, "most partners have a list under the new net, and nothing of theirs is missing"
    bring(lake, SHOP, 1, NEW, 9, BASE)
    assert read(lake) == old
    bring(lake, DAY2, 1, NEW, 10, {one: (one * 10,) for one in partners})
    assert read(lake) == all_of(NEW, 1, 2, 3, 5, 6, 70, 71, 80, 81, 90, 91, 100, 101)


def test_a_newer_list_of_the_same_source_needs_no_back_fill(lake: Path) -> None:
    bring(lake, ("shop.csv", 4), 0, NEW, 4, {7: (1, 2)})
    assert read(lake) == all_of(OLD, 1, 2, 3, 5, 6)
    bring(lake, ("shop.csv", 5), 0, NEW, 5, {8: (5,)})
    assert read(lake) == all_of(NEW, 1, 2, 5)


def test_the_way_back_is_one_step_too(lake: Path, world: Folders) -> None:
    bring(lake, SHOP, 1, NEW, 2, BASE)
    bring(lake, DAY2, 0, NEW, 3, {7: (21,), 8: (22,)})
    new = all_of(NEW, 1, 2, 3, 5, 6, 21, 22)
    assert tables(world) == {7: {"b": 4}, 8: {"b": 3}}
    bring(lake, SHOP, 2, OLD, 4, {7: (1, 2, 3)})
    assert read(lake) == new
    bring(lake, DAY2, 2, OLD, 5, {7: (21,), 8: (22,)})
    assert read(lake) == new, "the old net held the list of all before, which does not count"
    assert lacks(lake)["a"] == [(8, "shop.csv")]
    assert tables(world) == {}
    bring(lake, SHOP, 3, OLD, 7, {8: (5, 6)})
    assert read(lake) == all_of(OLD, 1, 2, 3, 5, 6, 21, 22)
    assert tables(world) == {7: {"a": 4}, 8: {"a": 3}}
    assert read(lake) == all_of(OLD, 1, 2, 3, 5, 6, 21, 22)


def test_what_was_forgotten_holds_nothing_back(lake: Path) -> None:
    bring(lake, DAY2, 0, OLD, 2, {7: (21,)})
    bring(lake, SHOP, 1, NEW, 3, BASE)
    assert read(lake) == all_of(OLD, 1, 2, 3, 5, 6, 21)
    folder = lake / ROOT.partner(shipment(DAY2, 0), 7)
    body = body_of(PartnerManifest, (folder / MANIFEST).read_bytes(), MANIFEST)
    empty = body.model_copy(update={"files": (), "features": 0, "forgotten": 1})
    (folder / MANIFEST).write_bytes(empty.encode())
    assert read(lake) == all_of(NEW, 1, 2, 3, 5, 6)


def stand(net: str, of: tuple[str, int], hour: int, *, round_: int = 0, partner: int = 7, part: int = 0) -> Stand:
    whole = replace(name(of[1], round_, part))
    return Stand(partner, whole, net, of[0], delivered=str(at(hour)["delivered"]) if hour else "")


def used(*stands: Stand, alone: bool = False) -> str:
    return in_use(stands, alone).fingerprint[0]


def test_manifests_of_an_older_hathi_name_no_source() -> None:
    older = [stand(OLD, ("", day), 0, partner=partner) for day in (1, 2) for partner in (7, 8)]
    one, other = (stand(NEW, ("", 2), 0, round_=1, partner=partner) for partner in (7, 8))
    assert used(*older, one) == "a"
    assert used(*older, one, other) == "b"
    newer = [stand(NEW, DAY3, 3, partner=partner) for partner in (7, 8)]
    newer = [replace(one, last=True) for one in newer]
    assert used(*older, newer[0]) == "a"
    assert used(*older, *newer) == "b", "any newer version of the partner is for one that names no source"
    named = stand(OLD, SHOP, 1)
    assert used(named, stand(NEW, ("", 2), 0)) == "b", "what does not say when it came, came first"
    back = stand(THIRD, ("", 2), 0)
    assert used(named, replace(back, delivered="20260120T000000Z")) == "a", "a list that nobody knows is not this one"
    assert used(named, replace(stand(THIRD, ("", 1), 0, round_=1), delivered="20260120T000000Z")) == "c"


def test_a_newer_list_counts_when_its_last_part_is_there() -> None:
    two = [stand(OLD, SHOP, 1), stand(OLD, SHOP, 1, part=1)]
    new = [stand(NEW, ("shop.csv", 2), 2, part=part) for part in (0, 1, 2)]
    last = replace(new[2], last=True)
    assert used(*two, *new) == "a", "a longer one is on its way"
    assert used(*two, last, new[0]) == "a"
    assert used(*two, *new[:2], last) == "b"
    assert used(*two, replace(new[0], last=True)) == "b", "a shorter one is whole"
    others = replace(last, partner=8)
    assert used(*two, new[0], new[1], others) == "b", "its last part has nothing of the partner"
    assert used(*two, new[0], new[1]) == "a"
    assert used(*two, new[0], new[1], alone=True) == "b", "of one partner alone nobody knows which part is the last"


def test_a_retry_that_another_net_computed_is_not_the_part() -> None:
    first, retry = stand(OLD, SHOP, 1), stand(NEW, SHOP, 2)
    assert used(first, replace(retry, name=replace(retry.name, generation=1))) == "a"
    assert used(first, stand(NEW, SHOP, 2, round_=1)) == "b"


def test_a_late_list_of_the_net_before_changes_nothing() -> None:
    switched = [stand(OLD, SHOP, 1), stand(NEW, SHOP, 2, round_=1)]
    assert used(*switched, stand(OLD, DAY2, 3)) == "b"
    assert used(stand(OLD, DAY2, 1), *switched) == "a"


def test_what_the_stages_deliver_says_enough(tmp_path: Path) -> None:
    """By the stages themselves: a base list in parts, one of new items, a back-fill; then all folders are pruned."""
    rows = [f"{partner},{partner}{n},{url('ok', partner + n)}" for partner in (10, 20) for n in range(4)]
    world = world_of_stages(tmp_path, *rows)
    world.run()
    old, new = world.fingerprints["demo"], "99" * 32
    _, modified, _ = world.lake.files["refs/a.csv"]
    world.hand.at += 2 * DAY
    lines = ["partner_id,external_id,image_url", f"10,new,{url('ok', 51)}", f"20,new,{url('ok', 52)}"]
    world.lake.files["refs/day2.csv"] = ("\n".join(lines).encode(), modified + DAY, 77)
    world.fingerprints = {**world.fingerprints, "demo": new}
    world.run()

    def now() -> InUse:
        context = world.context()
        assert context.lake is not None
        return net_in_use(context.lake, ROOT)

    assert (now().fingerprint, now().lacks[new]) == (old, ((10, "refs/a.csv"), (20, "refs/a.csv")))
    context = world.context()
    for whole, plan in operator_requests.newest(context, "", ["demo"]):
        operator_requests.again(context, whole, plan, backfill=True)
    world.run()
    assert (now().fingerprint, list(now().before)) == (new, [old])
    done = [one.current.body for one in compact(world.context()) if isinstance(one, Compacted)]
    assert {body.partner_id: dict(body.fingerprints) for body in done} == {10: {new: 5}, 20: {new: 5}}
    for path in [path for path in world.lake.files if path.startswith("features/2")]:
        del world.lake.files[path]
    assert now().fingerprint == new
    assert {one.source for body in done for one in body.sources} == {"refs/a.csv", "refs/day2.csv"}
