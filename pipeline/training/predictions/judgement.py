"""What a test says of its examples, as values: a matrix, the most confused pairs, scores, the worst mistakes."""

from __future__ import annotations

from dataclasses import dataclass


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
