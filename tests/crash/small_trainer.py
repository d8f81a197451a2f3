"""`python -m tests.crash.small_trainer FOLDER PARENT`: a child of the service that trains one layer with numpy.

It keeps the contract of `pipeline.service.work.child` (inputs, metrics, log, snapshots, exit codes, SIGTERM) and needs
no torch: hundreds of kills cost minutes and not hours.  What it computes depends on seed, iteration and snapshot alone.

Names of a job say what else it does: `deaf` ignores SIGTERM, `busy` is in one long product of matrices.
Where the environment's TMPDIR has a folder `computed`, each iteration adds a byte to a file of its attempt there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import numpy as np

from pipeline.errors import FormatError
from pipeline.service.specification.words import INPUTS
from pipeline.service.work import preparing
from pipeline.service.work.confined import enter
from pipeline.service.work.room import NO_ROOM, is_full
from pipeline.service.work.shipping import MANIFEST

LEFT, NO_DATA = 75, 79
PAUSE = 0.004
"""Seconds of an iteration, beside its work."""
WEIGHTS = "net.caffemodel"


def examples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and labels."""
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file["data"], np.float64), np.asarray(file["label"], np.int64)


def step(weights: np.ndarray, speed: np.ndarray, data: tuple[np.ndarray, np.ndarray], seed: int, at: int) -> float:
    """One iteration with momentum, in place; the loss."""
    numbers, labels = data
    rows = np.random.default_rng([seed, at]).integers(0, len(labels), 16)
    x, y = numbers[rows], labels[rows]
    scores = x @ weights
    scores -= scores.max(1, keepdims=True)
    odds = np.exp(scores)
    odds /= odds.sum(1, keepdims=True)
    loss = float(-np.log(odds[np.arange(16), y]).mean())
    odds[np.arange(16), y] -= 1.0
    speed *= 0.9
    speed -= 0.1 * (x.T @ odds) / 16
    weights += speed
    return loss


def bytes_of(weights: np.ndarray, speed: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, np.stack([weights, speed]))
    return held.getvalue()


def undisturbed(path: Path, seed: int, iterations: int) -> str:
    """The SHA-256 of the last weights of a run that nobody disturbs."""
    data = examples(path)
    weights, speed = np.zeros((data[0].shape[1], 4)), np.zeros((data[0].shape[1], 4))
    for at in range(iterations):
        step(weights, speed, data, seed, at)
    return hashlib.sha256(bytes_of(weights, speed)).hexdigest()


class Run:
    """One attempt, in its own folder."""

    def __init__(self, name: str) -> None:
        work = json.loads(Path(preparing.WORK).read_bytes())
        self.total = preparing.prepare(Path())
        text = Path(preparing.SOLVER).read_text()
        self.every = int(re.search(r"snapshot: (\d+)", text)[1])  # type: ignore[index]
        self.seed = int(work.get("seed") or 0)
        self.data = examples(Path((Path(INPUTS) / "train").read_text().strip()))
        self.out = Path(preparing.OUT)
        (self.out / "snapshots").mkdir(parents=True, exist_ok=True)
        self.weights, self.speed = np.zeros((self.data[0].shape[1], 4)), np.zeros((self.data[0].shape[1], 4))
        self.at = 0
        whole = [int(one.parent.name) for one in (self.out / "snapshots").glob(f"*/{MANIFEST}")]
        if whole:
            self.at = max(whole)
            held = np.load(self.out / "snapshots" / str(self.at) / WEIGHTS)
            self.weights, self.speed = held[0].copy(), held[1].copy()
        witness = Path(os.environ.get("TMPDIR", "/nowhere")) / "computed"
        self.witness = (witness / f"{name}.{self.at}").open("ab", buffering=0) if witness.is_dir() else None
        self.asked = False

    def snapshot(self) -> None:
        folder, new = self.out / "snapshots" / str(self.at), self.out / f"new-{self.at}"
        if folder.exists():
            return
        new.mkdir(exist_ok=True)
        (new / WEIGHTS).write_bytes(bytes_of(self.weights, self.speed))
        (new / MANIFEST).write_text(json.dumps({"iteration": self.at}))
        new.rename(folder)

    def train(self) -> int:
        with (self.out / "metrics.jsonl").open("a") as metrics, (self.out / "log.txt").open("a") as log:
            print(f"{os.getpid()} begins at {self.at}", file=log, flush=True)
            while self.at < self.total:
                if self.asked:
                    self.snapshot()
                    return LEFT
                loss = step(self.weights, self.speed, self.data, self.seed, self.at)
                self.at += 1
                if self.witness is not None:
                    self.witness.write(b".")
                row = {"step": self.at, "time": time.time(), "kind": "train", "values": {"train/loss": loss}}
                print(json.dumps(row), file=metrics, flush=True)
                if self.at % self.every == 0 or self.at == self.total:
                    self.snapshot()
                time.sleep(PAUSE)
            print(f"{os.getpid()} is at the end", file=log, flush=True)
        return 0

    def heard(self, _: int, __: FrameType | None) -> None:
        self.asked = True


def main(folder: Path, parent: int) -> int:
    """The exit code."""
    enter(folder, parent)
    work = json.loads(Path(preparing.WORK).read_bytes())
    if "deaf" in work.get("name", ""):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run = Run(folder.name)
        if "deaf" not in work.get("name", ""):
            signal.signal(signal.SIGTERM, run.heard)
        if "busy" in work.get("name", ""):
            square = np.ones((6000, 6000))
            for _ in range(100):
                square = square @ square / 6000.0
        return run.train()
    except FormatError as error:
        sys.stderr.write(f"{error}\n")
        return NO_DATA
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return NO_ROOM if is_full(error) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
