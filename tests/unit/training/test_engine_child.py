"""The child's contract: a specification in, one folder out, and an exit code that says what came of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.main import main as command
from pipeline.training.__main__ import main
from tests.unit.training.runs import GOLDEN, Within, blobs, folder_of

pytest.importorskip("lmdb")
CASE = GOLDEN / "training_stream" / "adam_step"


def spec(where: Path, **fields: object) -> Path:
    path = where.parent / "spec.json"
    path.write_text(json.dumps({"solver": "solver.prototxt", "folder": where.name, "threads": 1, **fields}))
    return path


def test_a_child_writes_one_folder_and_goes_on_in_it_to_the_bit(tmp_path: Path) -> None:
    folder = folder_of(CASE, tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["run", str(spec(folder, until=20)), str(whole)]) == 0
    assert main(["run", str(spec(folder, until=7)), str(parts)]) == 0
    assert main(["run", str(spec(folder, until=20, data_threads=3)), str(parts)]) == 0
    assert sorted(path.name for path in parts.iterdir()) == ["log.txt", "metrics.jsonl", "model.json", "snapshots"]
    assert sorted(path.name for path in (parts / "snapshots").iterdir()) == ["10", "20", "7"]
    for kind in ("caffemodel",):
        ours, others = ((one / "snapshots" / "20" / f"net.{kind}").read_bytes() for one in (parts, whole))
        assert ours == others
    rows = [[json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()] for one in (parts, whole)]
    assert [(row["step"], row["values"]["train/loss"]) for row in rows[0]] == [
        (row["step"], row["values"]["train/loss"]) for row in rows[1]
    ]
    manifest = json.loads((parts / "snapshots" / "20" / "_manifest.json").read_text())
    assert manifest["parent"]["iteration"] == 10
    assert manifest["files"]["model"]["name"] == "net.caffemodel"
    model = json.loads((parts / "model.json").read_text())
    assert (model["iteration"], model["model"]) == (20, "snapshots/20/net.caffemodel")
    assert model["preprocessing"] == {"scale": 0.015625, "mirror": True, "crop_size": 24, "mean_value": [128.0]}
    golden = blobs(CASE / "s_iter_10.caffemodel")
    assert all(np.allclose(one, golden[key], atol=1e-5) for key, one in
               blobs(whole / "snapshots" / "10" / "net.caffemodel").items())  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"momentum": 0.9}, "unknown field 'momentum'"),
        ({"threads": "two"}, "threads is 'two'"),
        ({"seed": True}, "seed is True"),
        ({"shards": 0}, "shards is 0"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
        ({"precision": "bf16", "exact": True}, "exact and bf16 exclude each other"),
        ({"gpu": "99"}, "--gpu 99: "),
        ({"engine": "jax"}, "unknown engine 'jax'"),
        ({"solver": "none.prototxt"}, "none.prototxt cannot be read"),
        ({"folder": "nowhere"}, "nowhere cannot be entered"),
    ],
)
def test_a_specification_that_is_wrong_ends_with_2_and_names_the_field(
    fields: dict[str, object], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(CASE, tmp_path)
    assert main(["run", str(spec(folder, **fields)), str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert main(["run"]) == 2


def test_a_child_does_not_begin_while_estop_stands(tmp_path: Path) -> None:
    folder = folder_of(CASE, tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "ESTOP").touch()
    assert main(["run", str(spec(folder, state=str(tmp_path / "state"))), str(tmp_path / "out")]) == 4
    assert not (tmp_path / "out").exists()


def test_a_child_that_diverges_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(CASE, tmp_path)
    text = (folder / "solver.prototxt").read_text()
    (folder / "solver.prototxt").unlink()
    (folder / "solver.prototxt").write_text(text.replace("base_lr: 0.003", "base_lr: 1e38"))
    assert main(["run", str(spec(folder)), str(tmp_path / "out")]) == 3
    assert re.search(r"iteration \d+: .* of layer '", capsys.readouterr().err)


def test_hathi_train_test_prints_what_caffe_test_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py")
    case = GOLDEN / "training_stream" / "log_and_hdf5"
    folder = folder_of(case, tmp_path)
    weights = str(case / "s_iter_30.caffemodel.h5")
    with Within(folder):
        assert command(["train", "test", "net.prototxt", weights, "--iterations", "3", "--json"]) == 0
    heard = capsys.readouterr()
    form = re.compile(r"caffe\.cpp:\d+\] ((?:Running|Batch|Loss|accuracy|loss).*)")
    ours = [one[1] for line in heard.err.splitlines() if (one := form.search(line))]
    caffes = [one[1] for line in (case / "test.log").read_text().splitlines() if (one := form.search(line))]
    assert len(caffes) == 10
    assert ours == caffes
    assert json.loads(heard.out)["outputs"]["accuracy"] == [pytest.approx(0.354167, rel=1e-5)]


def test_the_command_without_torch_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(CASE, tmp_path)
    monkeypatch.setattr("pipeline.training.engine.starting.importlib.util.find_spec", lambda name: None)
    with Within(folder):
        assert command(["train", "solver.prototxt"]) == 2
    assert "training needs torch" in capsys.readouterr().err
