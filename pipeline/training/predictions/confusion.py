"""Predictions of a test -> what a page tells of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.training.predictions.file import Predictions
from pipeline.training.predictions.judged import SCORE
from pipeline.training.predictions.judgement import ClassScore, Judgement, Mistake, Pair

WHOLE = 20
"""Of so many classes the matrix is whole;"""
FEW = 12
"""of more it has so many: those that are confused most."""
PAIRS, SCORES, MISTAKES = 12, 40, 24
"""Rows and pictures that are shown."""
Classes = NDArray[np.int32]


def judgement(name: str, found: Predictions) -> Judgement:
    """name: of the test net, as people call it."""
    about = found.about
    if about.why or not len(found.labels):
        return Judgement(name, about.iteration, classes=about.classes, left_out=about.left_out,
                         why=about.why or "no example of the test counts")  # fmt: skip
    labels, predicted = found.labels, found.predicted[:, 0]
    pairs, more = _pairs(labels, predicted)
    shown = tuple(range(about.classes)) if about.classes <= WHOLE else _confused(pairs, labels)
    return Judgement(
        name,
        about.iteration,
        examples=len(labels),
        right=int((labels == predicted).sum()),
        classes=about.classes,
        left_out=about.left_out,
        probabilities=about.kind != SCORE,
        shown=shown,
        matrix=matrix(labels, predicted, shown, about.classes),
        pairs=tuple(pairs[:PAIRS]),
        more_pairs=max(0, more - PAIRS),
        scores=_scores(labels, predicted, about.classes),
        mistakes=tuple(_mistakes(found)),
    )


def matrix(labels: Classes, predicted: Classes, shown: tuple[int, ...], classes: int) -> tuple[tuple[int, ...], ...]:
    """Examples by label (rows) and prediction; the classes that are not shown are one row and one column at the end."""
    place = np.full(classes, len(shown), np.int64)
    place[list(shown)] = np.arange(len(shown))
    side = len(shown) + (len(shown) < classes)
    flat = np.bincount(place[labels] * side + place[predicted], minlength=side * side)
    return tuple(tuple(int(one) for one in row) for row in flat.reshape(side, side))


def _pairs(labels: Classes, predicted: Classes) -> tuple[list[Pair], int]:
    """The most confused ones, more of them than are shown, and how many there are."""
    wrong = labels != predicted
    both, numbers = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    examples = np.bincount(labels)
    order = np.argsort(-numbers, kind="stable")[: 10 * PAIRS]
    found = [Pair(int(both[0, at]), int(both[1, at]), int(numbers[at]), float(numbers[at] / examples[both[0, at]]))
             for at in order]  # fmt: skip
    return found, len(numbers)


def _confused(pairs: list[Pair], labels: Classes) -> tuple[int, ...]:
    """The classes of the most confused pairs; where there are too few, the first ones that the test has."""
    found = dict.fromkeys(one for pair in pairs for one in (pair.label, pair.predicted))
    found |= dict.fromkeys(int(one) for one in np.unique(labels)[:FEW])
    return tuple(sorted(list(found)[:FEW]))


def _scores(labels: Classes, predicted: Classes, classes: int) -> tuple[ClassScore, ...]:
    right = np.bincount(labels[labels == predicted], minlength=classes)
    truly, taken = np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)
    found = [
        ClassScore(one, int(truly[one]), _part(right[one], truly[one]), _part(right[one], taken[one]))
        for one in range(classes)
    ]
    if classes <= WHOLE:
        return tuple(found)
    tested = [one for one in found if one.recall is not None]
    return tuple(sorted(tested, key=lambda one: (one.recall or 0.0, -one.examples, one.label))[:SCORES])


def _part(some: int, of: int) -> float | None:
    return float(some / of) if of else None


def _mistakes(found: Predictions) -> Iterator[Mistake]:
    """The most wrong first."""
    losses = np.nan_to_num(found.loss.astype(np.float64), nan=np.inf)
    wrong = np.flatnonzero(found.labels != found.predicted[:, 0])
    for row in wrong[np.argsort(-losses[wrong], kind="stable")[:MISTAKES]].tolist():
        likeliest = tuple(
            (int(one), float(of)) for one, of in zip(found.predicted[row], found.probability[row], strict=True)
        )
        of_label = None if found.about.kind == SCORE else math.exp(-losses[row])
        yield Mistake(found.keys[row], int(found.labels[row]), likeliest, of_label, found.pictures.get(row, b""))
