"""The README's training, typed: from nothing to a net that knows held-out digits, and to features by its weights.

One training serves all tests here.  Its time is printed and never asserted.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import hathi
from pipeline.training.dataset import examples
from tests.acceptance.conftest import ROOT
from tests.acceptance.documents import Block, blocks
from tests.acceptance.test_readme import shape

NEEDED = ("torch", "lmdb", "mlxtend")
ENOUGH = 0.97
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail(f"{missing[0]} is missing: run scripts/training.sh", pytrace=False)
    pytest.skip(f"LEFT OUT: {missing[0]} is missing: scripts/training.sh", allow_module_level=True)


@dataclass(frozen=True)
class Trained:
    """A folder in which the README's first block was typed, and what each of its commands printed."""

    folder: Path
    said: dict[str, str]

    @property
    def digits(self) -> Path:
        return self.folder / "digits"

    @property
    def weights(self) -> Path:
        return self.digits / "lenet_iter_1000.caffemodel"


def block(beginning: str) -> Block:
    (found,) = [one for one in blocks(ROOT) if one.page == "README.md" and one.text.startswith(f"$ {beginning}")]
    return found


def run(words: str, where: Path) -> subprocess.CompletedProcess[str]:
    """A command line, typed into a shell whose `hathi` and `python` are those of this environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HATHI_", "PYTHON"))}
    environ = {**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "HOME": str(where)}
    return subprocess.run(
        ["bash", "-c", words], cwd=where, env=environ, text=True, timeout=600,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def typed(one: Block, folder: Path) -> tuple[dict[str, str], Path]:
    """What each command of a block printed, and the folder in which the last one was typed."""
    said: dict[str, str] = {}
    for command in one.commands:
        if command.startswith("cd "):
            folder = folder / command[3:]
        elif not command.startswith("scripts/"):  # it made the environment that these tests run in
            done = run(command, folder)
            assert done.returncode == 0, done.stdout
            said[command] = done.stdout
    return said, folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder, began = tmp_path_factory.mktemp("digits"), time.monotonic()
    said, _ = typed(block("scripts/training.sh"), folder)
    print(f"from nothing to a trained net and its test: {time.monotonic() - began:.0f} s")
    return Trained(folder, said)


@pytest.fixture(scope="module")
def seen(trained: Trained) -> dict[str, str]:
    """What the commands of the README's second block printed: features by the trained weights."""
    return typed(block("hathi net check deploy.prototxt"), trained.digits)[0]


def assert_shown(one: Block, said: dict[str, str]) -> None:
    """Each line that the README shows is among what was printed, but for numbers and paths."""
    printed = {shape(line) for text in said.values() for line in text.splitlines()}
    shown = [line for line in one.text.splitlines() if not line.startswith("$ ")]
    assert shown
    assert [line for line in shown if shape(line) not in printed] == [], "\n".join(said.values())


def test_the_readme_shows_what_its_training_prints(trained: Trained) -> None:
    assert_shown(block("scripts/training.sh"), trained.said)


def test_the_readme_shows_what_the_trained_net_prints(trained: Trained, seen: dict[str, str]) -> None:
    assert_shown(block("hathi net check deploy.prototxt"), seen)


def test_more_than_97_of_100_held_out_digits_are_known(trained: Trained) -> None:
    last = trained.said["hathi train solver.prototxt"].splitlines()[-1]
    found = re.fullmatch(
        r"iteration 1,000 after \d+ s; lenet_iter_1000.caffemodel; test: accuracy ([\d.]+), loss [\d.]+", last
    )
    assert found, last
    print(last)
    assert float(found[1]) > ENOUGH
    (test,) = [said for words, said in trained.said.items() if words.startswith("hathi train test")]
    assert float(re.findall(r"\] accuracy = ([\d.]+)", test)[-1]) == pytest.approx(float(found[1]), abs=0.0011)


def test_no_digit_stands_on_both_sides(trained: Trained) -> None:
    sides = [
        {
            one.image()[0][margin : margin + 28, margin : margin + 28].tobytes()
            for one in examples.read(trained.digits / name)
        }
        for name, margin in (("train_lmdb", 2), ("test_lmdb", 0))
    ]
    assert [len(side) for side in sides] == [4000, 1000]
    assert sides[0] & sides[1] == set()


def test_the_accuracy_is_that_of_the_net_that_makes_features(trained: Trained) -> None:
    """Another engine, images decoded by the way of features: the same digits are known."""
    pictures = sorted((trained.digits / "pictures").glob("*.png"))
    found = hathi.features(
        pictures, net=trained.digits / "deploy.prototxt", weights=trained.weights, blob="prob", preprocess="unit"
    )
    right = [int(np.argmax(one.vector)) == int(pictures[one.index].name[0]) for one in found if one.vector is not None]
    assert len(right) == len(pictures) == 100
    assert np.mean(right) > 0.95, "100 of them are few"


def test_what_is_near_to_a_digit_is_the_same_digit(seen: dict[str, str]) -> None:
    (said,) = [said for words, said in seen.items() if words.startswith("hathi similar")]
    assert re.findall(r"(\d)-\d\d$", said, re.M) == ["7", "7", "7"]


def test_the_default_seed_gives_the_same_weights_again_with_any_threads_of_data(trained: Trained) -> None:
    models = []
    for number in (1, 3):
        folder = trained.folder / f"again-{number}"
        shutil.copytree(trained.digits, folder, ignore=shutil.ignore_patterns("lenet_*", "features"))
        done = run(f"hathi train solver.prototxt --until 30 --data-threads {number}", folder)
        assert done.returncode == 0, done.stdout
        models.append((folder / "lenet_iter_30.caffemodel").read_bytes())
    assert models[0] == models[1]


def test_the_training_goes_on_from_a_snapshot_to_the_same_weights(trained: Trained) -> None:
    folder = trained.folder / "resumed"
    shutil.copytree(trained.digits, folder, ignore=shutil.ignore_patterns("lenet_iter_1000*", "features"))
    metrics = (folder / "lenet_metrics.jsonl").read_text()
    done = run("hathi train solver.prototxt", folder)
    assert "lenet_iter_500.solverstate" in done.stdout, done.stdout
    assert (folder / "lenet_iter_1000.caffemodel").read_bytes() == trained.weights.read_bytes()

    def rows(text: str) -> list[tuple[int, str, float]]:
        read = map(json.loads, text.splitlines())
        return [(row["step"], row["kind"], row["values"].get("test/accuracy", 0.0)) for row in read]

    assert rows((folder / "lenet_metrics.jsonl").read_text()) == rows(metrics)


def test_a_job_is_trained_with_the_configuration_of_the_page_and_its_model_is_fetched(trained: Trained) -> None:
    """Of 40 iterations: how a job ends is seen as well."""
    folder = trained.folder / "job"
    shutil.copytree(trained.digits, folder, ignore=shutil.ignore_patterns("lenet_*", "features"))
    text = (folder / "solver.prototxt").read_text()
    (folder / "solver.prototxt").write_text(text.replace("max_iter: 1000 ", "max_iter: 40 ").replace(": 250", ": 20"))
    (settings,) = [one for one in blocks(ROOT) if (one.page, one.language) == ("docs/training.md", "toml")]
    (typing,) = [one for one in blocks(ROOT) if (one.page, one.language) == ("docs/training.md", "sh")]
    (folder / "hathi.toml").write_text(settings.text)
    said = list(typed(typing, folder)[0].values())
    ended = re.search(r"^(LeNet-\w+) is finished: 40 iterations$", said[0], re.M)
    assert ended, said[0]
    last = re.search(r"^test: accuracy ([\d.]+), loss [\d.]+$", said[0], re.M)
    assert last, said[0]
    assert said[0].splitlines()[-1] == f"next: hathi train fetch {ended[1]}"
    assert re.search(rf"^{ended[1]}  finished   40 of 40$", said[1], re.M), said[1]
    assert f"  {last[0]}" in said[2].splitlines()
    tested = re.findall(r"\] accuracy = ([\d.]+)", said[4])
    assert float(tested[-1]) == pytest.approx(float(last[1]), abs=1e-3), "the files that were fetched are the model"


def test_the_example_trains_and_finds_neighbours(trained: Trained) -> None:
    folder = trained.folder / "example"
    shutil.copytree(trained.digits, folder, ignore=shutil.ignore_patterns("lenet_*", "features"))
    done = run(f"PYTHONPATH={ROOT} python {ROOT}/examples/digits.py example --enough 0.9", trained.folder)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^iteration \d+: accuracy 0\.9\d\d$", done.stdout, re.M), done.stdout
    share = re.search(r"^(\d+)% of 100 unseen digits have a neighbour of their kind", done.stdout, re.M)
    assert share, done.stdout
    assert int(share[1]) > 50
    assert (folder / "lenet_iter_50.caffemodel").is_file()
    refused = run(f"PYTHONPATH={ROOT} python {ROOT}/examples/digits.py absent", trained.folder)
    assert refused.returncode == 2
    assert "Traceback" not in refused.stdout, refused.stdout
