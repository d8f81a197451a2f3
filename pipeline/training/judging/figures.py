"""Figures of answers: accuracy, loss, classes, confusion; and how far two nets differ on the same examples."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from pipeline.training.data.records import key_text
from pipeline.training.judging.answers import Answers

TOP = 5
_95 = 1.959963984540054  # standard deviations: 95 of 100 intervals hold the truth


@dataclass(frozen=True)
class OfClass:
    """recall: of its examples, the share that the net gives it.  precision: of what the net gives it, the share that is
    its own; None where there is nothing."""

    label: int
    name: str
    examples: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Figures:
    """interval: of the accuracy, 95 %.  loss: mean -ln of the label's share.  confusion: (label, class, examples).

    top5 is 1 of a net of five classes or fewer.  Examples without an answer have no part.
    """

    accuracy: float
    interval: tuple[float, float]
    top5: float
    loss: float
    examples: int
    classes: tuple[OfClass, ...]
    confusion: tuple[tuple[int, int, int], ...]


def figures(answers: Answers, names: dict[int, str]) -> Figures:
    """names: of classes, by label."""
    on = answers.answered
    count, right = int(on.sum()), int(answers.right.sum())
    pairs = Counter(zip(answers.labels[on].tolist(), answers.taken[on].tolist(), strict=True))
    return Figures(
        right / count,
        wilson(right, count),
        float(np.mean(answers.ranks[on] < TOP)),
        float(answers.costs[on].mean()),
        count,
        tuple(_classes(pairs, names)),
        tuple((label, taken, number) for (label, taken), number in sorted(pairs.items())),
    )


def _classes(pairs: Counter[tuple[int, int]], names: dict[int, str]) -> list[OfClass]:
    own: Counter[int] = Counter()
    taken: Counter[int] = Counter()
    for (label, given), number in pairs.items():
        own[label] += number
        taken[given] += number
    return [
        OfClass(label, names.get(label, str(label)), own[label], _share(pairs[label, label], own[label]),
                _share(pairs[label, label], taken[label]))
        for label in sorted(own.keys() | taken.keys())
    ]  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (E. B. Wilson 1927, J. Am. Stat. Assoc. 22: 209-212)."""
    share, square = right / count, _95 * _95
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = _95 / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Differing:
    """An example that one net alone answers rightly.  first, second: the classes that the nets give."""

    key: str
    label: int
    first: int
    second: int


@dataclass(frozen=True)
class Difference:
    """difference: accuracy of the first net minus that of the second, on the examples that both answer.

    interval: 95 %, by Agresti and Min 2005 (Statistics in Medicine 24: 729-740).  p: of McNemar's exact test,
    two-sided: how often chance alone would give as uneven a split of the examples that one net alone answers rightly.
    """

    examples: int
    difference: float
    interval: tuple[float, float]
    p: float
    only_first: int
    only_second: int
    differing: tuple[Differing, ...]


def difference(first: Answers, second: Answers) -> Difference:
    """Of two nets on the same examples, in the same order."""
    if first.keys != second.keys:
        raise ValueError("the answers are of other examples")
    both = first.answered & second.answered
    split = both & (first.right != second.right)
    only_first = int((split & first.right).sum())
    only_second = int(split.sum()) - only_first
    count = int(both.sum())
    found = tuple(
        Differing(key_text(first.keys[at]), int(first.labels[at]), int(first.taken[at]), int(second.taken[at]))
        for at in np.flatnonzero(split)
    )
    return Difference(
        count, (only_first - only_second) / count if count else 0.0, paired(only_first, only_second, count),
        mcnemar(only_first, only_second), only_first, only_second, found,
    )  # fmt: skip


def paired(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """The interval of `Difference`: Wald's, with half an example added to each of the four cells."""
    one, other, all_of = only_first + 0.5, only_second + 0.5, count + 2.0
    middle = (one - other) / all_of
    half = _95 * math.sqrt(max(0.0, one + other - (one - other) ** 2 / all_of)) / all_of
    return max(-1.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Twice the binomial tail of a fair coin (Q. McNemar 1947), at most 1."""
    count, least = only_first + only_second, min(only_first, only_second)
    if not count:
        return 1.0
    tail = ways = 1
    for number in range(least):
        ways = ways * (count - number) // (number + 1)
        tail += ways
    return float(min(1.0, 2 * _over(tail, count)))


def _over(whole: int, halvings: int) -> float:
    """whole / 2^halvings, of numbers beyond any float."""
    spare = max(0, whole.bit_length() - 64)
    return math.ldexp(float(whole >> spare), spare - halvings)
