"""Descent beside liblinear, as scikit-learn has it: the same objective at the same penalty, and the same accuracy.

liblinear minimises 1/2 |w|^2 + C sum of losses, and its intercept is a weight of a coordinate that is 1 everywhere.
With C = 1 / (l2 n) that is our objective divided by l2.  It is told to come nearer than the tolerances here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from pipeline.training.descent.descent import Wanted, flat, objective, train
from pipeline.training.descent.examples import Examples, Sparse
from pipeline.training.descent.losses import Loss
from tests.unit.training.sparse_sets import like_rcv1
from tests.unit.training.test_descent import features, sparse_of


def real_digits(_: Path) -> Examples:
    """scikit-learn's 1,797 pictures of 8 x 8, rows of length 1."""
    read = load_digits()
    chosen = np.random.default_rng(0).permutation(len(read.target))
    values = read.data[chosen]
    return sparse_of(values / np.linalg.norm(values, axis=1, keepdims=True), read.target[chosen].tolist())


SETS: dict[str, Callable[[Path], Examples]] = {
    "of RCV1's shape": lambda _: like_rcv1(6000, 4000, 40),
    "delivered features": features,
    "real digits": real_digits,
}


def read_back(examples: Examples) -> tuple[Any, Any]:
    """(matrix, (n) numbers of the classes) for scikit-learn."""
    if isinstance(examples, Sparse):
        rows = examples.rows
        begin, end = int(rows.start[0]), int(rows.start[-1])
        columns, start = rows.columns[begin:end].astype(np.int32), rows.start - begin
        matrix = csr_matrix((rows.value[begin:end].astype(float), columns, start), (examples.count, examples.dim))
        start, label = rows.label_start, rows.label
    else:
        blocks = [one.rows.copy() for one in examples.blocks(range(examples.count))]  # type: ignore[attr-defined]
        matrix = np.concatenate(blocks).astype(float)
        start, label = examples.label_start[examples.first :], examples.label  # type: ignore[attr-defined]
    if examples.labels.vectors == 1:
        return matrix, (np.diff(start[: examples.count + 1]) > 0).astype(int)
    return matrix, label[start[: examples.count]]


def liblinear(examples: Examples, loss: Loss, l2: float) -> tuple[Any, Any]:
    """(weights (vectors, dim), bias (vectors)), each class against the rest."""
    matrix, numbers = read_back(examples)
    c = 1.0 / (l2 * examples.count)
    weights, bias = [], []
    for number in range(examples.labels.vectors):
        if loss == Loss.LOGISTIC:
            solver: Any = LogisticRegression(solver="liblinear", C=c, tol=1e-8, max_iter=10_000)
        else:
            name = "hinge" if loss == Loss.HINGE else "squared_hinge"
            solver = LinearSVC(loss=name, dual=True, C=c, tol=1e-5, max_iter=200_000, random_state=0)
        positive = numbers == (1 if examples.labels.vectors == 1 else number)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # one that has not converged is no judge
            warnings.filterwarnings("ignore", category=FutureWarning)
            solver.fit(matrix, positive)
        weights.append(solver.coef_[0])
        bias.append(solver.intercept_[0])
    return np.array(weights), np.array(bias)


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("name", SETS)
def test_descent_comes_to_liblinears_objective_and_accuracy(name: str, loss: Loss, tmp_path: Path) -> None:
    """1.01 of it after 20 passes, 1.001 after 200.  Accuracy on other rows: after 20 passes no more than 0.2 points
    below it, after 200 within 0.2 points of it on both sides."""
    examples = SETS[name](tmp_path)
    cut = examples.count * 2 // 3
    own, rest = examples.part(0, cut), examples.part(cut, examples.count)
    l2 = 1.0 / own.count
    weights, bias = liblinear(own, loss, l2)
    best, _ = objective(own, flat(weights, bias, own), loss, l2)
    soon, waited = train(own, Wanted(loss, l2)), train(own, Wanted(loss, l2, passes=200))
    assert soon.objective <= 1.01 * best
    assert waited.objective == pytest.approx(best, rel=1e-3)
    theirs, early, late = (
        round(rest.count * objective(rest, flat(vectors, tilts, rest), loss, l2)[1])
        for vectors, tilts in ((weights, bias), (soon.weights, soon.bias), (waited.weights, waited.bias))
    )
    assert early >= theirs - 0.002 * rest.count
    assert abs(late - theirs) <= 0.002 * rest.count
