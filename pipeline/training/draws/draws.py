"""What a training draws: first weights, masks, seeds and orders of its data layers."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError, SolverError
from pipeline.nets.graph.lowered import Shape
from pipeline.training.draws.distributions import kept
from pipeline.training.draws.fillers import fill
from pipeline.training.draws.shuffling import (
    CaffesOrders,
    CShuffler,
    Orders,
    OurOrders,
    OurShuffler,
    Shuffler,
)
from pipeline.training.draws.words import (
    Mersenne,
    MersenneStream,
    PhiloxStream,
    PhiloxWords,
    Place,
    Stream,
    Uint32s,
)
from pipeline.training.network import Mask

Float32s = NDArray[np.float32]

_CAFFES, _OURS = b"caffe-mt19937\n", b"hathi-philox\n"


class Draws(Protocol):
    """The random numbers of one training.

    Who builds the nets asks in Caffe's order: the training net first, then the test nets; layer by layer as they stand
    in the net; of a data layer `word`s as it is set up, of any other layer a `filler` for each of its learned blobs,
    shared ones too, and `pass_over` where Caffe fills one again.  After that, `mask` for each Dropout layer in each
    training pass.
    """

    def filler(
        self, how: caffe_pb2.FillerParameter, shape: Shape, layer: str, blob: int = 0, number: int = 0
    ) -> Float32s:
        """First values of a learned blob; or a top of DummyData in the pass of this number.

        Raises NetError for a filler that Caffe refuses.
        """

    def pass_over(self, how: caffe_pb2.FillerParameter, shape: Shape, layer: str, blob: int) -> None:
        """Draws what such a filler draws, for values that Caffe throws away."""

    def mask(self, mask: Mask, number: int) -> Float32s:
        """A Dropout layer's mask, float32 of its shape, for the training pass of this number (from 0 on)."""

    def pass_over_mask(self, mask: Mask) -> None:
        """Draws what the mask of a pass draws that another process computes."""

    def word(self, layer: str) -> int:
        """A seed that a data layer takes as it is set up."""

    def stream(self, seed: int) -> Stream:
        """The words that follow from such a seed: crops and mirrors."""

    def orders(self, seed: int, count: int) -> Orders:
        """The orders that follow from such a seed, for `count` examples."""

    def shuffler(self, layer: str) -> Shuffler:
        """What shuffles a HDF5Data layer's rows, as its set-up begins."""

    def state(self) -> bytes:
        """What a snapshot keeps, 2.5 KB at most."""

    def restore(self, state: bytes) -> None:
        """Goes on from there.  Raises SolverError for a state of another stream or another seed."""


class CaffesDraws:
    """Caffe's stream of one process: `random_seed` seeds a mt19937, and everything takes its words in turn."""

    def __init__(self, random_seed: int) -> None:
        self._seed = random_seed & 0xFFFFFFFF
        self._words = Mersenne(self._seed)
        self._c = CShuffler()

    def filler(
        self, how: caffe_pb2.FillerParameter, shape: Shape, layer: str, blob: int = 0, number: int = 0
    ) -> Float32s:
        return fill(self._words, how, shape, f"{layer}/{blob}")

    def pass_over(self, how: caffe_pb2.FillerParameter, shape: Shape, layer: str, blob: int) -> None:
        fill(self._words, how, shape, f"{layer}/{blob}")

    def mask(self, mask: Mask, number: int) -> Float32s:
        return _mask(mask, self._words.take(int(np.prod(mask.shape))))

    def pass_over_mask(self, mask: Mask) -> None:
        self._words.skip(int(np.prod(mask.shape)))

    def word(self, layer: str) -> int:
        return int(self._words.take(1)[0])

    def stream(self, seed: int) -> Stream:
        return MersenneStream(seed)

    def orders(self, seed: int, count: int) -> Orders:
        return CaffesOrders(seed, count)

    def shuffler(self, layer: str) -> Shuffler:
        return self._c

    def state(self) -> bytes:
        place = self._words.place()
        return _CAFFES + np.array([self._seed, place.at], "<u4").tobytes() + place.key

    def restore(self, state: bytes) -> None:
        kind, seed, rest = _taken_apart(state, _CAFFES, 4)
        if not kind or seed != self._seed or len(rest) != 4 + 624 * 4:
            raise _foreign(f"random_seed {self._seed}", f"random_seed {seed}" if kind else "no random_seed")
        self._words.return_to(Place(rest[4:], int.from_bytes(rest[:4], "little")))


class OurDraws:
    """A word belongs to the seed, the layer, and the example or the pass: nothing else moves it.

    So it is the same on any number of threads and machines, and a state holds nothing but the seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._taken: Counter[str] = Counter()

    def _key(self, *what: object, size: int = 16) -> int:
        text = "\0".join(map(str, (self._seed, *what)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "little")

    def filler(
        self, how: caffe_pb2.FillerParameter, shape: Shape, layer: str, blob: int = 0, number: int = 0
    ) -> Float32s:
        words = PhiloxWords(PhiloxStream(self._key("filler", layer, blob, number)))
        return fill(words, how, shape, f"{layer}/{blob}")

    def pass_over(self, how: caffe_pb2.FillerParameter, shape: Shape, layer: str, blob: int) -> None:
        """Nothing: a word of another blob does not move."""

    def mask(self, mask: Mask, number: int) -> Float32s:
        """Word k of the layer belongs to value k of all examples one after another, whatever batches they are in."""
        count = int(np.prod(mask.shape))
        return _mask(mask, PhiloxStream(self._key("mask", mask.layer)).words(number * count, count))

    def pass_over_mask(self, mask: Mask) -> None:
        """Nothing: a word of another pass does not move."""

    def word(self, layer: str) -> int:
        self._taken[layer] += 1
        return self._key("word", layer, self._taken[layer], size=8)

    def stream(self, seed: int) -> Stream:
        return PhiloxStream(self._key("stream", seed))

    def orders(self, seed: int, count: int) -> Orders:
        return OurOrders(self._key("orders", seed), count)

    def shuffler(self, layer: str) -> Shuffler:
        return OurShuffler(self._key("rows", self.word(layer)))

    def state(self) -> bytes:
        return _OURS + self._seed.to_bytes(8, "little")

    def restore(self, state: bytes) -> None:
        kind, seed, rest = _taken_apart(state, _OURS, 8)
        if not kind or seed != self._seed or rest:
            raise _foreign(f"seed {self._seed} of our own stream", f"seed {seed}" if kind else "Caffe's stream")


def draws(random_seed: int, own: int) -> Draws:
    """Of a solver: Caffe's stream where its random_seed is 0 or more, else ours from the seed `own` (64 bits)."""
    return CaffesDraws(random_seed) if random_seed >= 0 else OurDraws(own & 0xFFFFFFFFFFFFFFFF)


def _mask(mask: Mask, words: Uint32s) -> Float32s:
    ratio = float(np.float32(mask.ratio))
    if not 0 <= ratio < 1:
        raise NetError(f"layer '{mask.layer}' (Dropout): dropout_ratio is {ratio:g}", "", "give 0 or more and below 1")
    return (kept(words, 1.0 - ratio) * np.float32(1.0 / (1.0 - ratio))).reshape(mask.shape)


def _taken_apart(state: bytes, kind: bytes, size: int) -> tuple[bool, int, bytes]:
    if not state.startswith(kind):
        return False, 0, b""
    rest = state[len(kind) :]
    return True, int.from_bytes(rest[:size], "little"), rest[size:]


def _foreign(here: str, there: str) -> SolverError:
    return SolverError(
        "the snapshot's random numbers are of another training",
        f"this one draws from {here}, the snapshot's drew from {there}",
        "resume with the random_seed that it began with",
    )
