"""The weights of random_features.prototxt: numbers from a seed, the same on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.codec.caffe_pb2 import NetParameter

# name, (outputs, inputs, height, width) of each layer with weights, as in the prototxt
LAYERS = (("conv1", (32, 3, 5, 5)), ("conv2", (128, 32, 3, 3)))


def write(path: Path, seed: int = 20160313) -> None:
    """A .caffemodel: weights uniform in +-sqrt(6 / fan-in) (He et al. 2015), biases zero."""
    net = NetParameter(name="random_features")
    for index, (name, shape) in enumerate(LAYERS):
        bound = np.sqrt(6 / np.prod(shape[1:]))
        weights = ((uniform(seed + index, int(np.prod(shape))) * 2 - 1) * bound).astype(np.float32)
        layer = net.layer.add(name=name, type="Convolution")
        blob = layer.blobs.add()
        blob.shape.dim.extend(shape)
        blob.data.extend(weights.tolist())
        bias = layer.blobs.add()
        bias.shape.dim.append(shape[0])
        bias.data.extend([0.0] * shape[0])
    path.write_bytes(net.SerializeToString(deterministic=True))


def uniform(seed: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64, by splitmix64 (Steele, Lea, Flood 2014): no library's generator to drift."""
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)) / 2.0**53
