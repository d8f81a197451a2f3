"""Targets side by side, each in its child; what ends a child is a finding, and another one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.child import INPUT_SECONDS, Current

ROOT = Path(__file__).parents[2]
DEATHS = 5
"""After so many a target is given up."""
STARTING = 300.0
"""Seconds that a child may take on a loaded machine beside forty for each of processor time; then it hangs."""


@dataclass(frozen=True)
class Finding:
    target: str
    kind: str
    detail: str
    data: bytes

    @property
    def file(self) -> str:
        return f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}"


@dataclass
class Told:
    """What became of one target."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    outcomes: int = 0
    findings: list[Finding] = field(default_factory=list)


def fuzz(targets: Sequence[str], seconds: float, seed: str, jobs: int) -> Iterator[Told]:
    """Each target for so many seconds of processor time, `jobs` of them at once; in the order in which they are named.

    Equal seeds give equal inputs, as far as the time goes.
    """
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda target: _one(target, seconds, seed), targets)


def _one(target: str, seconds: float, seed: str) -> Told:
    told = Told(target)
    for life in range(DEATHS):
        left = seconds - told.seconds
        finding = _life(told, left, f"{seed}.{life}" if life else seed)
        if finding is None:
            break
        told.findings.append(finding)
        told.seconds += seconds / DEATHS  # a child that dies leaves no account of its time
        if told.seconds >= seconds:
            break
    return told


def _life(told: Told, seconds: float, seed: str) -> Finding | None:
    """One child; what killed it, if anything did."""
    with tempfile.TemporaryDirectory(prefix="hathi-fuzz-") as scratch:
        folder = Path(scratch)
        words = [sys.executable, "-m", "tests.fuzz.child", told.target, seed, str(seconds), scratch]
        environ = {**os.environ, "TMPDIR": scratch, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (folder / "stderr").open("wb") as errors:
            child = subprocess.Popen(words, cwd=ROOT, env=environ, stdout=errors, stderr=errors)
            try:
                code: int | None = child.wait(STARTING + 40 * seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                code = None
        said = (folder / "said").read_text().splitlines() if (folder / "said").exists() else []
        for line in map(json.loads, said):
            if "finding" in line:
                told.findings.append(Finding(told.target, line["finding"], line["detail"], bytes.fromhex(line["data"])))
            else:
                told.inputs += line["inputs"]
                told.seconds += line["seconds"]
                told.outcomes = max(told.outcomes, line["outcomes"])
        if code == 0:
            return None
        tail = (folder / "stderr").read_text(errors="replace")[-1500:]
        data = Current.read(folder / "current") if (folder / "current").exists() else b""
        return Finding(told.target, _death(code), tail, data)


def _death(code: int | None) -> str:
    if code is None:
        return "hang without using the processor"
    if code == -signal.SIGPROF:
        return f"more than {INPUT_SECONDS:.0f} s of processor time"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
