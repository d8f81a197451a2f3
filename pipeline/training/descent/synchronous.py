"""Descent by shards that meet: each goes on alone from common weights, then their moves become one, by one fixed tree.

A shard's move is what its own steps change.  Moves are summed by `tree`, and a coordinate's sum is divided by how many
shards have that coordinate at all: where all have it, that is the mean.  The sum is 0 exactly where the gradient over
all examples is, so the divisor decides how fast the optimum is reached, and not where it is.  What is summed depends on
the shards alone, never on who computed them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from pipeline.amounts import size
from pipeline.errors import ConfigError, Diverged
from pipeline.training import tree
from pipeline.training.descent.descent import (
    Best,
    Pass,
    Told,
    Trained,
    Wanted,
    best_rate,
    finite,
    plain,
    sample_of,
    shrink_of,
    step_of,
    trial_of,
)  # fmt: skip
from pipeline.training.descent.examples import Dense, Examples, Labels, Sparse
from pipeline.training.descent.gathering import LeftOut, of_classes
from pipeline.training.descent.memory import free
from pipeline.training.descent.pieces import Lines, Plan, named
from pipeline.training.descent.shard import Place
from pipeline.training.descent.values import Model, Numbers, Step

T = TypeVar("T", covariant=True)
R = TypeVar("R")
_MEETINGS = 4
"""At most so many in a pass of the sample that a rate is found on."""


class Opened(Protocol):
    """Where shards are."""

    def opened(self, shard: int, heard: list[Lines] | None = None) -> AbstractContextManager[Sparse | Dense]: ...


class Act(Protocol[T]):
    """What is done with a shard; a value that travels to who does it."""

    def __call__(self, place: Opened, shard: int) -> T: ...


class Cluster(Protocol):
    """Who works on shards."""

    def each(self, act: Act[R], shards: Sequence[int]) -> list[R]:
        """What comes of these shards, in their order."""

    def total(self, act: Act[tree.Arrays]) -> tree.Arrays:
        """The sum over all shards, by the tree."""


class Here:
    """This process, shard by shard.  folder: for shards."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._place = Place(folder, plan)

    def each(self, act: Act[R], shards: Sequence[int]) -> list[R]:
        return [act(self._place, shard) for shard in shards]

    def total(self, act: Act[tree.Arrays]) -> tree.Arrays:
        return tree.total(range(len(self._place.plan.shards)), lambda shard: act(self._place, shard))


@dataclass(frozen=True)
class Seen:
    """What a shard holds.  count: examples that are trained on; held: others.  columns, have: those coordinates that
    examples have, and how many.  dim: more than any coordinate.  scale: as `Examples.scale` tells it."""

    count: int
    held: int
    classes: Numbers
    many: bool
    dim: int
    columns: Numbers
    have: Numbers
    scale: tuple[float, float]
    lines: list[Lines]


@dataclass(frozen=True)
class Look:
    """Reads a shard.  held: the share of its examples that is held out."""

    held: float

    def __call__(self, place: Opened, shard: int) -> Seen:
        heard: list[Lines] = []
        with place.opened(shard, heard) as examples:
            own, rest = _parts(examples, self.held)
            starts = examples.rows.label_start if isinstance(examples, Sparse) else examples.label_start
            label = examples.rows.label if isinstance(examples, Sparse) else examples.label
            if not own.count:
                raise ConfigError(f"shard {shard} has no example but those that are held out", "",
                                  "give fewer --shards, or a smaller --early-stop")  # fmt: skip
            columns, have = np.zeros(0, np.uint32), np.zeros(0, np.int64)
            if isinstance(own, Sparse):
                columns, have = np.unique(own.rows.columns[: int(own.rows.start[-1])], return_counts=True)
            return Seen(own.count, rest.count, np.unique(label), bool((np.diff(starts) != 1).any()), examples.dim,
                        columns, have, own.scale(), heard)  # fmt: skip


class Common(NamedTuple):
    """What all shards know of the whole.  labels: its classes; dim: its coordinates."""

    wanted: Wanted
    labels: Labels
    dim: int

    def parts(self, examples: Sparse | Dense) -> tuple[Examples, Examples]:
        """(examples that are trained on, those held out), their labels by the classes of the whole."""
        rows = examples.rows if isinstance(examples, Sparse) else None
        start, label = (rows.label_start, rows.label) if rows else (examples.label_start, examples.label)  # type: ignore[union-attr]
        numbers = np.searchsorted(np.array(self.labels.classes), label).astype(np.int32)
        if self.labels.vectors == 1 and not self.labels.many:
            second = numbers == 1
            start, numbers = np.concatenate([[0], np.cumsum(second)]), np.zeros(int(second.sum()), np.int32)
        if isinstance(examples, Sparse):
            named = replace(examples, rows=examples.rows._replace(label_start=start, label=numbers),
                            labels=self.labels, dim=self.dim)  # fmt: skip
            return _parts(named, self.wanted.held)
        return _parts(replace(examples, label_start=start, label=numbers, labels=self.labels), self.wanted.held)


@dataclass(frozen=True)
class FindRate:
    """The rate that comes to the least objective on a sample of a shard, which is cut into as many shards itself.

    parts: of a pass.
    """

    common: Common
    shards: int
    parts: int

    def __call__(self, place: Opened, shard: int) -> float:
        with place.opened(shard) as examples:
            own, _ = _parts(examples, self.common.wanted.held)
            sample = sample_of(own)
            cut = _Cut(sample, min(self.shards, sample.count))
            seen = cut.each(Look(0.0), range(cut.shards))
            whole = _whole(seen, self.common.labels, self.common.dim)
            steps = -(-whole.longest // min(self.parts, _MEETINGS))

            def come_to(rate: float) -> float:
                try:
                    return train(cut, whole, trial_of(self.common.wanted, rate), steps).objective
                except Diverged:
                    return math.inf

            return best_rate(sample.scale()[0], come_to)


class _Cut:
    """A sample that is cut into shards."""

    def __init__(self, sample: Examples, shards: int) -> None:
        self.shards = shards
        self._sample = sample
        self._ends = np.linspace(0, sample.count, shards + 1).astype(int).tolist()

    @contextmanager
    def opened(self, shard: int, heard: list[Lines] | None = None) -> Iterator[Sparse | Dense]:
        found = self._sample.part(self._ends[shard], self._ends[shard + 1])
        assert isinstance(found, Sparse | Dense)
        yield found

    def each(self, act: Act[R], shards: Sequence[int]) -> list[R]:
        return [act(self, shard) for shard in shards]

    def total(self, act: Act[tree.Arrays]) -> tree.Arrays:
        return tree.total(range(self.shards), lambda shard: act(self, shard))


@dataclass(frozen=True)
class Walk:
    """Steps of a part of a pass, from the weights of `model`.  number: of the pass; part, parts: of it.

    Gives (moves of the weights, of the bias, [cost, examples that pulled], [seconds of the processor]).
    """

    common: Common
    model: Model
    step: Step
    number: int
    part: int
    parts: int

    def __call__(self, place: Opened, shard: int) -> tree.Arrays:
        began = time.thread_time()
        with place.opened(shard) as examples:
            own, _ = self.common.parts(examples)
            draws = np.random.default_rng([self.common.wanted.seed, self.number, shard])
            order = np.array_split(own.order(draws, self.common.wanted.rows), self.parts)[self.part]
            model = self.model._replace(weights=self.model.weights.copy(), bias=self.model.bias.copy())
            told = own.walk(model, order, self.step, False)
        return [model.weights - self.model.weights, model.bias - self.model.bias,
                np.array([told.cost, float(told.moved)]), np.array([time.thread_time() - began])]  # fmt: skip


@dataclass(frozen=True)
class Judge:
    """Gives [cost, right] of the examples that are trained on, and of those held out."""

    common: Common
    model: Model

    def __call__(self, place: Opened, shard: int) -> tree.Arrays:
        with place.opened(shard) as examples:
            loss = int(self.common.wanted.loss)
            return [np.array(one.judge(self.model, loss) if one.count else (0.0, 0.0))
                    for one in self.common.parts(examples)]  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """All shards.  penalties: n/df of each coordinate, (1) of dense examples; sharers: of each, how many shards have
    it, one at least."""

    labels: Labels
    dim: int
    shards: int
    count: int
    held: int
    longest: int
    penalties: Numbers
    sharers: Numbers
    scale: tuple[float, float]
    left_out: LeftOut


def look(cluster: Cluster, plan: Plan, name: str, share: float) -> Whole:
    """Reads all shards.  name: of the data, for messages.  share: that is held out.

    Raises ConfigError for data that nothing is learned of.
    """
    seen = cluster.each(Look(share), range(len(plan.shards)))
    count, held = sum(one.count for one in seen), sum(one.held for one in seen)
    if share and not 0 < held < count + held:
        raise ConfigError(f"--early-stop {share:g} holds out no example, or all of them", "",
                          "give a share that leaves examples on both sides")  # fmt: skip
    classes = np.unique(np.concatenate([one.classes for one in seen]))
    with named([line for one in seen for line in one.lines]).told():
        labels = of_classes(classes, any(one.many for one in seen), count + held, name)
    dim = plan.dim or max(one.dim for one in seen)
    _fit(dim, labels)
    return _whole(seen, labels, dim)


def _whole(seen: Sequence[Seen], labels: Labels, dim: int) -> Whole:
    count, held = sum(one.count for one in seen), sum(one.held for one in seen)
    squares, filled = (sum(one.scale[kind] * one.count for one in seen) / count for kind in (0, 1))
    penalties, sharers = np.ones(1), np.full(1, len(seen), np.float32)
    if len(seen[0].columns):
        have, shared = np.zeros(dim, np.int64), np.zeros(dim, np.float32)
        for one in seen:
            have[one.columns] += one.have
            shared[one.columns] += 1
        penalties, sharers = np.divide(count, have, out=np.zeros(dim), where=have > 0), np.maximum(shared, 1)
    lines = [line for one in seen for line in one.lines]
    longest = max(one.count for one in seen)
    return Whole(labels, dim, len(seen), count, held, longest, penalties, sharers,
                 (float(squares), float(filled)), named(lines))  # fmt: skip


def _fit(dim: int, labels: Labels) -> None:
    whole, has = 4 * dim * (6 * labels.vectors + 8), free()
    if whole > has:
        raise ConfigError(f"the weights do not fit in memory: {size(whole)}", f"{size(has)} of memory are free",
                          "give --dim, which leaves out examples with larger indices")  # fmt: skip


def train(cluster: Cluster, whole: Whole, wanted: Wanted, local_steps: int, told: Told = lambda _: None) -> Trained:
    """Passes of all shards.  local_steps: of a shard between two meetings; 0: its whole pass.

    Raises Diverged where a loss is not finite any more.
    """
    common = Common(wanted, whole.labels, whole.dim)
    parts = max(1, -(-whole.longest // local_steps)) if local_steps else 1
    if wanted.rate is None:
        wanted = replace(wanted, rate=cluster.each(FindRate(common, whole.shards, parts), [0])[0])
        common = common._replace(wanted=wanted)
    vectors = common.labels.vectors
    weights, bias = np.zeros(vectors * common.dim, np.float32), np.zeros(vectors, np.float32)
    sharers = np.repeat(whole.sharers, vectors) if len(whole.penalties) == common.dim else whole.sharers
    best, kept, passes = Best(), (weights.copy(), bias.copy()), list[Pass]()

    def model(shrink: Numbers) -> Model:
        return Model(weights, bias, shrink, np.zeros(0, np.int32))

    for number in range(1, wanted.passes + 1):
        step = step_of(wanted, whole.scale, number)
        shrink = shrink_of(step, wanted.l2, whole.penalties).astype(np.float32)
        began, cost, worked = time.perf_counter(), 0.0, 0.0
        for part in range(parts):
            moved, tilted, paid, spent = cluster.total(Walk(common, model(shrink), step, number, part, parts))
            weights += moved / sharers
            bias += tilted / np.float32(whole.shards)
            cost, worked = cost + float(paid[0]), worked + float(spent[0])
        seconds = time.perf_counter() - began
        held = None
        if whole.held:
            held = float(cluster.total(Judge(common, model(shrink)))[1][0]) / whole.held
        passes.append(Pass(number, step.rate, cost / whole.count, held, seconds, worked, whole.count, None))
        told(passes[-1])
        finite(passes[-1], weights)
        if best.take(passes[-1]):
            kept = weights.copy(), bias.copy()
        if best.ended(number):
            break
    weights[:], bias[:] = kept
    own, rest = cluster.total(Judge(common, model(whole.penalties.astype(np.float32))))
    squares = sum(float(np.square(one, dtype=np.float64).sum()) for one in (weights, bias))
    assert wanted.rate is not None
    return Trained(*plain(model(whole.penalties), common.dim), tuple(passes), best.number, wanted.rate,
                   float(own[0]) / whole.count + 0.5 * wanted.l2 * squares, float(own[1]) / whole.count,
                   float(rest[1]) / whole.held if whole.held else None)  # fmt: skip


def _parts(examples: Examples, share: float) -> tuple[Examples, Examples]:
    held = round(share * examples.count)
    return examples.part(0, examples.count - held), examples.part(examples.count - held, examples.count)
