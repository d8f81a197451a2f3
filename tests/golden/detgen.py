"""Deterministic weights and images, from seeds only: what the golden full-size nets were given.

Every parameter blob has its own stream, SeedSequence([seed, crc32(layer name), blob index]) -> PCG64 -> uniform
float64 in C order, so that one blob can be made without the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BN_FACTOR = np.float32(999.98236)  # what a trained BatchNorm's third blob holds
MEAN_BGR = np.array([104.0, 117.0, 123.0], np.float32)
GAINS = {"fc8": 2.0**-10, "loss3/classifier": 2.0**-10, "fc1000": 2.0**-4}  # classifiers: a soft softmax


def stream(seed: int, name: str, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode()), index])))


def uniform(seed: int, name: str, index: int, shape: Sequence[int], low: float, high: float) -> NDArray[np.float32]:
    draws = stream(seed, name, index).random(tuple(map(int, shape)))
    return (low + (high - low) * draws).astype(np.float32)


def fill(
    seed: int, kind: str, name: str, index: int, shape: Sequence[int], first_input_scale: float = 1.0
) -> NDArray[np.float32]:
    """The value of parameter blob `index` of the layer `name`, whose Caffe type is `kind`."""
    low, high = -0.5, 0.5
    if kind in ("Convolution", "InnerProduct", "Deconvolution"):
        if index == 0:
            fan_in = {"InnerProduct": shape[-1], "Deconvolution": shape[0]}.get(kind, int(np.prod(shape[1:])))
            bound = float(np.sqrt(3.0 * GAINS.get(name, 2.0) / fan_in)) * first_input_scale
            low, high = -bound, bound
        else:
            low, high = -1.0, 1.0
    elif kind == "BatchNorm":
        if index == 2:
            return np.full(tuple(shape), BN_FACTOR, np.float32)
        low, high = ((-0.2, 0.2), (0.5, 1.5))[index]
        return uniform(seed, name, index, shape, low, high) * BN_FACTOR
    elif kind == "Scale":
        low, high = (-0.2, 0.2) if index else (0.1, 0.5) if name.endswith("branch2c") else (0.7, 1.3)
    elif kind == "Bias":
        low, high = -1.0, 1.0
    elif kind == "PReLU":
        low, high = -0.3, 0.5
    return uniform(seed, name, index, shape, low, high)


def images(seed: int, count: int, size: int) -> NDArray[np.uint8]:
    """(count, size, size, 3) BGR: random blocks of four scales, averaged in integers."""
    out = np.empty((count, size, size, 3), np.uint8)
    for number in range(count):
        total = np.zeros((size, size, 3), np.int64)
        for scale, (cell, weight) in enumerate(((1, 1), (4, 2), (16, 3), (64, 4))):
            cells = -(-size // cell)
            blocks = stream(seed, f"image{number}", scale).integers(0, 256, (cells, cells, 3))
            total += weight * np.repeat(np.repeat(blocks, cell, 0), cell, 1)[:size, :size]
        out[number] = np.clip((total - 10 * 128) // 6 + 128, 0, 255).astype(np.uint8)
    return out


def feed(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, h, w, 3) uint8 BGR -> (n, 3, h, w) float32, mean subtracted."""
    return np.ascontiguousarray((pictures.astype(np.float32) - MEAN_BGR).transpose(0, 3, 1, 2))
