"""What a model comes to on other examples than those that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import ConfigError
from pipeline.training.dataset.manifest import MANIFEST
from pipeline.training.descent import data
from pipeline.training.descent.data import Known, Source
from pipeline.training.descent.descent import Trained, flat
from pipeline.training.descent.examples import Dense, Labels, Sparse
from pipeline.training.descent.gathering import LeftOut, as_they_stand
from pipeline.training.descent.losses import Loss
from pipeline.training.descent.memory import Own
from pipeline.training.descent.values import Numbers


@dataclass(frozen=True)
class Test:
    """Examples to judge by, their labels by the classes of the training.  strangers: labels that it does not have."""

    examples: Sparse | Dense
    left_out: LeftOut
    strangers: int


@dataclass(frozen=True)
class Judgement:
    """right: the part of the examples; of several classes an example, the mean part of its classes.  loss: the mean,
    without the penalty."""

    examples: int
    right: float
    loss: float
    strangers: int


@contextmanager
def opened(source: Source, known: Known) -> Iterator[Test]:
    """known: of the training.  A coordinate that it does not have has no weight; an example of a class that it does
    not have has no right answer, and counts as wrong.

    Raises ConfigError and FormatError for what holds no examples, and for examples of another kind.
    """
    if (source.path / MANIFEST).is_file():
        raise ConfigError(f"--test {source.path} is a dataset", "its sides are judged with the net that --net joins",
                          "hathi evaluate --net OUT/deploy.prototxt --weights OUT/weights.caffemodel")  # fmt: skip
    with data.opened(source, Own(), as_they_stand) as found:
        own = found.examples
        assert isinstance(own, Sparse | Dense)
        if isinstance(own, Dense) != known.dense or (known.dense and own.dim != known.dim):
            of = [f"{'dense' if dense else 'sparse'}, of {dim:,} coordinates"
                  for dense, dim in ((known.dense, known.dim), (isinstance(own, Dense), own.dim))]  # fmt: skip
            raise ConfigError(f"--test {source.path} holds examples of another kind", f"{of[1]}; DATA: {of[0]}",
                              "give a file that was made as DATA was")  # fmt: skip
        start, label = (own.rows.label_start, own.rows.label) if isinstance(own, Sparse) else (
            own.label_start, own.label)  # fmt: skip
        start, numbers, strangers = _named(start, label, known.labels)
        if isinstance(own, Sparse):
            ends, kept = _within(own, known.dim)
            rows = own.rows._replace(start=ends, columns=own.rows.columns[kept], value=own.rows.value[kept],
                                     label_start=start, label=numbers)  # fmt: skip
            yield Test(replace(own, rows=rows, labels=known.labels, dim=known.dim), found.left_out, strangers)
        else:
            yield Test(replace(own, label_start=start, label=numbers, labels=known.labels), found.left_out, strangers)


def judged(test: Test, trained: Trained, loss: Loss) -> Judgement:
    """A score a class: of two classes, the first one's is minus the second's, and half of both losses is the loss."""
    weights, bias, share = trained.weights, trained.bias, 1.0
    if len(bias) == 1 and not test.examples.labels.many:
        weights, bias, share = np.concatenate([-weights, weights]), np.concatenate([-bias, bias]), 0.5
    own = test.examples
    told = own.judge(flat(weights, bias, own), int(loss))
    return Judgement(own.count, told.right / own.count, share * told.cost / own.count, test.strangers)


def _named(start: Numbers, label: Numbers, labels: Labels) -> tuple[Numbers, Numbers, int]:
    """(where each example's labels begin, their numbers, how many there were of classes that nobody knows)."""
    classes = np.array(labels.classes)
    numbers = np.searchsorted(classes, label).clip(max=len(classes) - 1)
    known = classes[numbers] == label
    begins: Numbers = np.concatenate([[0], np.cumsum(known)])[start]
    return begins, numbers[known].astype(np.int32), int(len(label) - known.sum())


def _within(examples: Sparse, dim: int) -> tuple[Numbers, Numbers | slice]:
    """(where each example begins, which coordinates are below `dim`)."""
    if examples.dim <= dim:
        return examples.rows.start, slice(None)
    kept = examples.rows.columns < dim
    return np.concatenate([[0], np.cumsum(kept)])[examples.rows.start], kept
