"""What a net answers: of each example its class, the label's rank and what the answer costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError
from pipeline.images import Preparation
from pipeline.nets.features import FeatureNet, finite
from pipeline.nets.net import Net
from pipeline.records import Failure
from pipeline.training.data import datums
from pipeline.training.data.records import key_text
from pipeline.training.data.transform import Unfit
from pipeline.training.dataset.examples import Example
from pipeline.training.judging.examples import Examples

Row = NDArray[np.float32]
_LEAST = np.finfo(np.float32).tiny  # Caffe's losses take no logarithm of less
_SUMS_TO_1 = 1e-3


class Scoring(Protocol):
    """A net as it serves."""

    batch: int

    def __call__(self, examples: Sequence[Example]) -> list[Row | Failure]:
        """The values of the blob, (classes,) float32, of each example; or why there are none."""


class OfImages:
    """Images through the preparation and the engine of a feature set.  The net's values are taken as they are."""

    def __init__(self, net: FeatureNet) -> None:
        self._net, self.batch = net, net.batch_size
        self._prepare = Preparation(net.preprocess, net.input_size, net.mean, net.channels)

    def __call__(self, examples: Sequence[Example]) -> list[Row | Failure]:
        prepared = [self._prepared(one.datum) for one in examples]
        good = [image for image in prepared if not isinstance(image, Failure)]
        rows = iter(self._net.forward(np.stack(good)) if good else ())
        return [image if isinstance(image, Failure) else _checked(next(rows)) for image in prepared]

    def _prepared(self, datum: caffe_pb2.Datum) -> Row | Failure:
        if datum.encoded:
            return self._prepare(datum.data)
        try:
            pixels = datums.image(datum)
        except Unfit as error:
            return Failure.of("decode", str(error))
        if pixels.dtype != np.uint8 or len(pixels) not in (1, 3):
            return Failure.of("decode", f"{len(pixels)} channels of {pixels.dtype} are no picture")
        colour = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
        return self._prepare.prepare(np.ascontiguousarray(colour))


class OfFeatures:
    """Features through a net that takes them, such as a head that stands alone."""

    batch = 256

    def __init__(self, net: Net, blob: str) -> None:
        self._net, self._blob = net, blob
        names = net.inputs_of(blob)
        if len(names) != 1 or len(net.inputs[names[0]]) != 2:
            shapes = ", ".join(f"{name} {net.inputs[name]}" for name in names)
            raise ConfigError(
                f"the net {net.name} takes no features",
                f"its inputs are: {shapes}",
                "a net of images is judged on a dataset of images",
            )
        self._input = names[0]

    def __call__(self, examples: Sequence[Example]) -> list[Row | Failure]:
        rows = np.array([one.datum.float_data for one in examples], np.float32)
        takes = self._net.inputs[self._input][1]
        if rows.shape[1] != takes:
            says = f"the dataset's have {rows.shape[1]:,} numbers, the net takes {takes:,}"
            raise ConfigError("the features have another length than the net's", says, "give the net of these features")
        found = self._net.forward({self._input: rows}, [self._blob])[self._blob]
        return [_checked(row) for row in found.reshape(len(rows), -1)]


def _checked(row: Row) -> Row | Failure:
    return row if finite(row[None])[0] else Failure.of("not_finite")


@dataclass(frozen=True)
class Failed:
    """An example without an answer.  key: as text."""

    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Answers:
    """All arrays have a place for each example, in the order of the dataset.

    taken: the class that the net gives.  ranks: how many other classes have at least the label's score, as Caffe's
    Accuracy counts: 0 is right.  costs: -ln of the label's share.  answered: False where the net gave nothing.
    """

    keys: list[bytes]
    labels: NDArray[np.int32]
    taken: NDArray[np.int32]
    ranks: NDArray[np.int32]
    costs: NDArray[np.float64]
    answered: NDArray[np.bool_]
    failed: tuple[Failed, ...]

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.answered & (self.ranks == 0))


def answer(examples: Examples, scoring: Scoring) -> Answers:
    """One pass.  Raises ConfigError for a label that the net has no class for, and where nothing was answered."""
    keys: list[bytes] = []
    labels: list[int] = []
    found: list[tuple[int, int, float] | None] = []
    failed: list[Failed] = []
    for some in _batches(examples, scoring.batch):
        for example, row in zip(some, scoring(some), strict=True):
            keys.append(example.key)
            labels.append(example.datum.label)
            if isinstance(row, Failure):
                failed.append(Failed(key_text(example.key), row.reason, row.detail))
                found.append(None)
                continue
            if not example.datum.HasField("label") or not 0 <= example.datum.label < row.size:
                label = example.datum.label if example.datum.HasField("label") else "missing"
                raise ConfigError(
                    f"the net has no class for example '{key_text(example.key)}'",
                    f"its label is {label}; the blob has {row.size} values",
                    "give the blob of the scores by --blob, or the net of these classes",
                )
            found.append(_judged(row, example.datum.label))
    if not any(found):
        first = f"the first: {failed[0].key}: {failed[0].reason} {failed[0].detail}" if failed else "there is none"
        raise ConfigError(f"no example of {examples} was answered", first.rstrip(), "look at the dataset and the net")
    taken, ranks, costs = zip(*(one or (-1, -1, 0.0) for one in found), strict=True)
    return Answers(
        keys, np.array(labels, np.int32), np.array(taken, np.int32), np.array(ranks, np.int32),
        np.array(costs, np.float64), np.array([one is not None for one in found]), tuple(failed),
    )  # fmt: skip


def _batches(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    rest = iter(examples)
    while some := list(islice(rest, size)):
        yield some


def _judged(row: Row, label: int) -> tuple[int, int, float]:
    """The class that is taken, the label's rank, and -ln of its share.

    A row that is nowhere negative and sums up to 1 holds shares; any other holds scores, of which softmax makes shares.
    """
    rank = int(np.count_nonzero(row >= row[label])) - 1
    taken = int(row.argmax())
    if taken == label and rank > 0:  # one of several with the highest score: Caffe counts it as wrong
        others = row.copy()
        others[label] = -np.inf
        taken = int(others.argmax())
    values = row.astype(np.float64)
    if values.min() >= 0.0 and abs(values.sum() - 1.0) <= _SUMS_TO_1:
        share = values[label]
    else:
        share = np.exp(values[label] - values.max()) / np.exp(values - values.max()).sum()
    return taken, rank, -float(np.log(max(share, _LEAST)))
