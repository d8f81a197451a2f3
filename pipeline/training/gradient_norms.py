"""How large the gradients of each layer are, for people: read as they are, before anything changes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.training.network import LearnedBlob
from pipeline.training.updates import Tensor

MOST = 64
"""Layers of a net that are told: of more, so many from the first to the last, evenly."""
PREFIX = "grad_norm/"


def norms(learned: Sequence[LearnedBlob], gradients: Sequence[Tensor]) -> dict[str, float]:
    """The L2 norm of the gradients of each layer, by `grad_norm/LAYER`; six digits.

    gradients: flat, of all learned blobs, the sum of iter_size passes.  Layers whose rate is 0 have none.
    """
    layers = list(dict.fromkeys(one.layer for one in learned if one.lr_mult))
    told = layers if len(layers) <= MOST else [layers[at * (len(layers) - 1) // (MOST - 1)] for at in range(MOST)]
    squares = dict.fromkeys(told, 0.0)
    for one, gradient in zip(learned, gradients, strict=True):
        if one.lr_mult and one.layer in squares:
            squares[one.layer] += float(gradient.dot(gradient))
    return {f"{PREFIX}{layer}": float(f"{math.sqrt(square):.6g}") for layer, square in squares.items()}
