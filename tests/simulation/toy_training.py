"""A training of arithmetic: what a trainer has to be, without a net, so that a schedule of steps says every bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.ledger.trainings import JobSpec
from pipeline.training.trainer import Computed, Done, Hopeless, Left, Made, Start

MODEL, STATE = "net.caffemodel", "net.solverstate"


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Toy:
    """Where a training is.  weights follow from those before, from the iteration and from the kind of CPU."""

    iteration: int
    weights: str

    @staticmethod
    def first(spec: JobSpec) -> Toy:
        return Toy(0, digest(spec.model, spec.seed))

    def step(self, cpu: str) -> Toy:
        return Toy(self.iteration + 1, digest(self.weights, self.iteration, cpu))

    def files(self) -> dict[str, bytes]:
        """The weights, and the position that belongs to them alone."""
        state = json.dumps({"iteration": self.iteration, "of": digest(self.weights)})
        return {MODEL: self.weights.encode(), STATE: state.encode()}

    @staticmethod
    def read(model: bytes, state: bytes) -> Toy:
        """Raises AssertionError where the two files are not of one snapshot."""
        position = json.loads(state)
        assert position["of"] == digest(model.decode()), "weights and position are of two snapshots"
        return Toy(position["iteration"], model.decode())

    def rows(self) -> Iterator[dict[str, object]]:
        """What the step from here shows: a test before each fourth, a loss at each second."""
        if self.iteration % 4 == 0:
            yield {"step": self.iteration, "kind": "test", "values": {"test/accuracy": self._value("accuracy")}}
        if self.iteration % 2 == 0:
            yield {"step": self.iteration, "kind": "train", "values": {"train/loss": self._value("loss")}}

    def _value(self, of: str) -> float:
        return int(digest(self.weights, of)[:4], 16) / 65536


@dataclass
class ToyTrainer:
    """Trains a Toy.  now: so that rows of two processes differ.  pause: between two steps; begun: counts beginnings."""

    spec: JobSpec
    cpu: str = "one"
    now: Callable[[], float] = lambda: 0.0
    pause: Callable[[], None] = lambda: None
    diverges: int = -1
    """The iteration at which a loss is not finite."""
    begun: list[int] = field(default_factory=list)
    at: Toy = field(default_factory=lambda: Toy(0, ""))
    rows: list[str] = field(default_factory=list)

    def begin(self, start: Start | None) -> None:
        self.rows = []
        if start is None:
            self.at = Toy.first(self.spec)
        else:
            self.at = Toy.read(start.content(MODEL), start.content(STATE))
            assert self.at.iteration == start.iteration
        self.begun.append(self.at.iteration)

    def next(self, wanted: Callable[[], bool]) -> Made | Done | Hopeless | Left:
        while self.at.iteration < self.spec.max_iter:
            if not wanted():
                return Left(self._made() if self.at.iteration else None)
            if self.at.iteration == self.diverges:
                return Hopeless(self.at.iteration, "the loss is not finite", Computed("toy 1", self.cpu))
            self.rows += [json.dumps({**row, "time": self.now()}) for row in self.at.rows()]
            self.at = self.at.step(self.cpu)
            self.pause()
            if self.spec.due(self.at.iteration):
                return self._made()
        last = {"step": self.at.iteration, "kind": "test", "values": {}, "time": self.now()}
        return Done((json.dumps(last),), Computed("toy 1", self.cpu))

    def close(self) -> None:
        self.at = Toy(0, "")

    def _made(self) -> Made:
        rows, self.rows = tuple(self.rows), []
        return Made(self.at.iteration, dict(self.at.files()), rows)


def trained(spec: JobSpec, cpu: str = "one") -> Toy:
    """Where an undisturbed training ends."""
    at = Toy.first(spec)
    while at.iteration < spec.max_iter:
        at = at.step(cpu)
    return at


def steps_shown(spec: JobSpec) -> list[tuple[int, str]]:
    """Step and kind of each row of an undisturbed training, in order."""
    shown, at = [], Toy.first(spec)
    while at.iteration < spec.max_iter:
        shown += [(at.iteration, str(row["kind"])) for row in at.rows()]
        at = at.step("")
    return [*shown, (spec.max_iter, "test")]
