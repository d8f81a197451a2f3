"""The solver of linear models: losses and gradients, the optimum against another way to it, memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.training.linear.losses import LOSSES, Loss
from pipeline.training.linear.problem import Problem, directions, scaling
from pipeline.training.linear.solver import TOLERANCE, Optimum, Point, minimise
from pipeline.training.linear.table import Chunk, Standard, Table
from tests.unit.training.made_sets import clouds

EACH = pytest.mark.parametrize("loss", LOSSES.values(), ids=lambda one: one.name)


@EACH
def test_slopes_are_the_derivatives_of_what_is_paid(loss: Loss) -> None:
    random = np.random.default_rng(1)
    scores, labels = 2 * random.standard_normal((5, 4)), np.array([0, 3, 1, 1, 2], np.int32)
    slopes = loss.pays(scores, labels).slopes
    for place in np.ndindex(scores.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = scores.copy()
            moved[place] += step
            ends.append(loss.pays(moved, labels).total)
        assert slopes[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


@EACH
def test_scores_of_any_size_pay_a_number(loss: Loss) -> None:
    paid = loss.pays(np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([0, 0], np.int32))
    assert np.isfinite(paid.total)
    assert np.isfinite(paid.slopes).all()


def table_of(folder: Path, values: NDArray[np.float32], labels: list[int]) -> Table:
    table = Table(folder, values.shape[1])
    numbers = np.array(labels, np.int32)
    table.extend(Chunk(values[at : at + 64], numbers[at : at + 64]) for at in range(0, len(values), 64))
    return table


def newton(values: NDArray[np.float64], labels: NDArray[np.int32], classes: int, loss: Loss, l2: float) -> float:
    """The least objective, by damped Newton steps in float64 with the second derivative by differences of slopes."""
    rows = np.hstack([values, np.ones((len(values), 1))])
    count, size = len(rows), rows.shape[1]

    def at(where: NDArray[np.float64]) -> Point:
        paid = loss.pays(rows @ where.T, labels)
        value = paid.total / count + l2 / 2 * float((where**2).sum())
        return Point(value, paid.slopes.T @ rows / count + l2 * where)

    where = np.zeros((classes, size))
    for _ in range(60):
        here, scores = at(where), rows @ where.T
        second = l2 * np.eye(classes * size)
        for one in range(classes):
            moved = scores.copy()
            moved[:, one] += 1e-6
            bent = (loss.pays(moved, labels).slopes - loss.pays(scores, labels).slopes) / 1e-6
            for other in range(classes):
                block = (rows * bent[:, other : other + 1]).T @ rows / count
                second[one * size : (one + 1) * size, other * size : (other + 1) * size] += block
        step = np.linalg.solve(second + 1e-12 * np.eye(len(second)), here.gradient.ravel()).reshape(where.shape)
        length = 1.0
        while length > 1e-9 and at(where - length * step).value > here.value:
            length /= 2
        where = where - length * step
    return at(where).value


@EACH
@pytest.mark.parametrize("l2", [1.0, 0.01, 1e-4])
def test_the_end_is_the_optimum_that_newton_finds(loss: Loss, l2: float, tmp_path: Path) -> None:
    values, labels = clouds(400, 9, 3)
    with table_of(tmp_path, values, labels) as table:
        table.standardise(table.spread())
        problem = Problem(table, 3, loss, l2)
        found = minimise(problem, problem.start, l2, scaling(directions(table), l2, loss.bend))
        (rows, numbers) = next(table.chunks())
        best = newton(rows.astype(np.float64), numbers, 3, loss, l2)
    assert found.reached
    assert found.bound <= TOLERANCE * found.value
    assert best - 1e-7 * best <= found.value <= best + found.bound + 1e-7 * best


def test_the_bound_is_never_less_than_the_distance_from_the_optimum() -> None:
    ends: list[Optimum] = []
    bends = np.array([1e-3, 0.1, 1.0, 30.0])

    def bowl(where: NDArray[np.float64]) -> Point:
        return Point(5.0 + 0.5 * float((bends * (where - 1) ** 2).sum()), bends * (where - 1))

    seen: list[tuple[float, float]] = []
    ends.append(minimise(bowl, np.zeros(4), 1e-3, told=lambda steps, value, bound: seen.append((value, bound))))
    assert all(value - 5.0 <= bound * (1 + 1e-12) for value, bound in seen)
    assert ends[0].reached
    assert abs(ends[0].value - 5.0) < 1e-5


def test_a_function_that_nothing_lowers_ends_with_what_is_known_of_it() -> None:
    found = minimise(lambda where: Point(1.0, np.ones(3)), np.zeros(3), 1.0)
    assert not found.reached
    assert found.bound == 1.5


def test_standardised_rows_have_mean_0_and_deviation_1_though_far_from_0(tmp_path: Path) -> None:
    values, labels = clouds(3000, 5, 2)
    values[:, 1] = 7.0
    values[:, 2] += 1e5
    values[:, 3] *= 1e-6
    with table_of(tmp_path, values, labels) as table:
        spread = table.spread()
        table.standardise(spread)
        done = np.concatenate([chunk.rows.copy() for chunk in table.chunks()])
        assert table.labels.tolist() == labels
    assert isinstance(spread, Standard)
    assert np.abs(done.mean(0)).max() < 1e-3
    assert done.std(0) == pytest.approx([1, 0, 1, 1, 1], abs=1e-3)
    assert not list(tmp_path.iterdir()), "the matrix has a name"


_TRAIN = """
import json, sys
from pathlib import Path
from pipeline.training.linear import head
from tests import peak

base = peak.held()
wanted = head.Wanted("softmax", 10.0, False, Path(sys.argv[2]))
found = head.train(Path(sys.argv[1]), wanted, lambda says: None)
print(json.dumps([base, peak.held(), found.figures["train"].accuracy]))
"""


def test_memory_does_not_grow_with_the_matrix(tmp_path: Path) -> None:
    """The bound of `head.train`: 128 MiB and what grows with examples, weights and the length of a feature."""
    from tests.unit.training.made_sets import made

    values, labels = clouds(80_000, 960, 2, apart=0.2)
    made(tmp_path / "set", {"train": (values, labels)}, rows=256)
    told = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(tmp_path / "set"), str(tmp_path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    base, most, accuracy = json.loads(told.stdout)
    bound = 128 * 2**20 + 4 * len(labels) + 200 * 2 * 961 + 4096 * 960
    assert values.nbytes > 2 * bound
    assert accuracy > 0.5
    assert most - base < bound, f"{(most - base) >> 20} MiB were taken"


@EACH
def test_the_end_is_what_scikit_learn_finds_in_objective_and_accuracy(loss: Loss, tmp_path: Path) -> None:
    """A column of ones stands for the bias, which the penalty covers; C = 1 / (l2 n) is the same objective.

    softmax against scikit-learn's L-BFGS; each class against the rest: liblinear.  At most 0.2 points of 2,000 rows
    that nobody trained on are judged otherwise.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    values, labels = clouds(4000, 20, 4, apart=0.7)
    l2, count = 1e-3, 2000
    with table_of(tmp_path, values, labels) as table:
        table.standardise(table.spread())
        rows = np.concatenate([one.rows.astype(np.float64) for one in table.chunks()])
    numbers, ones = np.array(labels), np.ones((len(rows), 1))
    with table_of(tmp_path, rows[:count].astype(np.float32), labels[:count]) as own:
        problem = Problem(own, 4, loss, l2)
        found = minimise(problem, problem.start, l2, scaling(directions(own), l2, loss.bend))
        wide, c = np.hstack([rows, ones]), 1.0 / (l2 * count)
        if loss.name == "softmax":
            solver = LogisticRegression(C=c, fit_intercept=False, tol=1e-8, max_iter=10_000)
            theirs = solver.fit(wide[:count], numbers[:count]).coef_
        else:
            exact = (
                LogisticRegression(solver="liblinear", C=c, fit_intercept=False, tol=1e-8, max_iter=10_000)
                if loss.name == "logistic"
                else LinearSVC(loss="squared_hinge", C=c, fit_intercept=False, tol=1e-7, max_iter=200_000)
            )
            theirs = np.array([exact.fit(wide[:count], numbers[:count] == one).coef_[0] for one in range(4)])
        best = problem(theirs).value
    assert found.reached
    assert found.value <= best * (1.0 + 2e-6)
    assert best <= (found.value + found.bound) * (1.0 + 1e-5)
    right = [int(((wide[count:] @ one.T).argmax(1) == numbers[count:]).sum()) for one in (found.where, theirs)]
    assert abs(right[0] - right[1]) <= 0.002 * (len(rows) - count)
    assert right[0] > 0.5 * (len(rows) - count)
