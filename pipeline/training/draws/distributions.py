"""Uniform and Bernoulli numbers as Boost makes them from words, to the bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.training.draws.words import Uint32s, Words

Float32s = NDArray[np.float32]

_RANGE = np.float32(4294967296.0)  # 2^32 - 1 as a float32


def uniform(words: Words, count: int, low: float, high: float) -> Float32s:
    """Numbers in [low, high], one word each; a word whose number rounds up to the end is left out (uniform_real)."""
    least, end = np.float32(low), np.nextafter(np.float32(high), np.float32(np.finfo(np.float32).max))
    found: list[Float32s] = []
    wanted = count
    while wanted:
        numbers = words.take(wanted).astype(np.float32) / _RANGE * (end - least) + least
        inside = numbers[numbers < end]
        found.append(inside)
        wanted -= inside.size
    return found[0] if len(found) == 1 else np.concatenate([*found, np.empty(0, np.float32)])


def kept(words: Uint32s, chance: float) -> NDArray[np.bool_]:
    """Which of these words mean yes, where `chance` is a double (bernoulli_distribution<double>)."""
    return words <= np.uint32(chance * 4294967295.0)


def bernoulli(words: Words, count: int, chance: np.float32) -> Float32s:
    """1 or 0, a word each, with the chance as a float32; a chance of 0 takes no words."""
    if chance == 0:
        return np.zeros(count, np.float32)
    return (words.take(count).astype(np.float32) <= chance * _RANGE).astype(np.float32)
