"""Trains a linear model: passes over the examples at a falling rate, by the workers that were asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.amounts import counted, size
from pipeline.errors import ConfigError, Diverged
from pipeline.training.descent.examples import Examples
from pipeline.training.descent.losses import Loss
from pipeline.training.descent.memory import Memory, Shared, free
from pipeline.training.descent.values import FREE, Model, Numbers, Step
from pipeline.training.descent.vectors import Vectors
from pipeline.training.descent.workers import Processes, Threads, Workers

LAST = 0.1
"""Without --decay the rate of the last of n passes is this part of the first one's, divided by n."""
MEETINGS = 4
"""So many times in a pass copies become their mean."""
PATIENCE = 3
"""Passes without a better validation loss after which an early stop ends the training."""
_SAMPLE = 20_000
_TRIED = 20
_TILTS = (0.5, 1.0)  # of the first and the last pass, see _tilt
_BETTER = 1e-4


@dataclass(frozen=True)
class Wanted:
    """minimise 1/n sum loss + l2/2 (|weights|^2 + |bias|^2).

    rate: of the first pass, None: found on a sample.  decay: what it is multiplied by after each pass, None: by LAST.
    held: the share of the examples for an early stop, 0: none.  sharing: how workers write to one vector, see
    `values`; copies: each has its own instead.  rows: single examples in random order, not blocks.
    """

    loss: Loss
    l2: float
    passes: int = 20
    rate: float | None = None
    decay: float | None = None
    held: float = 0.0
    workers: int = 1
    copies: bool = True
    sharing: int = FREE
    rows: bool = False
    bias: bool = True
    processes: bool = False
    seed: int = 0


class Pass(NamedTuple):
    """What a pass came to.  loss: mean of the examples, each before its step; validation: mean after the pass, None
    where nothing is held out.  seconds, processor: of the pass alone.  updates: steps.  conflicts: part of the looks,
    None where nobody looked."""

    number: int
    rate: float
    loss: float
    validation: float | None
    seconds: float
    processor: float
    updates: int
    conflicts: float | None


@dataclass(frozen=True)
class Trained:
    """scores = features @ weights.T + bias.  weights: (vectors, dim); passes: all of them; best: the number of the one
    whose weights these are.  objective: of the examples that were trained on; held_right: on those held out."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    passes: tuple[Pass, ...]
    best: int
    rate: float
    objective: float
    right: float
    held_right: float | None


Told = Callable[[Pass], None]


def train(examples: Examples, wanted: Wanted, told: Told = lambda _: None, memory: Memory | None = None) -> Trained:
    """memory: where the examples lie, for processes.  Raises Diverged where a loss is not finite any more."""
    held = round(wanted.held * examples.count)
    if wanted.held and not 0 < held < examples.count:
        raise ConfigError(f"--early-stop {wanted.held:g} holds out no example, or all of them", "",
                          "give a share that leaves examples on both sides")  # fmt: skip
    own, rest = examples.part(0, examples.count - held), examples.part(examples.count - held, examples.count)
    _fit(own, wanted)
    rate = found_rate(own, wanted) if wanted.rate is None else wanted.rate
    with _workers(own, wanted, memory) as workers:
        return Run(own, rest if held else None, replace(wanted, rate=rate), workers).run(told)


def _fit(examples: Examples, wanted: Wanted) -> None:
    """Raises ConfigError where the weights of all workers do not fit in memory."""
    one = 4 * examples.dim * (examples.labels.vectors + 3)
    whole, has = one * (2 + wanted.workers if wanted.copies else 3), free()
    if whole > has:
        raise ConfigError(f"the weights do not fit in memory: {size(whole)}",
                          f"{counted(examples.dim, 'coordinate')} for {counted(examples.labels.vectors, 'vector')} and "
                          f"{counted(wanted.workers, 'worker')}; {size(has)} of memory are free",
                          "give --dim, which leaves out examples with larger indices, or fewer --workers")  # fmt: skip


def objective(examples: Examples, model: Model, loss: Loss, l2: float) -> tuple[float, float]:
    """(mean loss + l2/2 (|weights|^2 + |bias|^2), the part of the examples that are right)."""
    judged = examples.judge(model, loss)
    squares = sum(float(np.square(one, dtype=np.float64).sum()) for one in (model.weights, model.bias))
    return judged.cost / examples.count + 0.5 * l2 * squares, judged.right / examples.count


def found_rate(examples: Examples, wanted: Wanted) -> float:
    """The rate whose passes over a sample, as many and as many workers' as are wanted, come to the least objective."""
    sample = sample_of(examples)

    def come_to(rate: float) -> float:
        one = replace(
            trial_of(wanted, rate),
            workers=wanted.workers if wanted.copies else 1,
            copies=True,
            sharing=FREE,
            processes=False,
        )
        with Threads(sample, one.workers) as workers:
            run = Run(sample, None, one, workers)
            for number in range(1, one.passes + 1):
                run.once(number)
            return objective(sample, run.vectors.model, wanted.loss, wanted.l2)[0]

    return best_rate(sample.scale()[0], come_to)


def sample_of(examples: Examples) -> Examples:
    """What a rate is found on."""
    return examples.part(0, min(examples.count, _SAMPLE))


def trial_of(wanted: Wanted, rate: float) -> Wanted:
    """A training that a rate is judged by."""
    return replace(wanted, rate=rate, passes=min(wanted.passes, _TRIED), held=0.0)


def best_rate(squares: float, come_to: Callable[[float], float]) -> float:
    """The rate that comes to the least, of powers of 4 and their roots by the mean square of an example."""
    if squares <= 0.0:
        return 1.0
    tried: dict[float, float] = {}

    def at(power: float) -> float:
        if power not in tried:
            tried[power] = come_to(4.0**power / squares)
        return tried[power] if math.isfinite(tried[power]) else math.inf

    best = 0.0
    while at(best - 1) <= at(best) and best > -12:
        best -= 1
    if best == 0:
        while at(best + 1) < at(best) and best < 8:
            best += 1
    best = min((best, best - 0.5, best + 0.5), key=at)
    return float(4.0**best / squares)


def step_of(wanted: Wanted, scale: tuple[float, float], number: int) -> Step:
    """How steps go in a pass.  scale: of the examples, as `Examples.scale` tells it."""
    assert wanted.rate is not None
    decay = (LAST / wanted.passes) ** (1.0 / max(1, wanted.passes - 1)) if wanted.decay is None else wanted.decay
    rate = wanted.rate * decay ** (number - 1)
    tilt = _tilt(wanted, scale, number)
    return Step(rate, rate * tilt, 1.0 / (1.0 + rate * tilt * wanted.l2), int(wanted.loss), wanted.sharing)


def shrink_of(step: Step, l2: float, penalties: Numbers) -> Numbers:
    """What a step multiplies the weights of each coordinate by."""
    found: Numbers = 1.0 / (1.0 + step.rate * l2 * penalties)
    return found


def _tilt(wanted: Wanted, scale: tuple[float, float], number: int) -> float:
    """The bias's part of the rate in a pass; 0: there is no bias.

    Every example moves the bias, and a coordinate some of them.  At the rate of a coordinate, whose mean square is
    that of an example by the coordinates that it has, the bias comes to rest, and at a larger one it gets there.
    """
    if not wanted.bias:
        return 0.0
    squares, filled = scale
    first, last = _TILTS
    power = first + (last - first) * (number - 1) / max(1, wanted.passes - 1)
    return float(squares / max(filled, 1.0) ** power)


def finite(one: Pass, weights: Numbers) -> None:
    """Raises Diverged where a pass came to numbers that are none."""
    if not math.isfinite(one.loss) or not np.isfinite(weights).all():
        raise Diverged(f"the loss is not finite after pass {one.number}", f"the rate is {one.rate:.3g}",
                       "give a smaller --rate, or leave it out: it is found on a sample")  # fmt: skip


class Best:
    """The best pass so far, by its validation loss; without one the last."""

    def __init__(self) -> None:
        self.number = 0
        self._least = math.inf

    def take(self, one: Pass) -> bool:
        """Whether this pass is better than all before."""
        now = one.validation
        if now is not None and not now < self._least * (1.0 - _BETTER):
            return False
        self._least, self.number = self._least if now is None else now, one.number
        return True

    def ended(self, number: int) -> bool:
        """Whether an early stop ends the training after this pass."""
        return number - self.number >= PATIENCE


class Run:
    """The state of a training."""

    def __init__(self, own: Examples, held: Examples | None, wanted: Wanted, workers: Workers) -> None:
        self._own, self._held, self._wanted, self._workers = own, held, wanted, workers
        self._penalties = own.penalties()
        self._scale = own.scale()
        vectors = own.labels.vectors
        sizes = (vectors * own.dim, vectors, len(self._penalties))
        self.vectors = Vectors(workers.memory, sizes, wanted.workers, wanted.copies)

    def run(self, told: Told) -> Trained:
        passes: list[Pass] = []
        best, kept = Best(), (self.vectors.model.weights, self.vectors.model.bias)
        for number in range(1, self._wanted.passes + 1):
            passes.append(self.once(number))
            told(passes[-1])
            finite(passes[-1], self.vectors.model.weights)
            if best.take(passes[-1]) and self._held is not None:
                kept = (self.vectors.model.weights.copy(), self.vectors.model.bias.copy())
            if best.ended(number):
                break
        if self._held is not None:
            self.vectors.put(*kept)
        return self._trained(tuple(passes), best.number)

    def once(self, number: int) -> Pass:
        """One pass."""
        wanted, model = self._wanted, self.vectors.model
        step = step_of(wanted, self._scale, number)
        model.shrink[:] = shrink_of(step, wanted.l2, self._penalties)
        order = self._own.order(np.random.default_rng([wanted.seed, number]), wanted.rows)
        meetings = MEETINGS if wanted.copies and wanted.workers > 1 else 1
        parts = [np.array_split(some, wanted.workers) for some in np.array_split(order, meetings)]
        counted = wanted.workers > 1 and not wanted.copies
        began, worked = time.perf_counter(), time.process_time()
        told = []
        for own in parts:
            told += self._workers.walk(self.vectors.models, own, step, counted)
            self.vectors.average()
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        looks = sum(one.looks for one in told)
        loss = sum(one.cost for one in told) / self._own.count
        held = None if self._held is None else self._held.judge(model, wanted.loss).cost / self._held.count
        return Pass(number, step.rate, loss, held, seconds, worked, self._own.count,
                    sum(one.conflicts for one in told) / looks if looks else None)  # fmt: skip

    def _trained(self, passes: tuple[Pass, ...], best: int) -> Trained:
        wanted, model = self._wanted, self.vectors.model
        assert wanted.rate is not None
        value, right = objective(self._own, model, wanted.loss, wanted.l2)
        held = None if self._held is None else self._held.judge(model, wanted.loss).right / self._held.count
        return Trained(*plain(model, self._own.dim), passes, best, wanted.rate, value, right, held)


def plain(model: Model, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights (vectors, dim) and bias (vectors), whatever way a pass has them."""
    vectors = len(model.bias)
    weights = model.weights.reshape(vectors, -1) if len(model.shrink) == 1 != dim else (
        model.weights.reshape(-1, vectors).T)  # fmt: skip
    return np.ascontiguousarray(weights, np.float32), np.array(model.bias, np.float32)


def _workers(examples: Examples, wanted: Wanted, memory: Memory | None) -> Workers:
    if wanted.processes:
        assert isinstance(memory, Shared)
        return Processes(examples, wanted.workers, memory)
    return Threads(examples, wanted.workers)


def flat(weights: Numbers, bias: Numbers, examples: Examples) -> Model:
    """The other way round from `plain`."""
    shrink = np.ones(len(examples.penalties()), np.float32)
    own = weights if len(shrink) == 1 != examples.dim else weights.T
    return Model(np.ascontiguousarray(own).ravel(), np.array(bias), shrink, np.zeros(0, np.int32))
