"""Every layer type that is known: importing this fills the registry."""

from pipeline.nets.layers import (
    combining,
    convolution,
    inputs,
    normalising,
    pointwise,
    pooling,
    products,
    shaping,
)
from pipeline.nets.layers.registry import REGISTRY, Layer, State, make

__all__ = [
    "REGISTRY",
    "Layer",
    "State",
    "combining",
    "convolution",
    "inputs",
    "make",
    "normalising",
    "pointwise",
    "pooling",
    "products",
    "shaping",
]
