"""Shards of examples that meet: who reads what, whose sum it is, and that nobody decides a bit of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipeline.cli.main import main
from pipeline.errors import ConfigError, Diverged, PipelineError
from pipeline.stores.local import LocalStore
from pipeline.training import tree
from pipeline.training.descent import pieces, saving
from pipeline.training.descent import synchronous as together
from pipeline.training.descent.descent import Pass, Trained, Wanted
from pipeline.training.descent.gathering import NAMED
from pipeline.training.descent.losses import Loss
from pipeline.training.descent.optimum import optimum
from pipeline.training.descent.shard import Place
from pipeline.training.descent.synchronous import Act, Cluster, Here, R
from tests.unit.training.made_sets import clouds, made
from tests.unit.training.sparse_sets import like_rcv1, write


class Tasks:
    """As a cluster of so many tasks: each sums its block of the tree, and blocks come in any order."""

    def __init__(self, plan: pieces.Plan, folder: Path, count: int) -> None:
        self._shards, self._count, self._folder, self._plan = len(plan.shards), count, folder, plan

    def each(self, act: Act[R], shards: Sequence[int]) -> list[R]:
        return [act(Place(self._folder / str(shard % self._count), self._plan), shard) for shard in shards]

    def total(self, act: Act[tree.Arrays]) -> tree.Arrays:
        parts = {}
        for number, block in reversed(list(enumerate(tree.blocks(self._shards, self._count)))):
            place = Place(self._folder / str(number), self._plan)
            parts[block] = tree.total(block, lambda shard, place=place: act(place, shard))  # type: ignore[misc]
        tree.join(self._shards, parts)
        return parts[range(self._shards)]


def trained(cluster: Cluster, plan: pieces.Plan, wanted: Wanted, steps: int = 0, told: Any = lambda _: None) -> Trained:
    return together.train(cluster, together.look(cluster, plan, "a set", wanted.held), wanted, steps, told)


def sparse_table(path: Path, count: int, rows: int) -> Path:
    """Sorted by label, as Parquet with row groups of so many rows."""
    draws = np.random.default_rng(0)
    columns = [np.sort(draws.choice(50, 6, replace=False)).tolist() for _ in range(count)]
    values = draws.normal(size=(count, 6)).tolist()
    labels = [int(at >= count // 2) for at in range(count)]
    pq.write_table(pa.table({"label": labels, "indices": columns, "values": values}), path, row_group_size=rows)
    return path


def dense_table(path: Path, count: int, rows: int) -> Path:
    values, labels = clouds(count, 9, 3)
    order = np.argsort(labels, kind="stable")
    listed = pa.FixedSizeListArray.from_arrays(pa.array(values[order].astype(np.float32).ravel()), 9)
    pq.write_table(pa.table({"label": np.array(labels)[order], "features": listed}), path, row_group_size=rows)
    return path


def text(path: Path) -> Path:
    return write(path, like_rcv1(900, 200, 10))


def long_text(path: Path) -> Path:
    """So long that it is cut at lines."""
    return write(path, like_rcv1(24_000, 2000, 30))


def packed(path: Path) -> Path:
    path.write_bytes(gzip.compress(text(path).read_bytes()))
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "text": text, "gzip": packed,
    "sparse, few row groups": lambda path: sparse_table(path, 600, 600),
    "sparse, many row groups": lambda path: sparse_table(path, 600, 10),
    "dense": lambda path: dense_table(path, 600, 100),
}  # fmt: skip


def contents(place: Place, shard: int) -> list[tuple[Any, ...]]:
    """Of each example of a shard its label and its numbers."""
    with place.opened(shard) as found:
        if place.plan.dense:
            block = [one.rows.copy() for one in found.blocks(range(found.count))]
            return [(int(label), row.tobytes()) for label, row in zip(found.label, np.concatenate(block), strict=True)]
        rows = found.rows
        return [
            (int(rows.label[at]), rows.columns[begin:end].tobytes(), rows.value[begin:end].tobytes())
            for at, (begin, end) in enumerate(zip(rows.start[:-1], rows.start[1:], strict=True))
        ]


@pytest.mark.parametrize("form", [*FORMS, "long text"])
def test_each_example_is_in_one_shard_and_each_shard_has_of_each_class(form: str, tmp_path: Path) -> None:
    path = (FORMS | {"long text": long_text})[form](tmp_path / "a.data")
    whole = pieces.plan(str(path), 1, None, 0)
    plan = pieces.plan(str(path), 4, None, 5)
    assert (form in ("sparse, many row groups", "long text")) == all(
        one.parts == 1 for own in plan.shards for one in own
    )
    one = contents(Place(tmp_path / "one", whole), 0)
    dealt = [contents(Place(tmp_path / "four", plan), shard) for shard in range(4)]
    assert sorted(one) == sorted(one for own in dealt for one in own)
    share = {label: sum(one[0] == label for one in dealt[0]) for label in {one[0] for one in one}}
    assert min(share.values()) > len(dealt[0]) / len(share) / 4, "a set that is sorted by label is mixed"
    assert pieces.plan(str(path), 4, None, 5) == plan
    if "few" not in form and form not in ("text", "gzip", "dense"):
        assert pieces.plan(str(path), 4, None, 6).shards != plan.shards


@pytest.mark.parametrize("form", FORMS)
def test_a_number_of_tasks_decides_no_bit(form: str, tmp_path: Path) -> None:
    plan = pieces.plan(str(FORMS[form](tmp_path / "a.data")), 8, None, 0)
    wanted = Wanted(Loss.LOGISTIC, 1e-3, passes=3, rate=0.5, held=0.2)
    alone = trained(Here(plan, tmp_path / "here"), plan, wanted, 20)
    assert np.abs(alone.weights).max() > 0.01
    for count in (1, 2, 3, 4, 8):
        found = trained(Tasks(plan, tmp_path / f"{count}", count), plan, wanted, 20)
        assert np.array_equal(found.weights, alone.weights)
        assert np.array_equal(found.bias, alone.bias)
        assert [one._replace(seconds=0, processor=0) for one in found.passes] == [
            one._replace(seconds=0, processor=0) for one in alone.passes
        ]
        assert (found.objective, found.right, found.held_right) == (alone.objective, alone.right, alone.held_right)


@pytest.mark.parametrize("loss", list(Loss))
def test_who_waits_comes_to_the_optimum_and_more_meetings_come_nearer(loss: Loss, tmp_path: Path) -> None:
    """The bound is that of twenty passes by one process, 1.01, at ten times as many: four shards take a quarter of
    the steps that one process takes."""
    examples = like_rcv1(3000, 1500, 30)
    plan = pieces.plan(str(write(tmp_path / "a.svm", examples)), 4, None, 0)
    best = optimum(examples, loss, 1e-3, near=2e-4)
    here = Here(plan, tmp_path / "shards")
    seen = together.look(here, plan, "a set", 0.0)
    assert (seen.count, seen.dim, seen.labels.classes) == (3000, examples.dim + 1, (-1, 1))
    found = together.train(here, seen, Wanted(loss, 1e-3, passes=200), 200)
    assert best.bound * (1 - 1e-6) <= found.objective <= 1.01 * best.objective
    few, many = (together.train(here, seen, Wanted(loss, 1e-3, passes=5), steps).objective for steps in (0, 25))
    assert many < few


def test_after_one_step_a_move_is_the_sum_of_the_shards_divided_by_those_that_have_the_coordinate(
    tmp_path: Path,
) -> None:
    """By NumPy: four examples, one a shard, hinge from weights of 0: each pulls by rate * y * x, then shrinks."""
    (tmp_path / "a.svm").write_text("1 1:1 2:2\n-1 1:3\n1 1:1 3:1\n-1 4:2\n")
    plan = pieces.plan(str(tmp_path / "a.svm"), 4, None, 0)
    wanted = Wanted(Loss.HINGE, 0.1, passes=1, rate=0.5, bias=False)
    found = trained(Here(plan, tmp_path / "s"), plan, wanted, 1)
    have = np.array([3, 1, 1, 1])
    values = np.array([[1, 2, 0, 0], [-3, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, -2]])
    moved = (0.5 * values / (1 + 0.5 * 0.1 * 4 / have)).sum(0) / have
    assert found.weights[0, 1:] == pytest.approx(moved, rel=1e-6)
    assert found.passes[0].loss == 1.0


def test_a_bad_line_is_named_by_its_number_in_the_whole_file_and_once(tmp_path: Path) -> None:
    lines = long_text(tmp_path / "a.svm").read_text().splitlines()
    bad = [3, 7001, 15_000, 23_990, *range(100, 100 + NAMED + 2)]
    for at in bad:
        lines[at] = "1 5:nan"
    (tmp_path / "a.svm").write_text("\n".join(lines) + "\n")
    small = tmp_path / "b.svm"
    small.write_text("1 1:1\n-1 2:1\nno\n1 3:1\n-1 1:1\n" * 4)
    for path, numbers, shards in ((tmp_path / "a.svm", bad, 4), (small, [2, 7, 12, 17], 2)):
        plan = pieces.plan(str(path), shards, None, 0)
        seen = together.look(Here(plan, tmp_path / f"{path.name}-s"), plan, str(path), 0.0)
        assert seen.left_out.count == len(numbers)
        assert seen.count == len(path.read_text().splitlines()) - len(numbers)
        named = [one.at.number - 1 for one in seen.left_out.said]
        assert len(named) == min(len(numbers), NAMED) == len(set(named))
        assert set(named) <= set(numbers)


def test_an_early_stop_keeps_the_weights_of_the_best_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(700, 3000, 20))
    plan = pieces.plan(str(path), 2, None, 0)
    told: list[Pass] = []
    wanted = Wanted(Loss.HINGE, 1e-6, passes=60, rate=4.0, decay=1.0, held=0.3, bias=False)
    found = trained(Here(plan, tmp_path / "s"), plan, wanted, 0, told.append)
    assert len(told) == found.best + 3 < 60
    assert found.best == int(np.argmin([float(one.validation or 0.0) for one in told])) + 1
    again = trained(Here(plan, tmp_path / "s"), plan, replace(wanted, passes=found.best))
    assert np.array_equal(found.weights, again.weights)


def test_files_of_a_lake_are_read_through_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lake"
    folder.mkdir()
    sparse_table(folder / "a.parquet", 60, 10)
    sparse_table(folder / "b.parquet", 60, 10)
    monkeypatch.setattr(pieces, "open_place", lambda url, _: LocalStore(folder, fsync=False))
    plan = pieces.plan("hdfs://lake:9870/rows", 2, None, 0)
    assert plan.files == ("a.parquet", "b.parquet")
    seen = together.look(Here(plan, tmp_path / "s"), plan, "hdfs://lake:9870/rows", 0.0)
    assert seen.count == 120


def test_the_command_trains_on_shards_and_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(600, 100, 8))
    given = ["--on", "here", "--shards", "3", "--local-steps", "50", "--passes", "4", "--early-stop", "0.2"]
    assert main(["train", "linear", str(path), str(tmp_path / "out"), *given]) == 0
    said = capsys.readouterr().out
    assert "3 shards in this process; they meet after 50 of their steps" in said
    assert "pass 4 of 4: loss" in said
    about = json.loads((tmp_path / "out" / saving.ABOUT).read_text())
    assert about["shards"] == {"count": 3, "local_steps": 50}
    assert about["examples"] == 600
    assert {one.name for one in tmp_path.iterdir()} == {"a.svm", "out"}, "shards are gone"
    values, labels = clouds(300, 12, 3)
    folder = made(tmp_path / "set", {"train": (values[:200], labels[:200]), "test": (values[200:], labels[200:])})
    assert main(["train", "linear", str(folder), str(tmp_path / "net"), "--on", "here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 200, "its side train alone"
    assert (tmp_path / "net" / "deploy.prototxt").is_file()


@pytest.mark.parametrize(
    ("content", "given", "says"),
    [
        ("1 1:1\n1 2:1\n1 3:1\n", ["--shards", "2"], "has one class only"),
        ("1 1:1\n-1 2:1\n", ["--shards", "3"], "holds no example that counts"),
        ("1 1:1\n-1 2:1\n" * 3, ["--shards", "3", "--early-stop", "0.9"], "no example but those that are held out"),
        ("1 1:1\n-1 2:1\n" * 9, ["--early-stop", "nan"], "--early-stop nan is not allowed"),
        ("1 1:1\n-1 2:1\n" * 9, ["--lock", "none"], "--on takes no --lock"),
        ("1 1:1\n-1 2:1\n" * 9, ["--workers", "2"], "--on takes no --workers"),
        ("1 1:1\n-1 2:1\n" * 9, ["--dry-run"], "--dry-run prints a pod"),
        ("1 1:1\n-1 2:1\n" * 9, ["--executors", "2"], "--executors is of --on spark"),
        ("1 1:1\n-1 2:1\n" * 9, ["--on", "mars"], "--on mars is no place to train"),
        ("1 1:1\n-1 2:1\n" * 9, ["--on", "here=x"], "--on here=x is no place to train"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(
    content: str, given: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.svm").write_text(content)
    assert main(["train", "linear", str(tmp_path / "a.svm"), str(tmp_path / "out"), "--on", "here", *given]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_no_shard_reads_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    with pytest.raises(ConfigError, match=r"a\.npy is a file of NumPy's"):
        pieces.plan(str(tmp_path / "a.npy"), 2, None, 0)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    text(mixed / "a.svm")
    sparse_table(mixed / "b.parquet", 60, 10)
    with pytest.raises(ConfigError, match="holds files of several kinds"):
        pieces.plan(str(mixed), 2, None, 0)
    with pytest.raises(PipelineError, match="is not there"):
        pieces.plan(str(tmp_path / "none"), 2, None, 0)


def test_a_rate_that_is_far_too_large_is_named(tmp_path: Path) -> None:
    plan = pieces.plan(str(text(tmp_path / "a.svm")), 2, None, 0)
    with pytest.raises(Diverged, match="after pass 1"):
        trained(Here(plan, tmp_path / "s"), plan, Wanted(Loss.SQUARED_HINGE, 1e-9, rate=1e30))


@pytest.mark.parametrize(
    ("words", "given", "says"),
    [
        (["/d", "/o"], [], "needs a container image"),
        (["/d"], ["--image", "i"], "a pod needs data and a folder to make"),
        (["d", "/o"], ["--image", "i"], "d is no place that a pod knows"),
        (["/d", "/o"], ["--image", "i", "--net", "a.prototxt"], "--net and --like are files of this host"),
        (["/d", "/o"], ["--image", "i", "--spark-conf", "x"], "--spark-conf x has no value"),
    ],
)
def test_what_no_pod_can_do_is_refused_by_name(
    words: list[str], given: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli.train_shards.importlib.util.find_spec", lambda name: object())
    on = ["--on", "spark=k8s://https://cluster:6443", "--dry-run"]
    assert main(["train", "linear", *words, *on, *given]) == 2
    assert says in capsys.readouterr().err
