"""After what health and verify tell one to do, health, verify and the index agree."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.app import ship_again
from pipeline.ledger.layout import Root
from pipeline.operations.health.judge import Finding, judge
from pipeline.operations.verify.finding import KINDS
from pipeline.settings import Health
from pipeline.stages.index import read_index
from pipeline.stores.local import LocalStore
from tests.simulation.folders import Folders, url, world_of
from tests.unit.test_health import look_of


def told(world: Folders, tmp_path: Path) -> list[Finding]:
    return list(judge(look_of(world, tmp_path)(lambda key: 0.0), Health(disk_percent=100)))


def damage(world: Folders) -> list[str]:
    return [one.kind for one in world.look(deep=True) if one.level == "damage"]


def lose_a_file(world: Folders) -> None:
    world.on_lake("features/*.0-*/7/cnn_features.txt.gz").unlink()


def lose_a_folder(world: Folders) -> None:
    shutil.rmtree(world.on_lake("features/*.0-*/7"))


def lose_a_shipment(world: Folders) -> None:
    shutil.rmtree(world.on_lake("features/*.0-*"))


def cut_a_file(world: Folders) -> None:
    path = world.on_lake("features/*.0-*/7/cnn_features.txt.gz")
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("lose", [lose_a_file, lose_a_folder, lose_a_shipment, cut_a_file])
def test_what_is_gone_on_the_lake_is_shipped_again_and_repaired_and_everybody_agrees(
    tmp_path: Path, lose: Callable[[Folders], None]
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"8,b,{url('ok', 2)}")
    world.run()
    lose(world)
    (one,) = told(world, tmp_path)
    assert one.key == "missing shop"
    assert damage(world)
    (shipment,) = set(re.findall("hathi ship --again ([^`]+)`", one.hint))
    assert len(list(ship_again.announce([world.context("gate.operator")], shipment, ()))) == 1
    world.hand.at += 10
    world.run()
    assert "verify --repair" in one.hint
    world.mend()
    assert told(world, tmp_path) == []
    assert damage(world) == []
    index = read_index(LocalStore(world.top / "lake"), Root("features"))
    for partner in ("7", "8"):
        files = index.partners[partner].files
        assert files
        assert all((world.top / "lake" / "features" / file).exists() for file in files)
    assert world.mend() == [], "nothing is left to repair"
    world.hand.at += 3600
    world.run()
    assert (told(world, tmp_path), damage(world)) == ([], [])


def test_a_retry_whose_folder_is_gone_is_shipped_again_by_its_own_name(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('later-2', 1)}", f"7,b,{url('ok', 1)}")
    world.run()
    for _ in range(3):
        world.hand.at += 4 * 86400.0
        world.run()
    folders = sorted((world.top / "lake/features").glob("*.[1-3]-*"))
    shutil.rmtree(folders[-1])
    list(ship_again.announce([world.context("gate.operator")], folders[-1].name, ()))
    world.hand.at += 10
    for _ in range(4):
        world.run()
        world.hand.at += 4 * 86400.0
    world.mend()
    assert damage(world) == []
    assert told(world, tmp_path) == []


def test_while_the_later_round_is_not_delivered_what_is_gone_stays_an_alarm(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    lose_a_file(world)
    (one,) = told(world, tmp_path)
    (shipment,) = set(re.findall("hathi ship --again ([^`]+)`", one.hint))
    list(ship_again.announce([world.context("gate.operator")], shipment, ()))
    world.hand.at += 10
    world.turns().take("ship")
    world.mend()
    assert "missing shop" in [one.key for one in told(world, tmp_path)]
    assert "file_missing" in damage(world)


@pytest.mark.parametrize("body", ["plan", "end", "out", "done"])
def test_a_damaged_object_without_a_copy_has_a_way_out(tmp_path: Path, body: str) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    turns = world.turns()
    stages = {"plan": 1, "end": 1, "out": 3, "done": 4}[body]
    for stage in ("ship", "compute", "aggregate", "deliver")[:stages]:
        turns.take(stage)
    path = world.in_bucket(f"shop/c/*/{body}")
    path.write_text("{torn")
    (found,) = [one for one in world.look() if one.kind == "unreadable"]
    assert "where there is none, delete it" in found.do
    path.unlink()
    world.mend()
    world.run()
    assert damage(world) == []
    assert told(world, tmp_path) == []
    assert list((world.top / "lake/features").glob("*/7/cnn_features.txt.gz"))


def test_whoever_is_to_restore_is_told_how_and_what_to_do_without_a_copy() -> None:
    for kind in ("unreadable", "hop_missing", "data_missing", "data_length", "data_hash"):
        assert "list-object-versions" in KINDS[kind].do
        assert "hathi ship --close" in KINDS[kind].do


def test_a_plan_that_is_gone_is_named_once_though_its_retry_names_it_as_parent(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('down', 1)}")
    world.run()
    outs = list((world.top / "bucket").glob("shop/c/*/out"))
    assert len(outs) == 1
    assert len(list((world.top / "bucket").glob("shop/c/*/plan"))) == 2, "the shipment and its retry"
    (outs[0].parent / "plan").unlink()
    missing = [one.where for one in world.look() if one.kind == "hop_missing"]
    assert missing == [f"shop/c/{outs[0].parent.name}/plan"]
