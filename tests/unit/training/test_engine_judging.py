"""hathi evaluate gives the figures of training's own test pass: to a few digits less on another engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli.main import main
from tests.unit.training.databases import GOLDEN

pytest.importorskip("lmdb")
RUNS = GOLDEN / "solver_runs"
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 28 dim: 28 } } }'
SERVES = ["preprocess.mean=127,126,125", "preprocess.input_scale=0.015625", "preprocess.resize=crop",
          "preprocess.resize_to=32", "preprocess.reduced_decode=false"]  # fmt: skip


@pytest.mark.parametrize("engine", ["torch", "auto"])
def test_the_figures_are_those_of_trainings_own_test_pass(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (RUNS / "stream_lmdb.net.prototxt").read_text()
    text = text.replace('mean_file: "mean.binaryproto"', "mean_value: 127 mean_value: 126 mean_value: 125")
    (tmp_path / "net.prototxt").write_text(text.replace('"test_lmdb"', f'"{RUNS / "test_lmdb"}"'))
    lines = [one for one in text.splitlines() if not any(kind in one for kind in ("Data", "Accuracy", "WithLoss"))]
    (tmp_path / "deploy.prototxt").write_text("\n".join([lines[0], INPUT, *lines[1:]]))
    weights = str(RUNS / "stream_lmdb_iter_60.caffemodel")
    words = ["evaluate", "--net", str(tmp_path / "deploy.prototxt"), "--weights", weights, "--engine", engine,
             "--dataset", str(RUNS / "test_lmdb"), "--json"]  # fmt: skip
    assert main([*words, *(word for one in SERVES for word in ("--set", one))]) == 0
    told = json.loads(capsys.readouterr().out)
    iterations, rest = divmod(told["examples"], 20)
    assert (rest, iterations > 1) == (0, True)
    given = [str(tmp_path / "net.prototxt"), weights, "--iterations", str(iterations), "--json"]
    assert main(["train", "test", *given]) == 0
    own = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["accuracy"] == pytest.approx(own["outputs"]["accuracy"][0], abs=1e-6)
    assert told["loss"] == pytest.approx(own["loss"], abs=2e-6 if engine == "torch" else 1e-4)
    assert len(told["classes"]) > 2
