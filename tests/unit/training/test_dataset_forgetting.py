"""A dataset without the examples of whom is forgotten: whole at each instant, its law, who is at work there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import FormatError
from pipeline.ledger.forgetting import Request
from pipeline.ledger.layout import Root
from pipeline.ledger.made import Made, made_of, note_made
from pipeline.operations.forget import made
from pipeline.operations.forget.whose import Pass
from pipeline.operations.verify import verify
from pipeline.process.folder_lock import folder_lock
from pipeline.process.lock import Held
from pipeline.records import item_id_of
from pipeline.stores.store import Lake
from pipeline.training.dataset import database, forgetting, shards
from pipeline.training.dataset.examples import read
from pipeline.training.dataset.manifest import MANIFEST, read_manifest
from tests.simulation.world import World
from tests.unit.test_forget import ask, do, world_with
from tests.unit.training.delivered_sets import deliver
from tests.unit.training.test_dataset_make import NAMES, label_of, labelled, make, pictures

lmdb = pytest.importorskip("lmdb", reason="LEFT OUT: what reads databases: scripts/training.sh installs it")

GONE = NAMES[3]
NUMBER = str(item_id_of(GONE)).encode()
ROOT = Root("features")


def goes(partners: np.ndarray[Any, Any], items: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray((partners == 7) & (items == np.uint64(item_id_of(GONE))))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Forty examples on three sides, and an LMDB of them."""
    folder = tmp_path / "made"
    folder.mkdir()
    names = NAMES[:40]
    deliver(folder, 1, pictures(names))
    labelled(folder / "labels.csv", [(name, label_of(name)) for name in names])
    make(folder, "set")
    forgetting.note_export(folder / "set", folder / "lmdb", folder / "lmdb")
    (folder / "lmdb").mkdir()
    database.write(folder / "lmdb", read(folder / "set"))
    return folder / "set"


def held(folder: Path) -> list[tuple[bytes, bytes]]:
    return [(one.key, one.datum.SerializeToString()) for one in read(folder)]


def test_an_example_goes_from_shards_manifest_and_database_and_all_others_stay(dataset: Path) -> None:
    before, was = held(dataset), read_manifest(dataset)
    went = forgetting.without(dataset, goes)
    assert (went.examples, went.waiting) == (2, [])
    left = [one for one in before if NUMBER not in one[0]]
    assert len(left) == len(before) - 1
    assert held(dataset) == left
    assert held(dataset.parent / "lmdb") == left
    now = read_manifest(dataset)
    assert now.law is not None
    assert (now.law.forgotten, now.law.examples, now.examples) == (1, 39, 39)
    assert sum(now.labels.values()) == sum(now.fingerprints.values()) == 39
    assert sum(side.examples for side in now.sides.values()) == 39
    for name, side in now.sides.items():
        assert sum(side.labels.values()) == side.examples == len(list(shards.read(dataset, name)))
    assert len(now.shards) == len(was.shards)
    assert sorted(path.name for path in dataset.glob("part*")) == sorted(one.name for one in now.shards)
    assert forgetting.without(dataset, goes).examples == 0
    assert read_manifest(dataset) == now


def test_a_dataset_of_nobody_else_is_empty(dataset: Path) -> None:
    assert forgetting.without(dataset, lambda partners, items: partners == 7).examples == 80
    now = read_manifest(dataset)
    assert (now.examples, now.shards, now.labels, held(dataset), held(dataset.parent / "lmdb")) == (0, [], {}, [], [])


class Killed(BaseException):
    pass


def cuts(patch: pytest.MonkeyPatch, number: int, before: bool) -> None:
    """The n-th change of the disk is the last one."""
    left = [number]

    def cut(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if before and left[0] == 0:
                raise Killed
            done = real(*args, **options)
            if left[0] == 0:
                raise Killed
            return done

        return call

    for owner, name in ((os, "replace"), (Path, "unlink"), (forgetting, "_write_without"), (database, "_copy")):
        patch.setattr(owner, name, cut(getattr(owner, name)))


@pytest.mark.parametrize("before", [True, False])
def test_whoever_is_killed_leaves_a_whole_dataset_and_the_next_one_ends_it(
    dataset: Path, before: bool, tmp_path: Path
) -> None:
    template, folder, whole = tmp_path / "template", dataset.parent, held(dataset)
    shutil.copytree(folder, template)
    for at in range(1, 20):
        shutil.rmtree(folder)
        shutil.copytree(template, folder)
        with pytest.MonkeyPatch.context() as patch:
            cuts(patch, at, before)
            try:
                forgetting.without(dataset, goes)
                break
            except Killed:
                pass
        assert held(dataset) in (whole, [one for one in whole if NUMBER not in one[0]]), at
        forgetting.without(dataset, goes)
        named = sorted(dataset / one.name for one in read_manifest(dataset).shards)
        assert sorted(dataset.glob("part*")) == named, at
        assert [one for place in (dataset, folder / "lmdb") for one in held(place) if NUMBER in one[0]] == [], at
        assert not [path for path in (folder / "lmdb").rglob("*") if path.is_file() and NUMBER in path.read_bytes()]
        assert read_manifest(dataset).examples == 39
    else:
        raise AssertionError("it never came to its end")
    assert at > 3


def test_what_is_at_work_is_waited_for_and_what_a_killed_one_left_goes(dataset: Path) -> None:
    with folder_lock(dataset):
        assert "is being written" in forgetting.without(dataset, goes).waiting[0]
    for name, what in (("set", "the dataset"), ("lmdb", "the database")):
        filled = dataset.parent / f".{name}-01234567"
        filled.mkdir()
        with folder_lock(filled):
            went = forgetting.without(dataset, lambda partners, items: partners == 8)
            assert [what in one for one in went.waiting] == [True]
        assert filled.exists()
        forgetting.without(dataset, goes)
        assert not filled.exists()


def test_a_damaged_note_of_exports_is_named(dataset: Path) -> None:
    (dataset / forgetting.EXPORTS).write_text("[1]")
    with pytest.raises(FormatError, match="cannot be read"):
        forgetting.without(dataset, goes)


def test_a_database_that_somebody_brought_is_left_alone(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as into:
        into.put(b"00000001_7_" + NUMBER, b"x")
    forgetting.note_export(tmp_path / "lmdb", tmp_path / "other", tmp_path / "other")
    assert forgetting.without(tmp_path / "lmdb", goes).examples == 0
    assert not (tmp_path / "lmdb" / MANIFEST).exists()


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "world").mkdir()
    return world_with(tmp_path / "world", state=str(tmp_path / "state"))


def lake_of(world: World) -> Lake:
    lake = world.context().lake
    assert lake is not None
    return lake


def test_another_host_that_may_hold_it_is_named_until_it_says_that_it_has_looked(world: World) -> None:
    there = Made(host="trainer-1", path="/data/shoes", kind="dataset")
    key = ROOT.made(there.host, there.path)
    lake_of(world).put(key, there.encode())
    ask(world)
    (outcome,) = do(world)
    assert len(outcome.waiting) == 1
    assert "trainer-1 has a data set that may hold it, /data/shoes" in outcome.waiting[0]
    lake_of(world).put(key, there.model_copy(update={"without": (outcome.request.digest,)}).encode())
    (outcome,) = do(world)
    assert outcome.waiting == ()


def test_a_data_set_here_says_that_it_has_looked_and_one_that_is_gone_is_no_longer_named(
    world: World, dataset: Path
) -> None:
    note_made(lake_of(world), ROOT, "dataset", dataset)
    note_made(lake_of(world), ROOT, "dataset", dataset.parent / "no such one")
    ask(world, GONE)
    ask(world)
    assert [outcome.waiting for outcome in do(world)] == [(), ()]
    assert read_manifest(dataset).examples == 39
    (record,) = made_of(lake_of(world), ROOT)
    assert len(record.body.without) == 2


def test_a_record_that_is_none_is_named_and_nothing_is_touched(world: World) -> None:
    lake_of(world).put(ROOT.made("a", "b"), b'{"format": 1, "host": "a", "path": "../x", "kind": "dataset"}')
    ask(world)
    (outcome,) = do(world)
    assert any("no whole path" in one for one in outcome.waiting)


def test_an_own_list_whose_columns_are_being_kept_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lake_of(world).put(f"{ROOT.own}/config.toml", b"")

    def keeps(*args: object) -> None:
        raise Held("keep runs already", "", "")

    ask(world)
    with monkeypatch.context() as patch:
        patch.setattr(made, "locked", keeps)
        (outcome,) = do(world)
        assert outcome.waiting == ("features/.hathi/kept.parquet is being written",)
    (outcome,) = do(world)
    assert outcome.waiting == ()


def test_an_index_that_is_being_built_is_waited_for(world: World) -> None:
    folder = Path(world.context().settings.state) / made.SIMILAR
    folder.mkdir(parents=True)
    (folder / "a.usearch").write_bytes(b"x")
    one = Pass(world.context(), Request(partner_id=7, at="20991231T000000Z"))
    with folder_lock(folder, shared=True):
        made.indexes(one)
        assert "is being built" in "".join(one.waiting.values())
    made.indexes(one)
    assert list(folder.iterdir()) == []


def test_verify_names_a_data_set_that_is_not_whole(world: World, dataset: Path) -> None:
    note_made(lake_of(world), ROOT, "dataset", dataset)
    forgetting.without(dataset, goes)

    def found(*, deep: bool = True) -> list[tuple[str, str]]:
        return [(one.kind, Path(one.where).name) for one in verify(world.context(), deep=deep) if "data" in one.kind]

    assert found() == []
    first, second, *_ = sorted(dataset.glob("part*"))
    shutil.copy(first, dataset / "part-00009.parquet")
    assert found() == [("dataset_left", "part-00009.parquet")]
    forgetting.without(dataset, goes)
    assert found() == []
    first.write_bytes(first.read_bytes() + b"x")
    second.unlink()
    assert found(deep=False) == [("dataset_damaged", second.name)]
    assert found() == [("dataset_damaged", one.name) for one in sorted((first, second))]
    path = dataset / MANIFEST
    path.write_text(path.read_text().replace('"forgotten": 1', '"forgotten": 2'))
    assert found() == [("dataset_damaged", "set")]
