"""A feature set's net: prepared images in, one row of features an image out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.mean_image import read_mean
from pipeline.errors import NetError
from pipeline.nets import fingerprint
from pipeline.nets.engines import EngineInfo
from pipeline.nets.loading import load
from pipeline.nets.net import Net
from pipeline.nets.pooling import Pooling
from pipeline.nets.preprocessing import told, with_stated
from pipeline.nets.probing import probe
from pipeline.nets.verdict import OWN, Verdict
from pipeline.settings import HOG, FeatureSet

Rows = NDArray[np.float32]
Images = NDArray[np.uint8] | NDArray[np.float32]


class FeatureNet:
    """Runs batches of one padded shape, so that a row's bits do not depend on its neighbours.

    A net whose rows depend on each other all the same is refused, or runs one image at a time, as the settings say.
    feature_set: its paths absolute.  threads: cores that the net may use, 0 for all.
    dim: numbers a row.  input_size: (height, width) of prepared images.  channels: theirs, 3, or 1
    where they are grey.  preprocess: how they are prepared for this
    net.  mean: what the mean's file holds, if any.
    All files are read here, and nothing reads one later: what computes is what was loaded.
    Raises NetError when the files, the blob or the net's input do not fit, and for rows that are not their images' own.
    """

    def __init__(self, feature_set: FeatureSet, threads: int = 0) -> None:
        self._set = feature_set = with_stated(feature_set)
        self._alone = feature_set.dependent_rows == "alone"
        self.batch_size = 1 if self._alone else feature_set.batch_size
        self._blob = HOG if Path(feature_set.net).name == HOG else feature_set.blob
        self._net = self._open(threads)
        self.preprocess = self._net.preparation(feature_set.preprocess)
        mean = self.preprocess.mean
        self.mean = read_mean(mean) if isinstance(mean, str) else None
        self._input = image_input(self._net, self._blob)
        self._takes = taken(self._net, self._input, feature_set)
        self.input_size, self.channels = self._takes.size, self._takes.channels
        out = self._net.shape(self._blob, {self._input: self._shape})
        if not out or out[0] != self.batch_size:
            raise NetError(
                f"blob '{self._blob}' has no row for each image",
                f"its shape is {out} for a batch of {self.batch_size}",
                "choose a blob whose first axis is the batch",
            )
        self._pooled = Pooling(feature_set.pool, self._blob, out[1:], self.input_size, last=self._takes.last)
        self.dim = self._pooled.dim
        self._net.ready(self._blob, {self._input: self._shape})
        self._check_rows()

    @property
    def engine(self) -> EngineInfo:
        """What runs the net, and why: str() is a line for people."""
        return self._net.engine

    @property
    def warnings(self) -> list[str]:
        """What was odd about the net, for the log."""
        return self._net.warnings

    @property
    def normalise(self) -> str:
        return self._set.normalise

    @property
    def preprocessing(self) -> str:
        """What becomes of an image before the net and of the blob after it, in one line for people."""
        return described(self._set, self._takes, self._pooled)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over what decides a feature's value (fingerprint.py); reads the weights the first time."""
        return fingerprint.of_features(
            self._set, self._net.fingerprint(self._blob, {self._input: self._shape}), self.input_size, self.mean
        )

    def forward(self, batch: Images) -> Rows:
        """(n, channels, h, w) prepared images -> (n, dim) float32, normalised as the feature set says.

        n may be 0 or any number; more than batch_size take several passes.  A row that is not finite comes back as
        NaN in every place: `finite` finds them.
        """
        if batch.ndim != 4 or batch.shape[1:] != (self.channels, *self.input_size):
            takes = f"the net takes (n, {self.channels}, {self.input_size})"
            raise NetError(f"the images have the shape {batch.shape}", takes)
        rows = [self._pass(batch[first : first + self.batch_size]) for first in range(0, len(batch), self.batch_size)]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), np.float32)

    @property
    def lacking(self) -> list[str]:
        """The layers whose weights nothing gives: neither the file nor the net's text."""
        return self._net.lacking(self._blob)

    def _check_rows(self) -> None:
        """Raises NetError where a feature would depend on more than its image."""
        if self._alone and self._net.batch_of(self._input) > 1:
            raise NetError(
                f"the net {self._set.net} cannot compute one image alone",
                f"it was exported for batches of {self._net.batch_of(self._input)}",
                "export it with a free batch, or for one image",
            )
        found = self._net.rows(self._blob, {self._input: self._shape})
        if found.kind == "unknown" or (self._alone and found.kind == "mixed"):
            found = self._probed(found)  # an engine may keep something from one pass for the next
        if found.kind == "random":
            raise NetError(
                f"the net {self._set.net} computes another feature of the same image in each pass",
                f"blob '{self._blob}': {found.why}",
                "export the net as it is used after training (eval mode, no dropout)",
            )
        if found.kind == "mixed" and not self._alone:
            raise NetError(
                f"the net {self._set.net} computes another feature of an image when other images are in its batch",
                f"blob '{self._blob}': {found.why}",
                "export the net as it is used after training, choose a blob before that layer, or set dependent_rows = "
                '"alone": each image then has a pass of its own, which is slower',
            )

    def _probed(self, why: Verdict) -> Verdict:
        """What passes of the net tell, where its graph does not."""
        batch = 1 if self._alone else max(2, self.batch_size)
        shape = (batch, *self._shape[1:])

        def run(images: Rows) -> Rows:
            fed = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if self._takes.last else images
            try:
                rows = self._net.forward({self._input: fed}, [self._blob])[self._blob]
            except NetError:
                raise
            except Exception as error:  # what engines raise has no base but Exception
                raise NetError(f"the net {self._set.net} fails on random images", str(error), why.why) from error
            if not rows.ndim or len(rows) != batch:
                raise NetError(f"blob '{self._blob}' has no row for each image", f"{len(rows)} for {batch}")
            return rows.reshape(batch, -1)

        if self.batch_size == 1 and not self._alone:
            try:
                self._net.shape(self._blob, {self._input: shape})
            except NetError:
                return OWN  # it takes one image at a time, whatever it makes of several
        found = probe(run, self._noise(), batch, self._set.precision)
        return found if found.kind == "own" else Verdict(found.kind, f"{found.why} ({why.why})")

    def _noise(self) -> Rows:
        """Images of chance, of the numbers that preprocessing gives; the same each time."""
        how = self.preprocess
        means = how.mean if isinstance(how.mean, list) else [how.raw_scale / 2]
        mean, std = (np.asarray(one[: self.channels], np.float32).reshape(-1, 1, 1) for one in (means, how.std))
        pixels = np.random.default_rng(0).uniform(0, how.raw_scale, (4, self.channels, *self.input_size))
        scaled = (pixels - mean) / std * how.input_scale
        return np.asarray(scaled, np.float32)

    def _open(self, threads: int) -> Net:
        chosen = self._set
        return load(chosen.net, chosen.weights, blobs=[self._blob], engine=chosen.engine,
                    precision=chosen.precision, threads=threads)  # fmt: skip

    @property
    def _shape(self) -> tuple[int, ...]:
        return self._takes.shape(self.batch_size)

    def _pass(self, batch: Images) -> Rows:
        padded = np.asarray(batch, np.float32)
        if len(batch) < self.batch_size:
            padded = np.zeros((self.batch_size, *batch.shape[1:]), np.float32)
            padded[: len(batch)] = batch
        if self._takes.last:
            padded = np.ascontiguousarray(padded.transpose(0, 2, 3, 1))
        rows = self._net.forward({self._input: padded}, [self._blob])[self._blob]
        rows = self._pooled(rows)[: len(batch)]
        rows[~np.isfinite(rows).all(1)] = np.nan
        return normalised(rows) if self._set.normalise == "l2" else rows


def finite(rows: Rows) -> NDArray[np.bool_]:
    """(n, dim) -> (n,): which rows are features; the others are failures, `not_finite`."""
    return np.asarray(np.isfinite(rows).all(1))


def normalised(rows: Rows) -> Rows:
    """Each row divided by its Euclidean length (summed in float64); a row of zeros stays zeros."""
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
    lengths[lengths == 0] = 1.0
    return np.asarray(rows / lengths, np.float32)


def image_input(net: Net, blob: str) -> str:
    """The one input that the blob depends on.  Raises NetError where there is none, or more."""
    names = net.inputs_of(blob)
    if len(names) != 1:
        raise NetError(f"blob '{blob}' depends on {len(names)} inputs", ", ".join(names), "a feature needs exactly one")
    return names[0]


_CHANNELS = (1, 3)


class Taken(NamedTuple):
    """Images as an input takes them.  size: (height, width).  channels: 3, or 1 where they are grey.  last: channels
    come after height and width."""

    size: tuple[int, int]
    channels: int
    last: bool

    def shape(self, batch: int) -> tuple[int, ...]:
        """Of a batch of them."""
        return (batch, *self.size, self.channels) if self.last else (batch, self.channels, *self.size)


def comes_last(shape: Sequence[int]) -> bool:
    """Whether the channels of an input of four axes come last, by the numbers that it declares."""
    return (shape[3] in _CHANNELS and shape[1] not in _CHANNELS) or (shape[1], shape[3]) == (1, 3)


def taken(net: Net, name: str, chosen: FeatureSet) -> Taken:
    """How an input takes images.  chosen: with its preprocessing as applied.

    Raises NetError for an input that takes no images, or images of any size where none is set.
    """
    shape, how = net.inputs[name], chosen.preprocess
    last = len(shape) == 4 and comes_last(shape)
    if how.layout != "auto" and len(shape) == 4 and shape[1 if how.layout == "nchw" else 3] in (*_CHANNELS, -1):
        last = how.layout == "nhwc"
    channels = shape[3 if last else 1] if len(shape) == 4 else 0
    if channels not in (*_CHANNELS, -1):
        raise NetError(
            f"input '{name}' takes no images",
            f"its shape is {shape}; it must be batch, 3 (colour) or 1 (grey), height, width",
            "choose a blob that depends on an input of images",
        )
    declared = shape[1:3] if last else shape[2:]
    high, wide = chosen.input_size or (declared if min(declared) > 0 else how.size or declared)
    if high < 1 or wide < 1:
        raise no_size(name, shape)
    return Taken((high, wide), 3 if channels == -1 else channels, last)


def described(chosen: FeatureSet, takes: Taken, pooled: Pooling) -> str:
    """What becomes of an image before the net and of the blob after it, in one line for people."""
    layout = "NHWC" if takes.last else "NCHW"
    how = told(chosen.preprocess, takes.size, grey=takes.channels == 1)
    return f"{how}, {layout}; {pooled}; normalise {chosen.normalise}"


def no_size(name: str, shape: tuple[int, ...]) -> NetError:
    """An input whose height and width are free, where nothing says which are meant."""
    return NetError(
        f"input '{name}' takes images of any size",
        f"its shape is {shape}",
        "set input_size, for example --input-size 224x224; or name a preset that has a size",
    )
