"""Features of two nets under one root: no reader mixes them, and the switch is one step for all partners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hathi
from pipeline.ledger.layout import ShipmentName
from pipeline.stages.compact import compacting
from pipeline.stages.compact.forgetting import covering
from pipeline.stages.compact.nets import Stand, in_use
from pipeline.stages.compact.running import Compacted
from pipeline.stages.compact.running import run as compact
from pipeline.stages.index import read_index
from tests.simulation.folders import Folders, world_of
from tests.unit.deltas import ROOT, deliver, name_of

OLD, NEW, THIRD = "a" * 64, "b" * 64, "c" * 64


def name(day: int, round_: int = 0, part: int = 0) -> ShipmentName:
    return replace(name_of(day), round=round_, part=part)


def vectors(net: str, *items: int) -> dict[int, np.ndarray]:
    return {item: np.array([item, ord(net[0]), 1]) for item in items}


def put(lake: Path, day: int, round_: int, net: str, items: tuple[int, ...], partner: int = 7, part: int = 0) -> None:
    deliver(lake, name(day, round_, part), vectors(net, *items), partner, fingerprint=net)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two partners under the old net; one of them in two parts."""
    folder = tmp_path / "lake"
    put(folder, 1, 0, OLD, (1, 2))
    put(folder, 1, 0, OLD, (3,), part=1)
    put(folder, 1, 0, OLD, (5, 6), partner=8)
    return folder


@pytest.fixture
def world(lake: Path) -> Folders:
    return world_of(lake.parent)


def read(lake: Path, **how: Any) -> dict[int, str]:
    """By item the net of its vector, by the vector itself; each row's fingerprint says the same."""
    ids, matrix = hathi.read_matrix(lake / ROOT.root, **how)
    nets = [chr(int(value)) for value in matrix[:, 1]]
    assert [print_[0] for print_ in ids["fingerprint"].to_pylist()] == nets
    return dict(zip(ids["item_id"].to_pylist(), nets, strict=True))


def counts(lake: Path) -> list[tuple[str, int, bool]]:
    return [(one.fingerprint[0], one.items, one.current) for one in hathi.fingerprints(lake / ROOT.root)]


def tables(world: Folders) -> dict[int, dict[str, int]]:
    done = list(compact(world.context()))
    assert all(isinstance(one, Compacted) for one in done), done
    return {
        one.current.body.partner_id: {print_[0]: count for print_, count in one.current.body.fingerprints.items()}
        for one in done
        if isinstance(one, Compacted)
    }


@pytest.mark.parametrize("compacted", [False, True])
def test_a_back_fill_is_seen_by_readers_once_it_is_whole_and_the_way_back_is_an_argument(
    lake: Path, world: Folders, compacted: bool
) -> None:
    def merged(**expected: Any) -> None:
        if compacted:
            assert tables(world) == {int(key[1:]): value for key, value in expected.items()}

    merged(p7={"a": 3}, p8={"a": 2})
    old = dict.fromkeys((1, 2, 3, 5, 6), "a")
    for items, partner, part in ((1, 2), 7, 0), ((5,), 8, 0):
        put(lake, 1, 1, NEW, items, partner, part)
        assert read(lake) == old, "nothing is mixed, and nothing is missing, while it runs"
        merged()
        assert read(lake) == old
    put(lake, 1, 1, NEW, (3,), part=1)
    assert read(lake) == dict.fromkeys((1, 2, 3, 5), "b"), "item 6 failed in it"
    merged(p7={"b": 3}, p8={"a": 1, "b": 1})
    assert read(lake) == dict.fromkeys((1, 2, 3, 5), "b")
    assert counts(lake) == [("b", 4, True), ("a", 1, False)]
    assert read(lake, fingerprint=OLD[:12]) == old
    assert read(lake, fingerprint="all") == {**dict.fromkeys((1, 2, 3, 5), "b"), 6: "a"}
    put(lake, 2, 0, NEW, (1, 9))
    assert read(lake)[9] == "b"
    with pytest.raises(hathi.Error, match="no features of fingerprint 'd'"):
        read(lake, fingerprint="d")


def test_a_net_that_is_promoted_again_is_current_when_it_came_to_most_partners(lake: Path) -> None:
    for partner, items in ((7, (1, 2)), (8, (5, 6))):
        put(lake, 1, 1, NEW, items, partner)
    put(lake, 1, 1, NEW, (3,), part=1)
    assert set(read(lake).values()) == {"b"}
    for partner, items in ((7, (1, 2)), (8, (5, 6))):
        put(lake, 1, 2, OLD, items, partner)
    put(lake, 1, 2, OLD, (3,), part=1)
    assert read(lake) == dict.fromkeys((1, 2, 3, 5, 6), "a")


def test_the_next_snapshot_under_a_new_net_counts_when_all_its_parts_are_there(lake: Path) -> None:
    put(lake, 2, 0, NEW, (1, 2))
    put(lake, 2, 0, NEW, (5, 6), partner=8)
    assert set(read(lake, partner=7).values()) == {"a"}
    put(lake, 2, 0, NEW, (3,), part=1)
    assert set(read(lake).values()) == {"b"}


def test_folders_of_the_net_before_are_not_covered_by_the_table_of_the_new_one(lake: Path, world: Folders) -> None:
    list(compact(world.context()))
    for partner, items in ((7, (1, 2)), (8, (5, 6))):
        put(lake, 1, 1, NEW, items, partner)
    put(lake, 1, 1, NEW, (3,), part=1)
    context = world.context()
    list(compact(context))
    assert context.lake is not None
    is_covered = covering(context.lake, ROOT, read_index(context.lake, ROOT))
    assert not is_covered(name(1)), "the way back stands there"
    assert is_covered(name(1, 1))
    old = dict.fromkeys((1, 2, 3, 5, 6), "a")
    assert read(lake, fingerprint=OLD) == old


def test_a_table_that_took_whatever_came_is_found(lake: Path, world: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "_ahead", lambda task, bodies: [])
    list(compact(world.context()))
    put(lake, 1, 1, NEW, (1, 2))
    assert tables(world) == {7: {"a": 1, "b": 2}}, "half of it is of another net"
    assert read(lake) == dict.fromkeys((1, 2, 3, 5, 6), "a"), "readers do not mix even so"


def test_which_net_is_the_current_one() -> None:
    def stands(*told: tuple[int, int, int, str]) -> list[Stand]:
        return [Stand(partner, name(day, round_), net) for partner, day, round_, net in told]

    def net(*told: tuple[int, int, int, str]) -> str:
        return in_use(stands(*told)).fingerprint

    assert in_use([]).fingerprint == ""
    both = (7, 1, 0, OLD), (8, 1, 0, OLD)
    assert net(*both) == OLD
    assert net(*both, (9, 1, 0, NEW)) == OLD, "a new partner alone changes nothing"
    assert net(*both, (7, 1, 1, NEW)) == OLD
    assert net(*both, (7, 1, 1, NEW), (8, 1, 1, NEW)) == NEW
    assert net(*both, (7, 1, 1, NEW), (8, 1, 1, NEW), (7, 1, 2, THIRD)) == NEW
