"""Whoever publishes says what it computed with: children, executors and workers that load a set later than others."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.cli import worker
from pipeline.cli.wiring import pool
from pipeline.clock import Clock
from pipeline.cluster import task as executor
from pipeline.cluster.worker_pool import Slot
from pipeline.errors import NetError
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.extraction.window import Opened
from pipeline.ledger.layout import AGGREGATE, ShipmentName
from pipeline.ledger.protocol import claim, state_of
from pipeline.ledger.state import Counted
from pipeline.nets.caffe.caffemodel import read_index
from pipeline.records import ImageRef
from pipeline.settings import Settings, load, travelling
from pipeline.stages.aggregate import Aggregated, AggregateTask, Origin
from pipeline.stages.following import Asked
from pipeline.stages.opening import BatchTask
from pipeline.stages.performer import Merging
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row

NET = ROOT / "sample" / "random_features.prototxt"
ALL = ImageRef(7, 1, "a", "", picture(1), 0)


def other_weights(path: Path) -> None:
    """Another training: the same shapes, other numbers."""
    content = bytearray(path.read_bytes())
    for layer in read_index(path).layers:
        for blob in layer.blobs:
            for at, size in blob.pieces:
                numbers = np.frombuffer(bytes(content[at : at + size]), "<f4") * np.float32(-1.5)
                content[at : at + size] = numbers.astype("<f4").tobytes()
    path.with_suffix(".new").write_bytes(content)
    os.replace(path.with_suffix(".new"), path)


def torn(path: Path) -> None:
    """As a copy looks that is not done yet."""
    path.write_bytes(path.read_bytes()[:-1000])


def cut_between_layers(path: Path) -> None:
    """A copy that happens to be cut where a layer ends: what is there is sound, and something is missing."""
    last = read_index(path).layers[-1]
    begin = last.blobs[0].pieces[0][0]
    content = path.read_bytes()
    for size in range(begin, 0, -1):
        path.write_bytes(content[:size])
        try:
            if len(read_index(path).layers) == 1:
                return
        except NetError:
            continue


@dataclass
class Box:
    """A lake of six images in two batches, shipped already."""

    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / "w.caffemodel"

    @property
    def settings(self) -> Settings:
        return load(self.folder / "hathi.toml", os.environ)

    def hathi(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.folder / "hathi.toml")]
        return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, check=False)

    @property
    def results(self) -> list[Path]:
        return sorted((self.folder / "bucket" / "shop" / "c").glob("*/*/r/*"))


def make(folder: Path, sets: str = "") -> Box:
    (folder / "lake" / "refs").mkdir(parents=True)
    refs = "".join(f"{row(f'i{number}', picture(number))}\n" for number in range(6))
    (folder / "lake" / "refs" / "a.jsonl").write_text(refs)
    random_features.write(folder / "w.caffemodel")
    (folder / "hathi.toml").write_text(f'''
state = "state"
bucket = {{ url = "bucket", fsync = false }}
logs.folder = "logs"
ship.batch_refs = 3
compute.free_bytes = 0
[lakes.shop]
url = "lake"
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "{NET}"
weights = "w.caffemodel"
blob = "features"
root = "features"
{sets}''')
    return Box(folder)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return make(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_weights, r"set demo: the net's files changed while it was in use .* restart"),
        (torn, r"truncated"),
        (cut_between_layers, r"lack layers that set demo needs.*still being copied"),
        (Path.unlink, r"cannot be read"),
    ],
)
def test_a_child_that_gets_another_net_computes_nothing_and_no_item_is_to_blame(
    box: Box, change: Callable[[Path], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = FeatureMaker(box.settings, "demo", Clock())

    def by_window() -> list[bytes]:
        done = maker.window({"g": [[ALL]]}, lambda refs: Opened(refs, refs), lambda: True)
        return [one.matrix.tobytes() for one in done if one]

    before = by_window()
    assert [maker.alone("batch", [ALL]).matrix.tobytes()] == before
    change(box.weights)
    started: list[Any] = []
    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **more: started.append(given) or real(*given, **more))
    with pytest.raises(NetError, match=says):
        maker.alone("batch", [ALL, ALL])
    assert len(started) == 1, "it is not halved"
    assert by_window() == before, "what is loaded stays what it was"


def test_an_executor_that_gets_another_net_publishes_nothing(box: Box) -> None:
    assert box.hathi("run", "ship").returncode == 0
    carried = travelling(box.settings)
    executor._loaded.cache_clear()
    drivers = executor.look(carried, "demo", "")
    assert isinstance(drivers, executor.Loaded)
    name = ShipmentName.parse(next((box.folder / "bucket" / "shop" / "c").iterdir()).name)

    numbers = itertools.count(1)

    def work(batch: int, fingerprint: str) -> executor.Worked:
        task = BatchTask(name, batch, "demo", fingerprint, next(numbers), "open", Counted(1, False))
        return executor.work(executor.Share(carried, "shop", "demo", (task,), 60.0), "", again=False)

    assert work(0, drivers.fingerprint).error is None
    other_weights(box.weights)
    assert work(1, drivers.fingerprint).error is None, "it computes with what it has loaded"
    shutil.rmtree(box.results[1].parent)
    executor._loaded.cache_clear()  # as in an executor that starts now
    refused = work(1, drivers.fingerprint)
    assert isinstance(refused.error, NetError)
    assert (refused.published, box.results) == ((), [])
    executor._loaded.cache_clear()
    another = executor.look(carried, "demo", "")
    assert isinstance(another, executor.Loaded)
    random_features.write(box.weights)
    assert work(1, drivers.fingerprint).error is None, "an executor with an old net loads the one that is asked for"
    assert [json.loads(path.read_text())["fingerprint"] for path in box.results] == [drivers.fingerprint]


def test_a_worker_that_gets_another_net_than_those_before_it_ends_the_run(tmp_path: Path) -> None:
    class Served:
        fingerprint = "b" * 64

    told: list[dict[str, Any]] = []
    with pytest.raises(NetError, match="changed while it was in use"):
        worker._agreed(lambda *asked: Served(), {"demo": "a" * 64}, told.append)(Asked("demo"), None)  # type: ignore[arg-type, return-value]
    assert told == []
    assert worker._agreed(lambda *asked: Served(), {}, told.append)(Asked("demo"), None).fingerprint == "b" * 64  # type: ignore[arg-type, return-value]
    assert told == [{"loaded": ["demo", "b" * 64]}]


def test_of_two_workers_that_load_two_nets_at_the_same_time_one_ends(tmp_path: Path, box: Box) -> None:
    class Heard:
        failed = None
        ended = False

        def end(self) -> None:
            self.ended = True

    pooled = pool.PooledStages(box.settings, ["compute"], "compute", [Slot(0, (0,)), Slot(1, (0,))], [])
    first, second = Heard(), Heard()
    pooled._hear(first, {"loaded": ["demo", "a" * 64]})  # type: ignore[arg-type]
    pooled._hear(second, {"loaded": ["demo", "b" * 64]})  # type: ignore[arg-type]
    assert (first.ended, first.failed) == (False, None)
    assert second.ended
    assert "the net's files changed" in str(second.failed)
    instructions = pool.instructions_for(Slot(1, (0,)), box.settings, ["compute"], "compute", pooled._loaded)
    assert instructions["loaded"] == {"demo": "a" * 64}, "who is started next is told"


def test_a_set_whose_weights_are_half_copied_stops_no_other_and_no_batch_has_a_strike(tmp_path: Path) -> None:
    box = make(tmp_path, f'[sets.other]\nnet = "{NET}"\nweights = "o.caffemodel"\nblob = "features"\nroot = "other"\n')
    shutil.copyfile(box.weights, tmp_path / "o.caffemodel")
    torn(tmp_path / "o.caffemodel")
    done = box.hathi("run", "--once")
    assert done.returncode == 1, done.stderr
    assert "this host cannot compute set other: the weights" in done.stderr
    assert "truncated" in done.stderr
    assert len(list((tmp_path / "lake" / "features").glob("*T*/*/features/*.parquet"))) == 1
    assert not list((tmp_path / "bucket").rglob("*.x"))
    random_features.write(tmp_path / "o.caffemodel")
    again = box.hathi("run", "--once")
    assert again.returncode == 0, again.stderr
    (file,) = (tmp_path / "lake" / "other").glob("*T*/*/features/*.parquet")
    assert pq.read_table(file).num_rows == 6


def test_the_only_set_that_cannot_be_loaded_is_the_runs_own_error(box: Box) -> None:
    cut_between_layers(box.weights)
    done = box.hathi("run", "--once")
    assert done.returncode == 2
    assert "lack layers that set demo needs" in done.stderr
    assert not list((box.folder / "bucket").rglob("*.x"))


def test_a_second_try_at_a_merge_does_not_leave_it_to_the_first(box: Box) -> None:
    """Spark takes what ends first for the result, and ends the other: `somebody else is at it` is none."""
    assert box.hathi("run", "ship", "compute").returncode == 0
    carried, said = travelling(box.settings), list[str]()
    drivers = executor.look(carried, "demo", "")
    assert isinstance(drivers, executor.Loaded)
    name = ShipmentName.parse(next((box.folder / "bucket" / "shop" / "c").iterdir()).name)
    with executor._context(box.settings, "shop", said) as first:
        task = AggregateTask(state_of(first, name), drivers.fingerprint[:12], 1)
        merging = Merging(task, "demo", Origin(drivers.fingerprint, drivers.engine, ""))
        assert claim(first, name, AGGREGATE, 1), "the first is at it, and alive"
        (_, found), _ = executor.merge(carried, "shop", merging)
        assert found is None
        (_, found), _ = executor.merge(carried, "shop", merging, again=True)
        assert isinstance(found, Aggregated)
        assert found.won
        (_, found), _ = executor.merge(carried, "shop", merging, again=True)
        assert found is None, "it has its result"
