"""Caffe's fillers over a stream of words: the values and the words that each takes are Caffe's (filler.hpp)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.graph.fillers import FILLERS, bilinear, fan
from pipeline.nets.graph.lowered import Shape
from pipeline.training.draws.distributions import bernoulli, uniform
from pipeline.training.draws.words import Words
from pipeline.training.draws.ziggurat import normal

Float32s = NDArray[np.float32]
f32 = np.float32


def fill(words: Words, how: caffe_pb2.FillerParameter, shape: Shape, name: str) -> Float32s:
    """Values of `shape`, float32; `name` stands in messages.  A blob without axes has one value, as in Caffe.

    Raises NetError for an unknown type, numbers that fit no distribution, `sparse` where Caffe knows none, and a shape
    that the filler cannot fill.
    """
    whole, shape = shape, shape or (1,)
    _check(how, shape, name)
    count = math.prod(shape)
    match how.type:
        case "constant":
            values = np.full(count, how.value, f32)
        case "uniform":
            values = uniform(words, count, how.min, how.max)
        case "gaussian":
            values = normal(words, count, how.mean, how.std)
            if how.sparse >= 0:
                values *= bernoulli(words, count, f32(how.sparse) / f32(shape[0]))
        case "positive_unitball":
            values = _unitball(uniform(words, count, 0, 1).reshape(shape[0], -1))
        case "xavier":
            bound = np.sqrt(f32(3) / f32(fan(how, shape)))
            values = uniform(words, count, -bound, bound)
        case "msra":
            values = normal(words, count, 0, np.sqrt(f32(2) / f32(fan(how, shape))))
        case _:
            values = bilinear(shape, name)
    return values.reshape(whole)


def _check(how: caffe_pb2.FillerParameter, shape: Shape, name: str) -> None:
    if how.type not in FILLERS:
        raise NetError(f"unknown filler type '{how.type}' of {name}", f"known: {', '.join(FILLERS)}")
    if not math.prod(shape):
        raise NetError(f"the {how.type} filler of {name} has nothing to fill", f"its shape is {shape}")
    if how.type == "uniform" and not how.min <= how.max:
        raise NetError(f"the uniform filler of {name} has min {how.min:g} above max {how.max:g}")
    if how.type == "gaussian" and not how.std > 0:
        raise NetError(f"the gaussian filler of {name} has std {how.std:g}", "", "set std above 0")
    if how.type == "gaussian" and not -1 <= how.sparse <= shape[0]:
        raise NetError(
            f"the gaussian filler of {name} has sparse {how.sparse}",
            f"the blob has {shape[0]} outputs",
            "sparse is the mean number of weights that are not 0: at most as many as outputs; -1 leaves none out",
        )
    if how.type != "gaussian" and how.sparse != -1:
        raise NetError(f"the {how.type} filler of {name} has sparse {how.sparse}", "only gaussian knows it")


def _unitball(rows: Float32s) -> Float32s:
    sums = np.add.accumulate(rows, axis=1, dtype=f32)[:, -1:]  # one after another, as Caffe adds
    return np.divide(rows, sums, dtype=f32)
