"""`hathi report` of a training, in a folder and as a job: its numbers are those of metrics.jsonl and of NumPy."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.cli.main import main
from pipeline.codec import caffe_pb2
from pipeline.errors import Diverged
from pipeline.training import job
from pipeline.training.__main__ import main as child
from pipeline.training.job import Wanted
from pipeline.training.predictions.file import read
from tests.unit.test_metrics import figure, parsed
from tests.unit.training.runs import Within, blobs
from tests.unit.training.test_job_commands import CONFIG, context_of

lmdb = pytest.importorskip("lmdb")
pytest.importorskip("torch")

CLASSES, TESTED, BATCH, SIDE = 4, 60, 20, 8
NET = """
name: "patches"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
        transform_param { scale: 0.00390625 mean_value: 100 }
        data_param { source: "train" batch_size: 16 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
        transform_param { scale: 0.00390625 mean_value: 100 }
        data_param { source: "test" batch_size: 20 backend: LMDB } }
layer { name: "one" type: "InnerProduct" bottom: "data" top: "one" param { lr_mult: 1 } param { lr_mult: 2 }
        inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "two" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "two" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt"  base_lr: 0.05  lr_policy: "step"  stepsize: 20  gamma: 0.5  momentum: 0.9  iter_size: 2
test_iter: 3  test_interval: 10  display: 5  average_loss: 3  max_iter: 40  snapshot: 10  snapshot_prefix: "patches"
random_seed: 7
"""


def images(seed: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Grey patches, brighter in the quarter that is their class, with much noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    pixels = rng.integers(0, 200, (count, SIDE, SIDE))
    for one, label in zip(pixels, labels, strict=True):
        half = SIDE // 2
        one[label // 2 * half :, label % 2 * half :][:half, :half] += rng.integers(0, 90, (half, half))
    return pixels.clip(0, 255).astype(np.uint8), labels


def key_of(number: int) -> str:
    return f"{number:05}_<b>{number}</b>.png"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A training with its data; the current folder.  A configuration stands above it."""
    where = tmp_path / "work"
    where.mkdir()
    for name, seed, count in (("train", 1, 200), ("test", 2, TESTED)):
        pixels, labels = images(seed, count)
        with lmdb.open(str(where / name), map_size=1 << 22) as env, env.begin(write=True) as transaction:
            for at, (one, label) in enumerate(zip(pixels, labels, strict=True)):
                datum = caffe_pb2.Datum(channels=1, height=SIDE, width=SIDE, data=one.tobytes(), label=int(label))
                transaction.put(key_of(at).encode(), datum.SerializeToString())
    (where / "net.prototxt").write_text(NET)
    (where / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "hathi.toml").write_text(CONFIG)
    (tmp_path / "bucket").mkdir()
    with Within(where):
        yield where


def numpys(model: Path) -> NDArray[np.float64]:
    """The scores of the test images by the weights of a .caffemodel, in NumPy alone."""
    pixels, _ = images(2, TESTED)
    values = blobs(model)
    flat = (pixels.reshape(TESTED, -1).astype(np.float64) - 100) * 0.00390625
    for layer in ("one", "two"):
        weights = values[layer, 0].astype(np.float64).reshape(12 if layer == "one" else CLASSES, -1)
        flat = flat @ weights.T + values[layer, 1]
    return flat


def matrix_of(page: str) -> list[list[int]]:
    """The cells of the confusion matrix."""
    table = page[page.index('aria-label="Confusion matrix') :].split("</table>")[0]
    return [[int(one) for one in re.findall(r'<td class="n[^"]*">(\d+)</td>', row)]
            for row in table.split("<tbody>")[1].split("</tr>")[:-1]]  # fmt: skip


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_hand(model: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(confusion matrix, the wrong examples with the worst first, losses)."""
    _, labels = images(2, TESTED)
    scores = numpys(model)
    matrix = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(TESTED), labels]
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    return matrix, wrong[np.argsort(-losses[wrong])], losses


def check(page: str, rows: list[dict[str, Any]], model: Path) -> None:
    """The page against the rows of metrics, and the weights that NumPy applies to the images."""
    matrix, worst, losses = by_hand(model)
    assert 0 < len(worst) < TESTED, "there is something to show, and something right"
    assert matrix_of(page) == matrix.tolist()
    last = [row for row in rows if row["kind"] == "test"][-1]
    assert last["step"] == 40
    assert matrix.trace() / TESTED == pytest.approx(last["values"]["test/accuracy"], abs=1e-6)
    assert losses.mean() == pytest.approx(last["values"]["test/loss"], rel=1e-5)
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    assert f"{int(matrix.trace())} right" in text
    best = max(row["values"]["test/accuracy"] for row in rows if row["kind"] == "test")
    assert f"{best:.4f}" in text
    shown = [row for row in rows if row["kind"] == "train"]
    for value in (
        shown[-1]["values"]["train/smoothed"],
        shown[-1]["values"]["grad_norm/one"],
        last["values"]["test/loss"],
    ):
        assert f"{value:.4g}" in text
    keys = re.findall(r"\d{5}_<b>\d+</b>\.png", text)
    assert keys == [key_of(at) for at in worst[:24]], "the worst first; what is in a key stays text"
    assert page.count("data:image/png") == len(worst[:24])
    for heading in ("Loss", "Accuracy", "Learning rate", "Speed", "Waiting for data", "Gradients"):
        assert f"<h3>{heading}</h3>" in page
    assert page.count('<path class="snapshot"') + page.count('<path class="best"') >= 4 * 6


def test_the_page_of_a_folder_has_the_numbers_of_its_metrics_and_of_numpy(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "solver.prototxt", "--until", "25", "--threads", "1"]) == 0
    assert main(["train", "solver.prototxt", "--threads", "1"]) == 0
    capsys.readouterr()
    for where in ("solver.prototxt", "patches", "patches_metrics.jsonl"):
        assert main(["report", "--training", where, "--out", "page.html"]) == 0
        page = Path("page.html").read_text()
        check(page, rows_of(Path("patches_metrics.jsonl")), Path("patches_iter_40.caffemodel"))
    assert "The training is finished: it ended at iteration 40." in page
    assert "<title>attempt 2 goes on from iteration 25</title>" in page
    assert page.count("torch ") == 1
    assert re.search(r'Learned numbers</th><td class="long"><bdi>832<', page), "64 x 12 + 12 + 12 x 4 + 4"


def test_the_page_of_a_job_has_the_same_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--lake", "shop", "--config", str(folder.parent / "hathi.toml")]
    assert main(["train", "solver.prototxt", "--job", "--threads", "1", *at, "--json"]) == 0
    tree = json.loads(capsys.readouterr().out.splitlines()[-1])
    (model,) = (folder.parent / "bucket" / file["key"] for file in tree["model"] if file["name"].endswith("caffemodel"))
    assert main(["train", "log", tree["job"], *at, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["report", tree["job"][:-6], *at, "--out", "-"]) == 0
    page = capsys.readouterr().out
    check(page, rows, model)
    assert f"Training <bdi>{tree['job']}</bdi>" in page
    assert "The training is finished: it ended at iteration 40." in page
    with Within(folder.parent):  # not the folder where it trains: data are not looked at
        assert main(["report", tree["job"], *at, "--out", "there.html"]) == 0
        assert "make the page in the folder where it trains" in Path("there.html").read_text()


def test_what_the_report_is_made_of_changes_no_digit_of_the_training(folder: Path) -> None:
    def weights(prefix: str, predictions: bool, display: int) -> dict[tuple[str, int], NDArray[np.float32]]:
        Path("s.prototxt").write_text(
            SOLVER.replace('"patches"', f'"{prefix}"').replace("display: 5", f"display: {display}")
        )
        out = job.by_prefix(lambda line: None, lambda solver, shown: None, lambda row: None)
        job.train(Wanted(Path("s.prototxt")), replace(out, predictions=predictions, attempts=predictions))
        return blobs(Path(f"{prefix}_iter_40.caffemodel"))

    with_all, without = weights("a", True, 1), weights("b", False, 0)
    assert not Path("b_predictions.parquet").exists()
    for name, values in with_all.items():
        np.testing.assert_array_equal(values, without[name])


def test_norms_of_layers_are_those_of_their_gradients_and_of_all_together(folder: Path) -> None:
    from hathi import training

    Path("s.prototxt").write_text(SOLVER + "clip_gradients: 1000")
    rows: list[Mapping[str, Any]] = []
    with training.load("s.prototxt", rows=rows.append, threads=1) as solver:
        squares: list[dict[str, float]] = []

        def note() -> None:
            squares.append({layer: sum(float(np.square(blob.diff, dtype=np.float64).sum()) for blob in blobs_)
                            for layer, blobs_ in solver.net.params.items()})  # fmt: skip

        solver.add_callback(lambda: None, note)
        solver.step(6)
    shown = [row for row in rows if row["kind"] == "train"]
    assert [row["step"] for row in shown] == [0, 5]
    for row in shown:
        layers = {name: row["values"][f"grad_norm/{name}"] for name in ("one", "two")}
        for name, norm in layers.items():
            assert norm == pytest.approx(squares[row["step"]][name] ** 0.5, rel=1e-5)
        assert row["values"]["grad_norm"] == pytest.approx(sum(one**2 for one in layers.values()) ** 0.5, rel=1e-5)


def test_a_training_that_diverged_or_was_killed_says_so_on_its_page(folder: Path) -> None:
    Path("solver.prototxt").write_text(SOLVER.replace("base_lr: 0.05", "base_lr: 1e30"))
    out = job.by_prefix(lambda line: None, lambda solver, shown: None, lambda row: None)
    with pytest.raises(Diverged) as raised:
        job.train(Wanted(Path("solver.prototxt")), out)
    assert main(["report", "--training", "solver.prototxt"]) == 0
    page = unescape(re.sub(r"<[^>]+>", "", Path("hathi-patches.html").read_text()))
    assert "The training has diverged" in page
    assert raised.value.message in page
    attempts = Path("patches_attempts.jsonl")
    assert [json.loads(line)["kind"] for line in attempts.read_text().splitlines()] == ["start", "end"]
    attempts.write_text(attempts.read_text().splitlines()[0] + '\n{"kind": "sta')
    assert main(["report", "--training", "solver.prototxt"]) == 0
    assert "has written no end yet" in Path("hathi-patches.html").read_text()


def test_a_job_that_diverges_keeps_its_last_test_for_the_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("solver.prototxt").write_text(SOLVER.replace("base_lr: 0.05", "base_lr: 1e30"))
    at = ["--lake", "shop", "--config", str(folder.parent / "hathi.toml")]
    assert main(["train", "solver.prototxt", "--job", "--threads", "1", *at]) == 3
    (name,) = (path.name for path in (folder.parent / "bucket" / "shop" / "j").iterdir())
    capsys.readouterr()
    assert main(["report", name, *at, "--out", "-"]) == 0
    page = capsys.readouterr().out
    assert "The training has failed" in page
    assert "is not finite" in page
    assert "The test of iteration 0 judged 60 examples" in page
    assert context_of(folder.parent / "hathi.toml").lake_name == "shop"


@pytest.mark.parametrize("kind", ["ImageData", "HDF5Data", "no test net", "no classes"])
def test_other_data_layers_have_pictures_too_and_other_nets_say_why_not(folder: Path, kind: str) -> None:
    test = NET[NET.index('layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }') :]
    test = test[: test.index('layer { name: "one"')]
    net, solver = NET, SOLVER
    pixels, labels = images(2, TESTED)
    if kind == "ImageData":
        lines = []
        for at, (one, label) in enumerate(zip(pixels, labels, strict=True)):
            cv2.imwrite(f"{at}.png", one)
            lines.append(f"{at}.png {label}\n")
        Path("list.txt").write_text("".join(lines))
        net = NET.replace(
            test,
            """layer { name: "data" type: "ImageData" top: "data" top: "label"
            include { phase: TEST } transform_param { scale: 0.00390625 mean_value: 100 }
            image_data_param { source: "list.txt" batch_size: 20 is_color: false } }""",
        )
    elif kind == "HDF5Data":
        h5py = pytest.importorskip("h5py")
        with h5py.File("test.h5", "w") as file:
            file["data"] = (pixels[:, None].astype(np.float32) - 100) * 0.00390625
            file["label"] = labels.astype(np.float32)
        Path("test.txt").write_text("test.h5\n")
        net = NET.replace(
            test,
            """layer { name: "data" type: "HDF5Data" top: "data" top: "label"
            include { phase: TEST } hdf5_data_param { source: "test.txt" batch_size: 20 } }""",
        )
    elif kind == "no test net":
        solver = re.sub(r"test_iter: 3  test_interval: 10", "", SOLVER)
    else:
        net = (
            re.sub(r'layer \{ name: "accuracy".*\n.*', "", NET)
            + """
            layer { name: "three" type: "InnerProduct" bottom: "one" top: "three"
                    inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
            layer { name: "loss" type: "EuclideanLoss" bottom: "three" bottom: "label" top: "loss" }"""
        )
        solver = SOLVER.replace("base_lr: 0.05", "base_lr: 0.0001")
    Path("net.prototxt").write_text(net)
    Path("solver.prototxt").write_text(solver)
    assert main(["train", "solver.prototxt", "--threads", "1"]) == 0
    assert main(["report", "--training", "solver.prototxt", "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    if kind == "no test net":
        assert "The solver has no test net" in page
    elif kind == "no classes":
        assert "has no SoftmaxWithLoss and no Accuracy layer" in page
    else:
        matrix, worst, _ = by_hand(Path("patches_iter_40.caffemodel"))
        assert matrix_of(page) == matrix.tolist()
        key = "{}.png" if kind == "ImageData" else "test.h5[{}]"
        assert all(key.format(at) in page for at in worst[:24])
        assert page.count("data:image/png") == len(worst[:24])
        found = read(Path("patches_predictions.parquet").read_bytes(), "it")
        row = int(worst[0])
        shown = cv2.imdecode(np.frombuffer(found.pictures[row], np.uint8), cv2.IMREAD_UNCHANGED).astype(float)
        assert np.corrcoef(shown.ravel(), pixels[row].ravel())[0, 1] > 0.999


def test_the_folder_of_a_child_has_a_page_too(folder: Path) -> None:
    spec = {"solver": str(folder / "solver.prototxt"), "folder": str(folder), "threads": 1}
    (folder / "spec.json").write_text(json.dumps(spec))
    assert child(["run", "spec.json", "out"]) == 0
    assert main(["report", "--training", "out", "--out", "page.html"]) == 0
    page = Path("page.html").read_text()
    check(page, rows_of(Path("out/metrics.jsonl")), Path("out/snapshots/40/net.caffemodel"))
    assert "The training is finished: it ended at iteration 40." in page
    assert "name its .prototxt in place of the prefix" in page
    Path("out/model.json").unlink()
    assert main(["report", "--training", "out", "--out", "page.html"]) == 0
    assert "the child has written no model.json" in Path("page.html").read_text()


def test_what_is_no_training_is_refused_by_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--training", "nothing"]) == 2
    assert "no training is at nothing" in capsys.readouterr().err
    at = ["--config", str(folder.parent / "hathi.toml")]
    assert main(["report", "lenet-0123456789ab", *at]) == 2
    assert "no training lenet-0123456789ab" in capsys.readouterr().err
    assert main(["report", "today", "--training", "patches", *at]) == 2
    assert not list(Path().glob("*.html"))


def test_attempts_that_cannot_be_written_do_not_end_a_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("patches_attempts.jsonl").mkdir()
    Path("patches_predictions.parquet").mkdir()
    Path(".patches_predictions.parquet.0123456789abcdef").write_text("left by a kill")
    assert main(["train", "solver.prototxt", "--threads", "1"]) == 0
    said = capsys.readouterr().err
    assert "patches_attempts.jsonl cannot be written: Is a directory" in said
    assert "patches_predictions.parquet cannot be written: Is a directory" in said
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("as_job", [False, True], ids=["folder", "job"])
def test_a_training_with_a_configuration_writes_its_figures_for_prometheus(folder: Path, as_job: bool) -> None:
    config = folder.parent / "hathi.toml"
    path = folder.parent / "hathi.prom"
    config.write_text(CONFIG.replace("bucket.url", f'metrics.file = "{path}"\nbucket.url'))
    at = ["--config", str(config), *(["--job", "--lake", "shop"] if as_job else [])]
    if not as_job:
        assert main(["train", "solver.prototxt", "--threads", "1", "--until", "25", *at]) == 0
    assert main(["train", "solver.prototxt", "--threads", "1", *at]) == 0
    name = str(folder / "patches")
    if as_job:
        (name,) = (one.name for one in (folder.parent / "bucket" / "shop" / "j").iterdir())
    found = parsed(path.read_text())
    for what, value in (("iteration", 40), ("max_iterations", 40), ("attempts", 1 if as_job else 2)):
        assert figure(found, f"hathi_training_{what}", training=name) == value
    if not as_job:
        matrix, _, losses = by_hand(Path("patches_iter_40.caffemodel"))
        for output, value in (("accuracy", matrix.trace() / TESTED), ("loss", losses.mean())):
            said = figure(found, "hathi_training_test_output", training=name, net="test", output=output)
            assert said == pytest.approx(value, rel=1e-5)
    assert figure(found, "hathi_training_learning_rate", training=name) == pytest.approx(0.025)
    assert 0 <= figure(found, "hathi_training_waiting_ratio", training=name) <= 1
    assert figure(found, "hathi_training_examples_per_second", training=name) > 0
    age = time.time() - figure(found, "hathi_training_snapshot_timestamp_seconds", training=name)
    assert 0 <= age < 600
    loss = figure(found, "hathi_training_loss", training=name)
    assert loss == pytest.approx(
        figure(found, "hathi_training_test_output", training=name, net="test", output="loss"), 0.5
    )
