"""Ctrl-C while `hathi train` starts is never lost; a second one while it stops ends it at once."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import environ
from tests.integration.conftest import ROOT

if importlib.util.find_spec("torch") is None:
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail("torch is missing: run scripts/torch.sh", pytrace=False)
    pytest.skip("LEFT OUT: torch is missing: scripts/torch.sh", allow_module_level=True)

PATIENCE = 120.0
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 4 dim: 8 } shape { dim: 4 } data_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 display: 1000 max_iter: 100000000
snapshot_prefix: "s" random_seed: 1
"""
AT_CALLBACK = """
import os, signal, sys
from pipeline.cli.main import entry
left = int(sys.argv.pop(1))
def interrupt(frame, event, arg):
    global left
    if event == "call" and frame.f_code.co_name == "cb" and "importlib" in frame.f_code.co_filename:
        left -= 1
        if not left:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)
sys.setprofile(interrupt)
entry()
"""
"""Interrupts a command in the callback of a module that it imports: Python drops what is raised there."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


class Training:
    """`hathi train` as a process, and what it has said on stderr so far."""

    def __init__(self, folder: Path, *words: str, python: tuple[str, ...] = ("-m", "pipeline.cli.main")) -> None:
        self._log = folder / f"stderr-{time.monotonic_ns()}"
        command = [sys.executable, *python, "train", "solver.prototxt", "--threads", "1", *words]
        env = {**environ(), "PYTHONPATH": str(ROOT)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def waits_for(self, text: str) -> None:
        ends = time.monotonic() + PATIENCE
        while text not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < ends, self.said
            time.sleep(0.02)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def ended(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def in_order(training: Training) -> bool:
    """It has ended because of the interrupt: as a shell knows it, or as a training that is stopped early."""
    code, said = training.ended(), training.said
    assert "unexpected" not in said, said
    return code in (-signal.SIGINT, 128 + signal.SIGINT) or (code == 0 and "stopped early" in said)


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[float]:
    """What a start takes on this host, up to the first iteration."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    began = time.monotonic()
    with Training(folder) as training:
        training.waits_for("Iteration 0")
        yield time.monotonic() - began


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_an_interrupt_at_any_moment_of_the_start_ends_a_training(part: float, seconds: float, folder: Path) -> None:
    with Training(folder) as training:
        time.sleep(seconds * part)
        training.interrupt()
        assert in_order(training)


@pytest.mark.parametrize("callback", [1, 150, 400])
def test_an_interrupt_that_python_would_drop_ends_a_training(callback: int, folder: Path) -> None:
    with Training(folder, python=("-c", AT_CALLBACK, str(callback))) as training:
        assert in_order(training)


def test_a_second_interrupt_ends_a_training_that_is_stopping_at_once_and_says_so(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(f"{SOLVER} iter_size: 100000000")  # its first iteration takes days
    with Training(folder) as training:
        training.waits_for("Starting Optimization")
        training.interrupt()
        training.waits_for("SIGINT: the training ends after its iteration; another SIGINT ends it at once")
        assert training.process.poll() is None
        training.interrupt()
        assert training.ended() == 128 + signal.SIGINT
        last = training.said.splitlines()[-1]
        assert last == "SIGINT again: the training ends at once; the same command goes on from its last whole snapshot"
    assert not list(folder.glob("s_iter_*"))


def test_interrupts_that_ask_for_snapshots_end_nothing(folder: Path) -> None:
    with Training(folder, "--sigint-effect", "snapshot") as training:
        training.waits_for("Iteration 0")
        for count in (1, 2):
            training.interrupt()
            ends = time.monotonic() + PATIENCE
            while len(list(folder.glob("s_iter_*.resume.json"))) < count:
                assert training.process.poll() is None, training.said
                assert time.monotonic() < ends
                time.sleep(0.02)
        training.process.terminate()
        assert training.ended() == 75
