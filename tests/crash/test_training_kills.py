"""kill -9 at any instant of a training, and the same command again: the last weights are equal to the bit.

The long form: `python -m tests.crash.test_training_kills --kills 200`, 20 a training.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

NEEDED = ("torch", "lmdb")
if not all(map(importlib.util.find_spec, NEEDED)):
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail("torch or lmdb is missing: run scripts/training.sh", pytrace=False)
    pytest.skip("LEFT OUT: torch or lmdb is missing: scripts/training.sh", allow_module_level=True)

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "training_stream"
TRAIN = """layer { name: "data" type: "ImageData" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 24 mean_value: 128 scale: 0.015625 }
  image_data_param { source: "list.txt" batch_size: 8 shuffle: true is_color: false } }"""
TEST = """layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 24 mean_value: 128 scale: 0.015625 }
  data_param { source: "db" batch_size: 16 backend: LMDB } }"""
NET = f"""name: "net"
{TRAIN}
{TEST}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 5 stride: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" batch_norm_param {{ moving_average_fraction: 0.9 }} }}
layer {{ name: "scale" type: "Scale" bottom: "bn" top: "scale" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "scale" top: "scale" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "scale" top: "ip1"
  inner_product_param {{ num_output: 16 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "ip1" top: "drop" dropout_param {{ dropout_ratio: 0.4 }} }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "drop" top: "ip2"
  inner_product_param {{ num_output: 5 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""
SOLVER = """net: "net.prototxt" type: "Adam" base_lr: 0.002 momentum: 0.9 lr_policy: "multistep" gamma: 0.7
stepvalue: 40 stepvalue: 90 weight_decay: 0.001 iter_size: 2 average_loss: 7 display: 10
test_iter: 3 test_interval: 15 snapshot: 10 snapshot_prefix: "s" solver_mode: CPU
"""
ITERATIONS = 120
COMMAND = ["train", "solver.prototxt", "--threads", "1", "--no-check"]


class Forks:
    """Starts trainings, kills them, and says how they ended."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.training_forks"], cwd=ROOT, text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "passive"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._line() == "ready\n"

    def start(self, folder: Path, words: list[str], die: list[Any] | None = None) -> int:
        request = {"words": words, "cwd": str(folder), "log": str(folder / "log.txt"), "die": die}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    one = Forks()
    yield one
    one.close()


def folder_of(root: Path, more: str) -> Path:
    root.mkdir()
    (root / "net.prototxt").write_text(NET)
    (root / "solver.prototxt").write_text(SOLVER + more)
    shutil.copytree(GOLDEN / "db", root / "db")
    numbers = np.random.default_rng(5)
    lines = []
    for at in range(30):
        cv2.imwrite(str(root / f"{at}.png"), numbers.integers(0, 256, (28, 28)).astype(np.uint8))
        lines.append(f"{at}.png {at % 5}\n")
    (root / "list.txt").write_text("".join(lines))
    return root


def left(folder: Path) -> dict[str, bytes]:
    """Snapshots of the last iteration, and the metrics without times."""
    rows = [json.loads(line) for line in (folder / "s_metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["time"]
        for timed in ("examples_per_s", "waited_for_data"):
            row["values"].pop(timed, None)
    last = max(int(path.name.split("_")[2].split(".")[0]) for path in folder.glob("s_iter_*.caffemodel"))
    files = {f"{kind}": (folder / f"s_iter_{last}.{kind}").read_bytes() for kind in ("caffemodel", "solverstate")}
    return {**files, "metrics": json.dumps(rows).encode(), "last": str(last).encode()}


def log(folder: Path) -> str:
    path = folder / "log.txt"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("seed", ["random_seed: 11\n", ""], ids=["caffes stream", "our stream"])
def test_twenty_kills_at_random_instants_change_no_bit(seed: str, forks: Forks, tmp_path: Path) -> None:
    kill_often(seed, forks, tmp_path, 20)


def kill_often(seed: str, forks: Forks, tmp_path: Path, times: int) -> None:
    more = f"max_iter: {ITERATIONS}\n{seed}"
    calm = folder_of(tmp_path / "calm", more)
    began = time.monotonic()
    forks.start(calm, COMMAND)
    assert forks.ended() == 0, log(calm)[-2000:]
    whole = time.monotonic() - began
    killed = folder_of(tmp_path / "killed", more)
    chance = random.Random(f"kills {seed}")
    kills = 0
    for _ in range(times):
        child = forks.start(killed, [*COMMAND, "--data-threads", str(chance.randint(1, 4))])
        time.sleep(chance.uniform(0, whole / 4))
        with contextlib.suppress(ProcessLookupError):  # it ended before
            os.kill(child, signal.SIGKILL)
        kills += forks.ended() == -signal.SIGKILL
    assert kills
    forks.start(killed, COMMAND)
    assert forks.ended() == 0, log(killed)[-2000:]
    assert left(killed) == left(calm)
    assert not [path.name for path in killed.iterdir() if path.name.startswith(".")]


def test_a_kill_before_and_after_each_file_gets_its_name_changes_no_bit(forks: Forks, tmp_path: Path) -> None:
    """metrics.jsonl as the training begins; then model, state and manifest of each snapshot."""
    more = "max_iter: 45\nrandom_seed: 3\n"
    calm = folder_of(tmp_path / "calm", more)
    forks.start(calm, COMMAND)
    assert forks.ended() == 0, log(calm)[-2000:]
    killed = folder_of(tmp_path / "killed", more)
    for number in range(1, 5):
        for after in (False, True):
            forks.start(killed, COMMAND, [number, after])
            assert forks.ended() in (-signal.SIGKILL, 0), log(killed)[-2000:]
    forks.start(killed, COMMAND)
    assert forks.ended() == 0, log(killed)[-2000:]
    assert left(killed) == left(calm)


def test_a_snapshot_that_is_torn_is_ignored_and_one_before_it_is_taken(forks: Forks, tmp_path: Path) -> None:
    more = "max_iter: 35\nrandom_seed: 3\n"
    folder = folder_of(tmp_path / "torn", more)
    forks.start(folder, COMMAND)
    assert forks.ended() == 0, log(folder)[-2000:]
    before = left(folder)
    for name, cut in (("s_iter_35.caffemodel", 100), ("s_iter_30.solverstate", 7)):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-cut])
    (folder / "s_iter_20.resume.json").write_text("{")
    forks.start(folder, COMMAND)
    assert forks.ended() == 0, log(folder)[-2000:]
    assert "Resuming from s_iter_10.solverstate: this training goes on at iteration 10" in log(folder)
    assert left(folder) == before


def test_sigterm_ends_with_a_snapshot_and_75_and_the_same_command_goes_on_to_the_bit(
    forks: Forks, tmp_path: Path
) -> None:
    more = f"max_iter: {ITERATIONS}\nrandom_seed: 2\n"
    calm, stopped = folder_of(tmp_path / "calm", more), folder_of(tmp_path / "stopped", more)
    forks.start(calm, COMMAND)
    assert forks.ended() == 0, log(calm)[-2000:]
    for begin in ("Iteration 20 (", "Iteration 45, Testing", "Iteration 80 ("):
        child = forks.start(stopped, COMMAND)
        until(lambda begin=begin: begin in log(stopped))
        os.kill(child, signal.SIGTERM)
        assert forks.ended() == 75, log(stopped)[-2000:]
        assert "SIGTERM; the same command goes on from here" in log(stopped)
    forks.start(stopped, COMMAND)
    assert forks.ended() == 0, log(stopped)[-2000:]
    assert left(stopped) == left(calm)


@pytest.mark.parametrize(
    ("effect", "number"), [("stop", signal.SIGINT), ("snapshot", signal.SIGHUP), ("none", signal.SIGINT)]
)
def test_sigint_and_sighup_do_what_caffes_options_say(effect: str, number: int, forks: Forks, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "signalled", f"max_iter: {ITERATIONS}\nrandom_seed: 2\n")
    option = "--sigint-effect" if number == signal.SIGINT else "--sighup-effect"
    child = forks.start(folder, [*COMMAND, option, effect])
    until(lambda: "Iteration 20 (" in log(folder))
    os.kill(child, number)
    assert forks.ended() == 0, log(folder)[-2000:]
    odd = [path for path in folder.glob("s_iter_*.caffemodel") if int(path.stem.split("_")[2]) % 10]
    assert ("Optimization stopped early." in log(folder)) == (effect == "stop")
    assert (folder / f"s_iter_{ITERATIONS}.caffemodel").exists() == (effect != "stop")
    if effect == "none":
        assert odd == []


def until(seen: Any) -> None:
    while not seen():
        time.sleep(0.005)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="kills trainings at random instants, 20 times each")
    parser.add_argument("--kills", type=int, default=200, help="of all trainings together (default: 200)")
    long = Forks()
    for part in range((parser.parse_args().kills + 19) // 20):
        with tempfile.TemporaryDirectory() as folder:
            kill_often("" if part % 2 else f"random_seed: {part}\n", long, Path(folder), 20)
        print(f"{20 * part + 20} kills, no bit changed", flush=True)
    long.close()
