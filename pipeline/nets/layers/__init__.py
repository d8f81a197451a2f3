"""Every layer type that is known: importing this fills the registry."""

from pipeline.nets.layers import (
    combining,
    convolution,
    infogain,
    inputs,
    losses,
    normalising,
    pointwise,
    pooling,
    products,
    recurrent,
    selecting,
    shaping,
)
from pipeline.nets.layers.registry import REGISTRY, Layer, State, make

__all__ = [
    "REGISTRY",
    "Layer",
    "State",
    "combining",
    "convolution",
    "infogain",
    "inputs",
    "losses",
    "make",
    "normalising",
    "pointwise",
    "pooling",
    "products",
    "recurrent",
    "selecting",
    "shaping",
]
