"""hathi train linear --test: what a model comes to on a file of its own, computed here by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.training.dataset.manifest import MANIFEST
from pipeline.training.descent import saving
from tests.unit.training.made_sets import clouds
from tests.unit.training.sparse_sets import like_rcv1, write

Printed = pytest.CaptureFixture[str]


def trained(tmp_path: Path, data: Path, test: Path, *more: str) -> tuple[dict[str, Any], Any]:
    """(the manifest, the arrays of weights.npz)."""
    out = tmp_path / "out"
    assert main(["train", "linear", str(data), str(out), "--passes", "3", "--test", str(test), *more]) == 0
    return json.loads((out / saving.ABOUT).read_text()), np.load(out / saving.NPZ)


def test_a_sparse_model_is_judged_by_other_examples(tmp_path: Path, capsys: Printed) -> None:
    """Coordinates that the training lacks have no weight, a class that it lacks counts as wrong."""
    data = write(tmp_path / "a.svm", like_rcv1(400, 60, 6))
    lines = ["1 3:1 90:5", "-1 4:1", "1 5:0.5 7:-1", "1 900:1", "7 3:1", "-1 3:2 4:1"]
    test = tmp_path / "b.svm"
    test.write_text("\n".join(lines) + "\nx 1:1\n")
    about, held = trained(tmp_path, data, test)
    said = capsys.readouterr()
    assert f"warning: {test}, line 7: its label is no whole number" in said.out
    assert f"warning: {test}: 1 label of classes that {data} does not have" in said.out
    weights, bias = held["weights"][0], held["bias"][0]
    right, cost = 0, 0.0
    for line in lines:
        label, *pairs = line.split()
        score = bias + sum(float(value) * weights[int(at)] for at, value in (one.split(":") for one in pairs)
                           if int(at) < len(weights))  # fmt: skip
        margins = {"1": [score], "-1": [-score], "7": [-score, score]}[label]
        right += len(margins) == 1 and margins[0] > 0
        cost += sum(max(0.0, 1.0 - one) for one in margins) / len(margins)
    found = about["test"]
    assert (found["examples"], found["strangers"], found["data"]) == (6, 1, str(test))
    assert found["right"] == pytest.approx(right / 6)
    assert found["loss"] == pytest.approx(cost / 6, rel=1e-5)
    assert f"{test}: 6 examples, loss {found['loss']:.5g}, {100 * right / 6:.2f} % right" in said.out


def test_the_page_reads_a_model_in_python_as_it_was_judged(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "linear.md").read_text()
    (program,) = [one.partition("```")[0] for one in page.split("```python\n")[1:]]
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "news.svm", like_rcv1(400, 60, 6))
    test = write(tmp_path / "news.t.svm", like_rcv1(90, 80, 6, seed=8))
    about, _ = trained(tmp_path, data, test)
    (tmp_path / "out").rename(tmp_path / "news")
    capsys.readouterr()
    exec(program, {})
    assert float(capsys.readouterr().out) == pytest.approx(about["test"]["right"])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_dense_model_is_judged_by_other_examples(classes: int, tmp_path: Path) -> None:
    values, labels = clouds(120, 6, classes)
    np.savez(tmp_path / "a.npz", features=values[:80], labels=labels[:80])
    np.savez(tmp_path / "b.npz", features=values[80:], labels=labels[80:])
    about, held = trained(tmp_path, tmp_path / "a.npz", tmp_path / "b.npz")
    scores = values[80:] @ held["weights"].T + held["bias"]
    answers = (scores[:, 0] > 0).astype(int) if classes == 2 else scores.argmax(1)
    assert about["test"]["right"] == pytest.approx(np.mean(answers == labels[80:]))


def test_other_kinds_are_refused_before_the_training(tmp_path: Path, capsys: Printed) -> None:
    data = write(tmp_path / "a.svm", like_rcv1(60, 30, 4))
    np.savez(tmp_path / "b.npz", features=np.eye(4), labels=[0, 1, 0, 1])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / MANIFEST).write_text("{}")
    for test, says in (("b.npz", "holds examples of another kind"), ("set", "is a dataset"), ("none", "is not there")):
        command = ["train", "linear", str(data), str(tmp_path / "out"), "--test", str(tmp_path / test)]
        assert main(command) == 2
        said = capsys.readouterr()
        assert says in said.err
        assert "pass 1" not in said.out
        assert not (tmp_path / "out").exists()
