"""What the page of a training tells, as values.  Times are seconds since 1970, UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
"""One of metrics.jsonl: step, time, kind, values."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """iteration: from which on it trained.  at, ended: None and "" where nothing says it.  why: of its end."""

    number: int
    process: str
    iteration: int
    at: float | None = None
    ended: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """bytes: of its files.  there: they are not pruned."""

    iteration: int
    at: float | None
    bytes: int
    best: bool = False
    there: bool = True


@dataclass(frozen=True, slots=True)
class Pair:
    """Examples of one class that the net takes for another one.  part: of all of their class."""

    label: int
    predicted: int
    number: int
    part: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """recall: the part of its examples that the net finds.  precision: the part that is right of what it takes for it.

    None where there is no such example.
    """

    label: int
    examples: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """of_label: the probability of the label; None where scores are none.  likeliest: classes, each with its own."""

    key: str
    label: int
    likeliest: tuple[tuple[int, float], ...]
    of_label: float | None
    png: bytes = b""


@dataclass(frozen=True)
class Judgement:
    """What the last test of one test net says of its examples.

    shown: the classes of `matrix`, whose rows are labels and whose columns are predictions; where it is not of all
    classes a last row and column hold the others.  pairs: the most confused.  scores: by class, the worst first where
    not all are shown.  why: why there is nothing of it.
    """

    name: str
    iteration: int
    examples: int = 0
    right: int = 0
    classes: int = 0
    left_out: int = 0
    probabilities: bool = True
    shown: tuple[int, ...] = ()
    matrix: tuple[tuple[int, ...], ...] = ()
    pairs: tuple[Pair, ...] = ()
    more_pairs: int = 0
    scores: tuple[ClassScore, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Training:
    """state: in a word.  why: what there is to say of it.  of: the iteration at which it ends; None: nothing says it.

    facts: (name, value) of solver, data and engine.  kinds: of outputs by their blob: "loss" or "accuracy".
    """

    title: str
    made: float
    state: str
    why: str
    iteration: int
    of: int | None
    rows: tuple[Row, ...]
    snapshots: tuple[Snapshot, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What is not in here, and why."""
