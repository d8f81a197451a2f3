"""Trainings as `hathi train` runs them, in a folder with golden data beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.training import job
from pipeline.training.job import Ended, Wanted

GOLDEN = Path(__file__).parents[2] / "golden"
_SNAPSHOT = re.compile(r"_iter_\d+\.")
_SAID = re.compile(r"\] ((?:Iteration|    T|Snapshotting|Optim|Gradient|MultiStep|Solving|Learning|Restarting).*)")
_SPEED = re.compile(r"\(\S+ iter/s, \S+s/(\d+) iters\)")
_NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")


@dataclass
class Run:
    """lines: what the training logged."""

    lines: list[str]
    ended: Ended


def folder_of(case: Path, into: Path) -> Path:
    """A folder with the texts and data of a golden run, without what Caffe's run left there."""
    folder = into / "work" / case.name
    folder.mkdir(parents=True)
    for path in case.iterdir():
        if not _SNAPSHOT.search(path.name):
            (folder / path.name).symlink_to(path)
    for path in case.parent.iterdir():
        if path.is_dir() and path != case:
            (folder.parent / path.name).symlink_to(path)
    return folder


def train(wanted: Wanted) -> Run:
    """In the current folder."""
    lines: list[str] = []
    ended = job.train(wanted, job.by_prefix(lines.append, lambda solver, shown: None, lambda row: None))
    return Run(lines, ended)


def blobs(path: Path) -> dict[tuple[str, int], NDArray[np.float32]]:
    net = caffe_pb2.NetParameter.FromString(path.read_bytes())
    return {(layer.name, at): np.array(blob.data, np.float32) for layer in net.layer for at, blob in
            enumerate(layer.blobs)}  # fmt: skip


def far(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest difference, as a part of the blob's largest value."""
    largest = float(np.abs(other).max())
    return float(np.abs(one.astype(np.float64) - other).max()) / (largest or 1.0)


def said(lines: Sequence[str]) -> list[str]:
    """What a solver says, without the time and without how fast it was."""
    found = (_SAID.search(line) for line in lines)
    return [_SPEED.sub(r"(/\1)", one[1]) for one in found if one and "Restarting" not in one[1]]


def differs(ours: Sequence[str], caffes: Sequence[str], least: float) -> list[tuple[str, str]]:
    """Lines of another form, or with a number that is farther away than `least`, as a part of it."""
    found = [(one, other) for one, other in zip(ours, caffes, strict=False) if not _alike(one, other, least)]
    return found + ([("lines", f"{len(ours)}, Caffe's {len(caffes)}")] if len(ours) != len(caffes) else [])


def _alike(one: str, other: str, least: float) -> bool:
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    pairs = zip(map(float, _NUMBER.findall(one)), map(float, _NUMBER.findall(other)), strict=True)
    return all(abs(a - b) <= least * abs(b) + 1e-9 for a, b in pairs)


class Within:
    """Changes into a folder for as long as it lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        self._before = Path.cwd()
        os.chdir(self._folder)
        return self._folder

    def __exit__(self, *error: object) -> None:
        os.chdir(self._before)
