"""Trains a head: one linear layer on features, to the optimum, with the penalty that is given or found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.amounts import counted
from pipeline.errors import ConfigError
from pipeline.training.dataset.manifest import Manifest
from pipeline.training.linear.losses import LOSSES, Loss
from pipeline.training.linear.problem import Directions, Problem, directions, scaling
from pipeline.training.linear.reading import classes_of, of_features, rows
from pipeline.training.linear.solver import Optimum, Vector, minimise
from pipeline.training.linear.table import Chunk, Standard, Table

TRAIN, VALIDATION, TEST = "train", "validation", "test"
L2 = 0.01
"""The penalty where neither the command nor a validation side says one."""
PATH = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The penalties that are tried on the validation side, until two in a row are worse than the best."""
_PATIENCE = 2

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """l2: None: L2, or by the validation side where there is one.  auto: demand that side.  scratch: for the matrix."""

    loss: str
    l2: float | None
    auto: bool
    scratch: Path


@dataclass(frozen=True)
class Figures:
    """accuracy: the share of examples whose class has the highest score.  loss: the mean, without the penalty."""

    examples: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class Head:
    """scores = features @ weights.T + bias.  weights: (classes, dim) float32; bias: (classes,); of raw features."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    loss: Loss


@dataclass(frozen=True)
class Trained:
    """figures: by side.  warnings: what is odd about the classes."""

    head: Head
    l2: float
    optimum: Optimum
    figures: dict[str, Figures]
    warnings: tuple[str, ...]


def train(folder: Path, wanted: Wanted, say: Say) -> Trained:
    """The head of a dataset of features.

    Memory: 128 MiB, 4 bytes an example, 200 bytes for each number of the weights, 4 kB for each number of a feature.
    Disk: the features once, in `wanted.scratch`.  Raises ConfigError and FormatError for a dataset that no head can be
    trained on.
    """
    manifest = of_features(folder)
    side = _side(manifest, folder)
    classes, warnings = classes_of(manifest, folder, side)
    for says in warnings:
        say(f"warning: {says}")
    judged = _judging(manifest, folder, wanted)
    with Table(wanted.scratch, manifest.dim) as table:
        table.extend(rows(folder, side, manifest.dim, classes))
        standard = table.spread()
        table.standardise(standard)
        say(
            f"{side or 'all'}: {counted(len(table), 'example')} of {counted(manifest.dim, 'number')}, {classes} classes"
        )
        fitting = _Fitting(Problem(table, classes, LOSSES[wanted.loss], 0.0), directions(table), standard)
        if judged is None:
            l2 = L2 if wanted.l2 is None else wanted.l2
            optimum = fitting.at(l2)
        else:
            l2, optimum = _best(fitting, lambda head: figures(head, judged()), say)
    head = fitting.head(optimum.where)
    say(_told(l2, optimum))
    found = {}
    for name in [one for one in (TRAIN, VALIDATION, TEST) if one in manifest.sides and manifest.sides[one].examples]:
        found[name] = figures(head, rows(folder, name, manifest.dim, classes))
        one = found[name]
        say(f"{name}: accuracy {one.accuracy:.4f}, loss {one.loss:.4f}, {counted(one.examples, 'example')}")
    return Trained(head, l2, optimum, found, tuple(warnings))


def figures(head: Head, chunks: Iterator[Chunk]) -> Figures:
    """How good a head is on examples.  Raises ConfigError where there are none."""
    count = right = 0
    total = 0.0
    for features, labels in chunks:
        scores = features @ head.weights.T + head.bias
        total += head.loss.pays(scores.astype(np.float64), labels).total
        right += int(np.count_nonzero(scores.argmax(1) == labels))
        count += len(labels)
    return Figures(count, right / count, total / count)


@dataclass(frozen=True)
class _Fitting:
    """The problem without its penalty, and what all its penalties share."""

    problem: Problem
    directions: Directions
    standard: Standard

    def at(self, l2: float, start: Vector | None = None) -> Optimum:
        problem = replace(self.problem, l2=l2)
        return minimise(problem, problem.start if start is None else start, l2,
                        scaling(self.directions, l2, problem.loss.bend))  # fmt: skip

    def head(self, where: Vector) -> Head:
        """The standardisation becomes part of the weights."""
        weights = where[:, :-1] / self.standard.scale
        bias = where[:, -1] - weights @ self.standard.mean
        return Head(weights.astype(np.float32), bias.astype(np.float32), self.problem.loss)


def _best(fitting: _Fitting, judge: Callable[[Head], Figures], say: Say) -> tuple[float, Optimum]:
    """The penalty with the fewest errors on the validation side; of equal ones the smaller loss."""
    best: tuple[tuple[float, float], float, Optimum] | None = None
    worse, start = 0, None
    for l2 in PATH:
        optimum = fitting.at(l2, start)
        start = optimum.where
        found = judge(fitting.head(start))
        steps = counted(optimum.steps, "step")
        say(f"l2 {l2:g}: validation accuracy {found.accuracy:.4f}, loss {found.loss:.4f}, {steps}")
        rank = (-found.accuracy, found.loss)
        worse = 0 if best is None or rank < best[0] else worse + 1
        if not worse:
            best = rank, l2, optimum
        if worse == _PATIENCE:
            break
    assert best is not None
    return best[1], best[2]


def _side(manifest: Manifest, folder: Path) -> str | None:
    if not manifest.sides:
        return None
    if TRAIN not in manifest.sides:
        has = f"its sides are: {', '.join(manifest.sides)}"
        raise ConfigError(f"the dataset {folder} has no side '{TRAIN}'", has, "make it with --split")
    return TRAIN


def _judging(manifest: Manifest, folder: Path, wanted: Wanted) -> Callable[[], Iterator[Chunk]] | None:
    """Reads the validation side; None where a penalty is given, or the side is missing and nobody demands it."""
    if wanted.l2 is not None:
        if not (math.isfinite(wanted.l2) and wanted.l2 > 0.0):
            raise ConfigError(f"--l2 {wanted.l2:g} is no penalty", "", "give a number above 0, or auto")
        return None
    side = manifest.sides.get(VALIDATION)
    if side is not None and side.examples:
        classes = classes_of(manifest, folder, TRAIN)[0]
        return lambda: rows(folder, VALIDATION, manifest.dim, classes)
    if wanted.auto:
        says = "it is empty" if side is not None else "the dataset has no such side"
        hint = f"make the dataset with --split 80/10/10, or give --l2, for example --l2 {L2:g}"
        raise ConfigError("--l2 auto needs a validation side", says, hint)
    return None


def _told(l2: float, optimum: Optimum) -> str:
    part = optimum.bound / max(optimum.value, 1e-300)
    near = f"at most {part:.1e} of it above the optimum"
    end = "" if optimum.reached else "; float32 features allow no better"
    return f"l2 {l2:g}: objective {optimum.value:.6g}, {near}, {counted(optimum.steps, 'step')}{end}"
