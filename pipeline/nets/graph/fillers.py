"""Caffe's fillers: what a parameter holds when no weights are given for it (include/caffe/filler.hpp)."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError

FILLERS = ("constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear")


def fill(filler: caffe_pb2.FillerParameter, shape: tuple[int, ...], seed: str) -> NDArray[np.float32]:
    """Values of `shape`, float32; a blob without axes has one value.

    Caffe draws the random ones anew in each process; here they come from `seed` (the layer's name and the blob's
    index), so that a run can be repeated.  Raises NetError for an unknown type, numbers that fit no distribution, or a
    shape that it cannot fill.
    """
    whole, shape = shape, shape or (1,)
    random = np.random.default_rng(np.random.SeedSequence(zlib.crc32(seed.encode())))
    match filler.type:
        case "constant":
            values = np.full(shape, filler.value)
        case "uniform":
            if not filler.min <= filler.max:
                raise NetError(f"the uniform filler of {seed} has min {filler.min:g} above max {filler.max:g}")
            values = random.uniform(filler.min, filler.max, shape)
        case "gaussian":
            if not filler.std > 0:
                raise NetError(f"the gaussian filler of {seed} has std {filler.std:g}", "set std above 0")
            values = random.normal(filler.mean, filler.std, shape)
            if filler.sparse >= 0:  # about `sparse` values a row are kept
                values *= random.random(shape) < filler.sparse / max(1, shape[0])
        case "positive_unitball":
            values = random.random(shape)
            values /= values.reshape(shape[0], -1).sum(1).reshape((-1,) + (1,) * (len(shape) - 1))
        case "xavier":
            bound = math.sqrt(3.0 / fan(filler, shape))
            values = random.uniform(-bound, bound, shape)
        case "msra":
            values = random.normal(0.0, math.sqrt(2.0 / fan(filler, shape)), shape)
        case "bilinear":
            values = bilinear(shape, seed)
        case unknown:
            raise NetError(f"unknown filler type '{unknown}' of {seed}", f"known: {', '.join(FILLERS)}")
    return values.astype(np.float32).reshape(whole)


def is_random(filler: caffe_pb2.FillerParameter) -> bool:
    return filler.type not in ("constant", "bilinear")


def fan(filler: caffe_pb2.FillerParameter, shape: tuple[int, ...]) -> float:
    """What xavier and msra divide by: the values that an output (or an input) is connected to, or their mean."""
    count = math.prod(shape)
    fan_in = count / shape[0]
    fan_out = count / shape[1] if len(shape) > 1 else count
    norms = caffe_pb2.FillerParameter
    return {norms.FAN_IN: fan_in, norms.FAN_OUT: fan_out, norms.AVERAGE: (fan_in + fan_out) / 2}[filler.variance_norm]


def bilinear(shape: tuple[int, ...], seed: str) -> NDArray[np.float32]:
    """The kernel of bilinear upsampling in every channel of a 4-axis, square filter, float32 at each step.

    Its centre is that of Caffe's filler, (size - 1) / (2 factor): for sizes like 3 and 6 other texts have another one.
    """
    if len(shape) != 4 or shape[2] != shape[3]:
        raise NetError(f"the bilinear filler of {seed} needs a square 4-axis filter", f"its shape is {shape}")
    size = shape[3]
    factor = math.ceil(size / 2)
    centre = np.float32((size - 1) / (2.0 * factor))
    line = np.float32(1) - np.abs(np.arange(size, dtype=np.float32) / np.float32(factor) - centre)
    return np.broadcast_to(np.outer(line, line), shape).copy()
