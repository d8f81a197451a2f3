"""One set, one machine, every way for workers to share a vector: what each costs and brings.

All ways and seeds go on in turn, a pass of each, so that whatever else the machine does meets all of them alike; the
order of the turn changes with every pass.  What a pass came to is looked at outside of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from pipeline.amounts import counted
from pipeline.training.descent.descent import Pass, Run, Wanted, found_rate, objective
from pipeline.training.descent.examples import Examples
from pipeline.training.descent.optimum import Optimum, optimum
from pipeline.training.descent.values import ATOMIC, FREE, GLOBAL, STRIPES
from pipeline.training.descent.workers import Threads

SERIAL, LOCK_FREE, STRIPED, LOCKED, ATOMICS, AVERAGED = (
    "serial", "lock-free", "striped locks", "one lock", "atomic adds", "copies averaged",
)  # fmt: skip
TIMED = 5
"""Passes by which the updates of another number of workers are measured."""
NO_GAIN = 1.1
"""A way that is not faster than one worker by this factor is no gain."""
HARM = 0.005
"""An objective that is further from one worker's than this part of the optimum is harmed."""

SHARE = 0.8
"""Workers that got less of their cores than this were not measured alone."""

Say = Callable[[str], None]


class Step(NamedTuple):
    """After a pass.  seconds: of all passes so far; above: the objective's distance from the optimum, a part of it."""

    seconds: float
    above: float


@dataclass(frozen=True)
class Course:
    """One way with one seed."""

    seed: int
    passes: tuple[Pass, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Way:
    """What a way came to, medians over its seeds.  updates: a second; times: those of one worker, pass by pass;
    processor: seconds of the processor in a second; spread: of `above`, from the best seed to the worst.

    by_workers: (workers, updates a second).
    """

    name: str
    rate: float
    updates: float
    times: float
    processor: float
    conflicts: float | None
    above: float
    spread: tuple[float, float]
    right: float | None
    courses: tuple[Course, ...]
    by_workers: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Compared:
    """right: is of the examples held out, None where there are none."""

    ways: tuple[Way, ...]
    optimum: Optimum
    wanted: Wanted
    examples: int
    seeds: int

    def way(self, name: str) -> Way:
        return next(one for one in self.ways if one.name == name)


def ways(wanted: Wanted) -> dict[str, Wanted]:
    """How each way differs, by its name."""
    shared = replace(wanted, copies=False)
    return {
        SERIAL: replace(wanted, workers=1, copies=True, sharing=FREE),
        LOCK_FREE: replace(shared, sharing=FREE),
        STRIPED: replace(shared, sharing=STRIPES),
        LOCKED: replace(shared, sharing=GLOBAL),
        ATOMICS: replace(shared, sharing=ATOMIC),
        AVERAGED: replace(wanted, copies=True, sharing=FREE),
    }


def compare(examples: Examples, wanted: Wanted, seeds: int, say: Say) -> Compared:
    """wanted: workers: of the ways that share; held: the share on which accuracy is judged."""
    cut = examples.count - round(wanted.held * examples.count)
    own, rest = examples.part(0, cut), examples.part(cut, examples.count)
    best = optimum(own, wanted.loss, wanted.l2, wanted.bias)
    say(f"optimum {best.objective:.6g}, at least {best.bound:.6g}, by a batch solver in {best.passes:,} passes")
    chosen = {name: replace(one, held=0.0) for name, one in ways(wanted).items()}
    alone = wanted.rate or found_rate(own, chosen[SERIAL])
    together = wanted.rate or found_rate(own, chosen[AVERAGED])
    chosen = {name: replace(one, rate=together if name == AVERAGED else alone) for name, one in chosen.items()}
    with ExitStack() as stack:
        turns = _Turns(own, best.objective, chosen, seeds, stack)
        for number in range(1, wanted.passes + 1):
            turns.go(number)
            say(f"pass {number} of {wanted.passes}: {turns.said}")
        scaled = _by_workers(own, chosen)
        found = [turns.way(name, rest if cut < examples.count else None, scaled[name]) for name in chosen]
    return Compared(tuple(found), best, wanted, own.count, seeds)


class _Turns:
    """All runs, side by side."""

    def __init__(self, own: Examples, best: float, chosen: dict[str, Wanted], seeds: int, stack: ExitStack) -> None:
        self._own, self._best, self._chosen = own, best, chosen
        self._runs = {
            (name, seed): Run(own, None, replace(one, seed=one.seed + seed),
                              stack.enter_context(Threads(own, one.workers)))
            for name, one in chosen.items() for seed in range(seeds)
        }  # fmt: skip
        self._passes: dict[tuple[str, int], list[Pass]] = {key: [] for key in self._runs}
        self._steps: dict[tuple[str, int], list[Step]] = {key: [] for key in self._runs}
        for one in chosen.values():  # what is compiled at the first call is no part of a pass
            small = own.part(0, min(own.count, 256))
            with Threads(small, one.workers) as workers:
                Run(small, None, one, workers).once(1)

    def go(self, number: int) -> None:
        """A pass of each."""
        keys = list(self._runs)
        begin = (number - 1) % len(keys)
        for key in keys[begin:] + keys[:begin]:
            run = self._runs[key]
            self._passes[key].append(run.once(number))
            wanted = self._chosen[key[0]]
            value = objective(self._own, run.vectors.model, wanted.loss, wanted.l2)[0]
            seconds = sum(one.seconds for one in self._passes[key])
            self._steps[key].append(Step(seconds, value / self._best - 1.0))

    @property
    def said(self) -> str:
        """How far each way is above the optimum now."""
        above = {name: median(self._steps[key][-1].above for key in self._runs if key[0] == name)
                 for name in self._chosen}  # fmt: skip
        return ", ".join(f"{name} {100 * one:.2f} %" for name, one in above.items())

    def way(self, name: str, rest: Examples | None, scaled: tuple[tuple[int, float], ...]) -> Way:
        keys = [key for key in self._runs if key[0] == name]
        wanted = self._chosen[name]
        passes = [one for key in keys for one in self._passes[key]]
        times = [
            before.seconds / one.seconds
            for key in keys for before, one in zip(self._passes[SERIAL, key[1]], self._passes[key], strict=True)
        ]  # fmt: skip
        above = [self._steps[key][-1].above for key in keys]
        looked = [one.conflicts for one in passes if one.conflicts is not None]
        right = None
        if rest is not None:
            right = median(rest.judge(self._runs[key].vectors.model, wanted.loss).right / rest.count for key in keys)
        assert wanted.rate is not None
        return Way(
            name, wanted.rate, median(one.updates / one.seconds for one in passes), median(times),
            median(one.processor / one.seconds for one in passes), median(looked) if looked else None,
            median(above), (min(above), max(above)), right,
            tuple(Course(key[1], tuple(self._passes[key]), tuple(self._steps[key])) for key in keys), scaled,
        )  # fmt: skip


def _by_workers(own: Examples, chosen: dict[str, Wanted]) -> dict[str, tuple[tuple[int, float], ...]]:
    """Updates a second of each way by 1, 2, 4 ... workers, in turn; the last number is the one that is wanted."""
    most = max(one.workers for one in chosen.values())
    counts = sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})
    timed: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        runs = {
            (name, count): Run(own, None, replace(one, workers=count), stack.enter_context(Threads(own, count)))
            for name, one in chosen.items() for count in (counts if name != SERIAL else [1])
        }  # fmt: skip
        for number in range(1, TIMED + 1):
            for key, run in runs.items():
                one = run.once(number)
                timed.setdefault(key, []).append(one.updates / one.seconds)
    return {
        name: tuple((count, median(timed[name, count])) for count in counts if (name, count) in timed)
        for name in chosen
    }


def answer(found: Compared) -> Sequence[str]:
    """Does leaving out the lock help, without harm?  In sentences, from the figures."""
    free, locked, alone, mean = (found.way(name) for name in (LOCK_FREE, LOCKED, SERIAL, AVERAGED))
    workers = counted(found.wanted.workers, "worker")
    helps = "helps" if free.times >= NO_GAIN else "does not help here"
    harmed = free.above - alone.above > HARM
    disturbed = free.processor < SHARE * found.wanted.workers
    said = []
    if disturbed:
        said.append(
            f"The workers had {free.processor:.2f} of {found.wanted.workers} cores: other programs took the rest, "
            "so these times say little of free cores; measure again when they are."
        )
    said += [
        f"{'By these times leaving' if disturbed else 'Leaving'} out the lock {helps}: {workers} without a lock do "
        f"{free.times:.2f} times the updates of one worker, under one lock {locked.times:.2f} times, under striped "
        f"locks {found.way(STRIPED).times:.2f} times, by atomic additions {found.way(ATOMICS).times:.2f} times.",
        f"It {'does harm' if harmed else 'does no harm'}: after {found.wanted.passes} passes the objective is "
        f"{100 * free.above:.2f} % above the optimum without a lock, {100 * alone.above:.2f} % with one worker.",
        f"Copies that are averaged four times a pass do {mean.times:.2f} times the updates, share nothing, come to the "
        f"same bits on every run, and are {100 * mean.above:.2f} % above the optimum.",
    ]
    quick = max(found.ways, key=lambda one: one.updates)
    if quick.updates < NO_GAIN * alone.updates:
        said.append("On this set and this machine one worker is as fast as any number of them.")
    else:
        said.append(f"The most updates a second: {quick.name}, {quick.updates / 1e6:.2f} million.")
    return said
