"""HOG as a net: the descriptor of oriented gradients as OpenCV 4 computes it, which needs no weights.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", 2005; details as in OpenCV's
modules/objdetect/src/hog.cpp with its defaults (OpenCV 5 no longer has it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import ConfigError, NetError
from pipeline.nets.digests import hashed
from pipeline.nets.engines.engine import EngineInfo, Run
from pipeline.nets.graph.lowered import Lowered, Shape
from pipeline.nets.net import Blobs, Net
from pipeline.nets.verdict import OWN, Verdict

if TYPE_CHECKING:
    from pipeline.nets.onnx.source import Model
    from pipeline.settings import Preprocess

_CELL, _BLOCK, _BINS = 8, 16, 9
_CLIP = 0.2  # of L2-Hys normalisation
Floats = NDArray[np.float32]


class _Numpy:
    info = EngineInfo("numpy", np.__version__, "fp32", "HOG needs no engine")

    def compile(self, graph: Lowered) -> Run:
        raise NetError("this engine runs HOG only")

    def compile_model(self, model: Model, shapes: Mapping[str, Shape], outputs: Sequence[str]) -> Run:
        raise NetError("this engine runs HOG only")


class Hog(Net):
    """Input `data` (n, 3, h, w), BGR from 0 to 255, by default 128 x 64; blob `hog` (n, numbers).

    Blocks of 16 x 16 in steps of 8, cells of 8 x 8, 9 directions of 20 degrees.
    """

    def __init__(self) -> None:
        super().__init__(_Numpy())
        self.name = "hog"
        self.inputs = {"data": (1, 3, 128, 64)}

    @property
    def blobs(self) -> tuple[str, ...]:
        return ("data", "hog")

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("hog",)

    def inputs_of(self, blob: str) -> list[str]:
        return ["data"]

    def shape(self, blob: str, shapes: Mapping[str, Shape]) -> Shape:
        count, _, high, wide = shapes.get("data", self.inputs["data"])
        if high < _BLOCK or wide < _BLOCK or high % _CELL or wide % _CELL:
            raise NetError(
                f"HOG takes no images of {high} x {wide}",
                f"each side must be at least {_BLOCK} and a multiple of {_CELL}",
                "set input_size, e.g. [128, 64]",
            )
        return count, (high // _CELL - 1) * (wide // _CELL - 1) * 4 * _BINS

    def preparation(self, wanted: Preprocess) -> Preprocess:
        """The pixels themselves, resized as the set wants it: no mean, no scale, blue first."""
        if isinstance(wanted.mean, str):
            raise ConfigError("hog takes no mean image", wanted.mean, "set preprocess.mean = [0, 0, 0]")
        pixels = {"mean": [0.0], "std": [1.0], "raw_scale": 255.0, "input_scale": 1.0, "channel_order": "bgr"}
        return wanted.model_copy(update=pixels)

    def ready(self, blob: str, shapes: Mapping[str, Shape]) -> None:
        self.shape(blob, shapes)

    def rows(self, blob: str, shapes: Mapping[str, Shape]) -> Verdict:
        return OWN

    def fingerprint(self, blob: str, shapes: Mapping[str, Shape]) -> str:
        return hashed(["hog", _BLOCK, _CELL, _BINS, list(shapes.get("data", self.inputs["data"])[1:])])

    def forward(self, feeds: Mapping[str, ArrayLike], blobs: Sequence[str] | None = None) -> Blobs:
        images = np.asarray(feeds["data"], np.float32)
        shape = self.shape("hog", {"data": images.shape})
        pixels = np.clip(np.rint(images), 0, 255)
        rows = [_descriptor(image) for image in pixels]
        return {"hog": np.stack(rows) if rows else np.empty(shape, np.float32)}


def _descriptor(image: Floats) -> Floats:
    """(3, h, w) BGR, 0 to 255 -> the blocks' histograms, columns of blocks first, columns of cells within a block."""
    votes = _votes(image)
    patches = np.lib.stride_tricks.sliding_window_view(votes, (_BLOCK, _BLOCK), axis=(0, 1))[::_CELL, ::_CELL]
    rows, columns = patches.shape[:2]
    flat = patches.reshape(rows, columns, _BINS, _BLOCK * _BLOCK)
    blocks = np.einsum("ycbp,pk->cykb", flat, _SHARES, optimize=True).reshape(columns * rows, 4 * _BINS)
    return np.asarray(_normalised(blocks).reshape(-1), np.float32)


def _votes(image: Floats) -> Floats:
    """(h, w, 9): each pixel's gradient, shared by its two nearest directions."""
    roots = np.sqrt(image)
    framed = np.pad(roots, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    across = framed[:, 1:-1, 2:] - framed[:, 1:-1, :-2]
    down = framed[:, 2:, 1:-1] - framed[:, :-2, 1:-1]
    strongest = np.argmax((across**2 + down**2)[::-1], axis=0)[None]  # the channel; of equals red, green, blue
    across, down = (np.take_along_axis(one[::-1], strongest, 0)[0] for one in (across, down))
    place = np.arctan2(down, across) * np.float32(_BINS / np.pi) - np.float32(0.5)
    low = np.floor(place)
    share = (place - low)[..., None]
    first = low.astype(np.int64)[..., None] % _BINS
    strength = np.hypot(across, down)[..., None]
    found = np.zeros((*strength.shape[:2], _BINS), np.float32)
    np.put_along_axis(found, first, strength * (1 - share), 2)
    np.put_along_axis(found, (first + 1) % _BINS, strength * share, 2)
    return found


def _shares() -> Floats:
    """(256, 4): what each place of a block gives to each of its four cells, columns first, under a Gaussian."""
    line = np.arange(_BLOCK)
    bell = np.exp(-((line - _BLOCK / 2) ** 2) / (2 * (_BLOCK / 4) ** 2))
    centre = (line + 0.5) / _CELL - 0.5
    cells = np.clip(1 - np.abs(centre[:, None] - np.arange(2)), 0, None) * bell[:, None]
    shares = np.einsum("yr,xc->yxcr", cells, cells).reshape(_BLOCK * _BLOCK, 4)
    return np.asarray(shares, np.float32)


_SHARES = _shares()


def _normalised(blocks: Floats) -> Floats:
    """Each row by its length, clipped, and by its length again (L2-Hys)."""
    lengths = np.sqrt((blocks**2).sum(1, keepdims=True)) + blocks.shape[1] * 0.1
    clipped = np.minimum(blocks / lengths, _CLIP)
    return np.asarray(clipped / (np.sqrt((clipped**2).sum(1, keepdims=True)) + 1e-3), np.float32)
