"""`hathi train` as a process at a terminal: what its bar shows, and what it says of its end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.unit.training.runs import GOLDEN, folder_of

pytest.importorskip("lmdb")
CASE = GOLDEN / "training_stream" / "adam_step"
TRAIN = [sys.executable, "-m", "pipeline.cli.main", "train", "solver.prototxt", "--threads", "1"]
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environ() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR", "NO_COLOR")}
    return {**found, "TERM": "xterm", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive",
            "PYTHONPATH": str(Path(__file__).parents[3])}  # fmt: skip


def folder(tmp_path: Path, **changes: object) -> Path:
    """The golden case with other numbers in its solver."""
    where = folder_of(CASE, tmp_path)
    text = (where / "solver.prototxt").read_text()
    for name, value in changes.items():
        text = re.sub(rf"\b{name}: \S+", f"{name}: {value}", text)
        assert f"{name}: {value}" in text
    (where / "solver.prototxt").unlink()
    (where / "solver.prototxt").write_text(text)
    return where


def seen(where: Path, columns: int) -> list[str]:
    """The lines with a bar of a training at a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = b""
    with subprocess.Popen(TRAIN, cwd=where, env=environ(), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # nobody has the other end any more
                break
            if not part:
                break
            shown += part
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    lines = re.split(r"[\r\n]+", _ESCAPE.sub("", shown.decode()))
    return [line for line in lines if "ETA" in line]


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_bar_is_whole_on_a_terminal_of_any_width(columns: int, tmp_path: Path) -> None:
    bars = seen(folder(tmp_path, max_iter=60), columns)
    assert max(map(len, bars)) <= columns
    assert not [line for line in bars if "\u2026" in line], "nothing is cut"
    last = bars[-1].rstrip()
    assert re.search(r" 60/60 loss \S+ .*ETA \d+:\d\d:\d\d$", last), last
    assert ("images/s" in last) == (columns >= 80)
    assert ("waiting for data" in last) == (columns >= 120)


def test_sigterm_is_named_in_the_json_of_the_end_and_in_the_file_of_attempts(tmp_path: Path) -> None:
    where = folder(tmp_path, max_iter=100000, snapshot=50000, display=1)
    with subprocess.Popen([*TRAIN, "--json"], cwd=where, env=environ(), stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rows = [json.loads(line) for line in process.stdout.read().splitlines()]
    assert process.returncode == 75
    assert (rows[-1]["ended"], rows[-1]["why"]) == ("left", "SIGTERM")
    (attempts,) = where.glob("*_attempts.jsonl")
    end = json.loads(attempts.read_text().splitlines()[-1])
    assert (end["kind"], end["ended"], end["why"]) == ("end", "left", "SIGTERM")


def test_a_rate_of_0_is_said_at_the_start_and_a_loss_at_chance_at_the_end_of_a_short_training(tmp_path: Path) -> None:
    where = folder(tmp_path, max_iter=12, base_lr=0, display=4)
    text, count = re.subn(r"(num_output: 5 .*?weight_filler \{) [^}]*\}", r"\1 }", (where / "net.prototxt").read_text())
    assert count == 1
    (where / "net.prototxt").unlink()
    (where / "net.prototxt").write_text(text)
    done = subprocess.run(TRAIN, cwd=where, env=environ(), capture_output=True, text=True, timeout=300, check=True)
    warned = [line.partition("] ")[2] for line in done.stderr.splitlines() if line.startswith("W")]
    assert warned == [
        "base_lr is 0: no weight will change. Set base_lr in the solver, e.g. base_lr: 0.01",
        "Iteration 12: the loss stays at ln(5) = 1.6094: the net guesses among 5 classes. Check that labels belong to "
        "their images and are shuffled, and the rate: too low or too high",
    ]
