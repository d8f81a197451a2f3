"""Normal numbers as Boost 1.56 and later makes them from words, to the bit: a ziggurat of 128 layers.

A word gives a layer (7 bits), a sign (1 bit) and a place in it (24 bits).  98.8 % of the words lie in the part of their
layer that is under the curve for sure: they are numbers at once, by arrays.  Of the others, each takes the next word as
its height, and the tail takes more words, so those are walked through in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.training.draws.words import Uint32s, Words

Float32s = NDArray[np.float32]
f32 = np.float32

_LEAST, _MOST = 4096, 1 << 15  # words that are looked at together: they stay in a core's cache
_STEP = f32(2.0**-24)


class _Table:
    """The right ends of the layers and the curve's heights there; with the widths and heights between them."""

    def __init__(self, ends: list[float], curve: Callable[[float], float]) -> None:
        self.ends = np.array([*ends, 0.0])
        heights = np.array([curve(end) for end in self.ends])
        self.x, self.y = self.ends.astype(f32), heights.astype(f32)
        self.widths, self.heights = (-np.diff(self.ends)).astype(f32), np.diff(heights).astype(f32)


def _normal_table() -> _Table:
    start = 3.4426198558966519  # where the tail begins, so that 128 layers have one area
    area = start * math.exp(-start * start / 2) + math.sqrt(math.pi / 2) * math.erfc(start / math.sqrt(2))
    ends = [area / math.exp(-start * start / 2), start]
    while len(ends) < 128:
        ends.append(math.sqrt(-2 * math.log(area / ends[-1] + math.exp(-(ends[-1] ** 2) / 2))))
    return _Table(ends, lambda x: math.exp(-x * x / 2))


def _exponential_table() -> _Table:
    start = 7.69711747013104972
    area = (start + 1) * math.exp(-start)
    ends = [area / math.exp(-start), start]
    while len(ends) < 256:
        ends.append(-math.log(area / ends[-1] + math.exp(-ends[-1])))
    return _Table(ends, lambda x: math.exp(-x))


_NORMAL, _EXPONENTIAL = _normal_table(), _exponential_table()

# By the low 8 bits of a word, sign included: where its layer ends, and up to where it lies under the curve for sure.
_ENDS = np.repeat(_NORMAL.x[:128], 2) * np.tile(np.array([-1, 1], f32), 128)
_SURE = np.repeat(_NORMAL.x[1:], 2)  # the least float32 that is not below the end of the layer above
_SURE = np.where(np.repeat(_NORMAL.ends[1:], 2) > _SURE, np.nextafter(_SURE, f32(9)), _SURE)


def normal(words: Words, count: int, mean: float, deviation: float) -> Float32s:
    """Numbers around `mean`, float32."""
    found: list[Float32s] = []
    while count:
        begin = words.place()
        block = words.take(min(_MOST, max(_LEAST, count + count // 32)))
        numbers, used = _unit(block, count)
        if used < block.size:
            words.return_to(begin)
            words.take(used)
        found.append(numbers)
        count -= numbers.size
    unit = np.concatenate(found) if found else np.empty(0, f32)
    return unit * f32(deviation) + f32(mean)


def _unit(words: Uint32s, wanted: int) -> tuple[Float32s, int]:
    """At most `wanted` unit numbers of these words, and how many of the words they took."""
    low = (words & 255).astype(np.intp)
    numbers = (words >> 8).astype(f32) * _STEP * _ENDS.take(low)
    good = np.abs(numbers) < _SURE.take(low)
    slow = np.flatnonzero(~good)
    end = _walk(words, numbers, good, slow, _accepted(words, slow, np.abs(numbers[slow])))
    picked = np.flatnonzero(good[:end])
    if picked.size >= wanted:
        last = int(picked[wanted - 1])
        return numbers[picked[:wanted]], last + 1
    return numbers[picked], end


def _walk(words: Uint32s, numbers: Float32s, good: NDArray[np.bool_], slow: NDArray[np.intp], fate: list[int]) -> int:
    """Settles the words that are no numbers at once.  The number of the first word that is not settled.

    A number that took more words than one stands at the last of them, so that what is before it is used up.
    """
    free, end = 0, words.size
    yes: list[int] = []
    no: list[int] = []
    for at, verdict in zip(slow.tolist(), fate, strict=True):
        if at < free:
            continue
        if verdict == _ALONE:
            try:
                value, free = _attempt(words, at)
            except IndexError:  # the words end within it
                end = at
                break
            good[at:free] = False
            if value is not None:
                good[free - 1], numbers[free - 1] = True, value
        else:
            free = at + 2
            (yes if verdict else no).append(at)
    good[np.array(no, np.intp) + 1] = False
    accepted = np.array(yes, np.intp)
    good[accepted + 1], numbers[accepted + 1] = True, numbers[accepted]
    return end


_NO, _YES, _ALONE = 0, 1, 2


def _accepted(words: Uint32s, slow: NDArray[np.intp], places: Float32s) -> list[int]:
    """What becomes of each of these words with the next one as its height: a number, none, or to be looked at alone."""
    at = slow[slow + 1 < words.size]
    height = words[at + 1].astype(f32) / f32(4294967296.0)
    layer = ((words[at] & 255) >> 1).astype(np.intp)
    under = _is_under(layer, places[: at.size], height)
    alone = (layer == 0) | (height >= 1)
    return [*np.where(alone, _ALONE, under).tolist(), *[_ALONE] * (slow.size - at.size)]


def _is_under(layer: NDArray[np.intp], x: Float32s, height: Float32s) -> NDArray[np.bool_]:
    """The point lies under the curve.  Most are settled by the lines above and below it, as in Boost: of a convex
    layer the diagonal lies above the curve and the tangent below, of a concave one the other way round."""
    table = _NORMAL
    right = table.x[layer]
    y = table.y[layer] + height * table.heights[layer]
    diagonal = table.widths[layer] * height - (right - x)
    tangent = y - (table.y[layer] + (right - x) * table.y[layer] * right)
    convex = table.ends[layer] >= 1
    above, below = np.where(convex, diagonal, tangent), np.where(convex, tangent, diagonal)
    return (above < 0) & ((below < 0) | (y < _exp(-(x * x / f32(2)))))


def _exp(x: Float32s) -> Float32s:
    """e^x rounded once: numpy's own float32 is off by a bit now and then."""
    return np.exp(x.astype(np.float64)).astype(f32)


def _attempt(words: Uint32s, at: int) -> tuple[np.float32 | None, int]:
    """One attempt from the word `at`: its number or None, and the next word.  IndexError: the words end before."""
    word = int(words[at])
    layer, sign = (word & 255) >> 1, f32((word & 1) * 2 - 1)
    if layer == 0:
        value, free = _tail(words, at + 1)
        return f32(value * sign), free
    height, free = _unit_uniform(words, at + 1)
    x = f32(word >> 8) * _STEP * _NORMAL.x[layer]
    if not _is_under(np.array([layer]), np.array([x], f32), np.array([height], f32))[0]:
        return None, free
    return f32(x * sign), free


def _unit_uniform(words: Uint32s, at: int) -> tuple[np.float32, int]:
    while True:
        value = f32(words[at]) / f32(4294967296.0)
        at += 1
        if value < 1:
            return f32(value), at


def _tail(words: Uint32s, at: int) -> tuple[np.float32, int]:
    start = _NORMAL.x[1]
    while True:
        across, at = _exponential(words, at)
        along, at = _exponential(words, at)
        x = f32(across / start)
        if f32(2) * along > x * x:
            return f32(x + start), at


def _exponential(words: Uint32s, at: int) -> tuple[np.float32, int]:
    table, shift = _EXPONENTIAL, f32(0)
    while True:
        word = int(words[at])
        at += 1
        layer = word & 255
        x = f32(word >> 8) * _STEP * table.x[layer]
        if x < table.x[layer + 1]:
            return f32(shift + x), at
        if layer == 0:  # the tail has the form of the whole
            shift = f32(shift + table.x[1])
            continue
        height, at = _unit_uniform(words, at)
        y = table.y[layer] + height * table.heights[layer]
        diagonal = table.widths[layer] * height - (table.x[layer] - x)
        tangent = y - (table.y[layer + 1] + (table.x[layer + 1] - x) * table.y[layer + 1])
        if diagonal < 0 and (tangent < 0 or y < f32(math.exp(-float(x)))):
            return f32(shift + x), at
