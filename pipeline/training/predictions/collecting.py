"""Collects what a test says of each example, batch after batch, while the test runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.training.data.source import Source
from pipeline.training.predictions import file
from pipeline.training.predictions.file import TOP, About, Predictions
from pipeline.training.predictions.judged import LOGIT, PROBABILITY, Judged
from pipeline.training.predictions.judged import judged as judged_of
from pipeline.training.predictions.pictures import is_picture, picture

MOST = 1_000_000
"""Examples of a test that get a row; of more, the first."""
WORST = 24
"""Mistakes that are kept as pictures."""
LONG = 200
"""Characters of a key that are kept."""
Values = Mapping[str, NDArray[np.float32]]
Array = NDArray[np.float64]


def prepared(kind: str, scores: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[Array, Array]:
    """(rows, classes) scores as probabilities where they are such, and the loss of each row; float64."""
    wide = scores.astype(np.float64)
    rows = np.arange(len(wide))
    with np.errstate(all="ignore"):
        if kind == LOGIT:
            wide -= wide.max(axis=1, keepdims=True)
            logarithms = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
            return np.exp(logarithms), -logarithms[rows, labels]
        if kind == PROBABILITY:
            return wide, -np.log(wide[rows, labels])
        return wide, wide.max(axis=1) - wide[rows, labels]


def likeliest(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(rows, at most TOP) classes, the likeliest first.  Of equal scores the label's is behind, as Accuracy has it."""
    top = min(TOP, scores.shape[1])
    found = np.argpartition(-scores, top - 1, axis=1)[:, :top]
    values = np.take_along_axis(scores, found, axis=1)
    order = np.lexsort((found == labels[:, None], -values), axis=1)
    return np.take_along_axis(found, order, axis=1)


class Collecting:
    """One test of one net; what is kept is bounded.  `add` takes a batch, `write` makes the file of all of them."""

    def __init__(self, graph: CaffeGraph, sources: Sequence[Source]) -> None:
        self._name = graph.name
        self._where = judged_of(graph)
        self._pictured = next((one for one in sources if any(map(is_picture, one.shapes.values()))), None)
        self._named = self._pictured or next(iter(sources), None)
        if isinstance(self._where, Judged):
            labels = self._where.labels
            self._named = next((one for one in sources if labels in one.shapes), self._named)
        self._keys: list[str] = []
        self._parts: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]] = []
        self._rows = self._left_out = 0
        self._worst: list[tuple[float, int, NDArray[np.float32] | None]] = []

    def add(self, number: int, feeds: Values, judged: Values) -> None:
        """number: of the batch.  feeds: what the pass was fed; judged: what it gave beside."""
        where = self._where
        if not isinstance(where, Judged):
            return
        given = {**judged, **feeds}
        scores = given[where.scores].reshape(-1, where.classes)
        labels = given[where.labels].ravel()
        counts = (labels >= 0) & (labels < where.classes) & (labels != where.ignored)
        if self._rows >= MOST:
            counts[:] = False
        self._left_out += int((~counts).sum())
        rows = np.flatnonzero(counts)
        if not rows.size:
            return
        chosen, wanted = scores[rows], labels[rows].astype(np.int64)
        values, losses = prepared(where.kind, chosen, wanted)
        found = likeliest(chosen, wanted)
        keys = self._named.keys(number) if self._named is not None else []
        keys = keys if len(keys) == len(scores) else [""] * len(scores)
        self._keys += [keys[row][:LONG] for row in rows]
        wrong = np.flatnonzero(found[:, 0] != wanted)
        for at in wrong[np.argsort(-np.nan_to_num(losses[wrong], nan=np.inf), kind="stable")[:WORST]]:
            self._keep(float(losses[at]), self._rows + int(at), feeds, int(rows[at]), len(scores))
        top = np.take_along_axis(values, found, axis=1)
        self._parts.append((wanted.astype(np.int32), found.astype(np.int32), top.astype(np.float32),
                            losses.astype(np.float32)))  # fmt: skip
        self._rows += len(rows)

    def _keep(self, loss: float, row: int, feeds: Values, place: int, rows: int) -> None:
        """One of the worst so far: a copy of its image, for the batch's memory is used again."""
        loss = np.inf if np.isnan(loss) else loss
        if len(self._worst) == WORST and loss <= self._worst[-1][0]:
            return
        image = None
        if self._pictured is not None:
            top = next(top for top, shape in self._pictured.shapes.items() if is_picture(shape))
            image = feeds[top][place].copy() if len(feeds[top]) == rows else None
        self._worst = sorted([*self._worst, (loss, row, image)], key=lambda one: (-one[0], one[1]))[:WORST]

    def found(self, iteration: int) -> Predictions:
        """What there is of the test, before this update."""
        where = self._where
        if not isinstance(where, Judged):
            return Predictions(About(iteration, self._name, why=where), [], *_none(0), {})
        about = About(iteration, self._name, where.classes, where.kind, self._left_out)
        if not self._parts:
            return Predictions(about, [], *_none(min(TOP, where.classes)), {})
        labels, predicted, probability, loss = (np.concatenate(one) for one in zip(*self._parts, strict=True))
        transform = self._pictured.transform if self._pictured is not None else None
        pictures = {row: picture(image, transform) for _, row, image in self._worst if image is not None}
        return Predictions(about, self._keys, labels, predicted, probability, loss, pictures)

    def write(self, path: Path, iteration: int) -> None:
        """Puts the file there.  Raises OSError."""
        file.write(path, self.found(iteration))


def _none(
    top: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros(0, np.int32), np.zeros((0, top), np.int32), np.zeros((0, top), np.float32), np.zeros(0, np.float32)
