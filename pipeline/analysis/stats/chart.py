"""A chart as a picture: axes, bars, lines.  Drawn by Pillow, which is here for images anyway; matplotlib and what it
brings would be 57 MB more on every gateway for three plain charts (ARCHITECTURE.md, Kept by hand)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Values = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

WIDTH, HEIGHT = 1200, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 30, 64, 70
_SHARPER = 2
"""Drawn so many times larger and reduced, which smooths the edges."""
INK: Colour = (32, 36, 44)
_GREY: Colour = (120, 126, 138)
_GRID: Colour = (228, 231, 236)
COLOURS: tuple[Colour, ...] = ((38, 110, 190), (222, 120, 32))
"""Of the first run and of the second."""


@dataclass(frozen=True)
class Series:
    """Bars (edges: one more than heights) or, without edges, points at 0, 1, ..."""

    label: str
    heights: Values
    edges: Values | None = None


def draw(path: Path, title: str, across: str, up: str, series: Sequence[Series]) -> None:
    """Writes a PNG.  The first series is filled, a second one is a line over it."""
    canvas = _Canvas(title, across, up, series)
    canvas.draw()
    canvas.save(path)


class _Canvas:
    def __init__(self, title: str, across: str, up: str, series: Sequence[Series]) -> None:
        self._image = Image.new("RGB", (WIDTH * _SHARPER, HEIGHT * _SHARPER), "white")
        self._pen = ImageDraw.Draw(self._image)
        self._title, self._across, self._up, self._series = title, across, up, series
        places = [one.edges if one.edges is not None else np.array([0, len(one.heights)]) for one in series]
        self._x = _span(float(min(p[0] for p in places)), float(max(p[-1] for p in places)))
        self._whole = all(one.edges is None for one in series)
        heights = np.concatenate([one.heights for one in series])
        self._y = _span(min(0.0, float(heights.min(initial=0))), float(heights.max(initial=0)) * 1.05)

    def draw(self) -> None:
        self._axes()
        for number, one in enumerate(self._series):
            self._one(one, COLOURS[number % len(COLOURS)], filled=number == 0)
        self._frame()
        self._words()

    def save(self, path: Path) -> None:
        self._image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(path, optimize=True)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        return (_LEFT + across * wide) * _SHARPER, (HEIGHT - _BOTTOM - up * high) * _SHARPER

    def _one(self, one: Series, colour: Colour, *, filled: bool) -> None:
        edges = one.edges if one.edges is not None else np.arange(len(one.heights) + 1)
        outline: list[tuple[float, float]] = [self._place(float(edges[0]), 0)]
        for low, high, height in zip(edges[:-1].tolist(), edges[1:].tolist(), one.heights.tolist(), strict=True):
            (x0, y0), (x1, y1) = self._place(low, height), self._place(high, 0)
            if filled:
                pale = tuple(int(255 - (255 - part) * 0.55) for part in colour)
                self._pen.rectangle((x0, min(y0, y1), max(x1, x0 + 1), max(y0, y1)), fill=pale)
            outline += [(x0, y0), (x1, y0)]
        outline.append(self._place(float(edges[-1]), 0))
        if not filled or len(one.heights) <= 200:
            self._pen.line(outline, fill=colour, width=2 * _SHARPER)

    def _axes(self) -> None:
        for value in ticks(*self._y):
            (x0, y), (x1, _) = self._place(self._x[0], value), self._place(self._x[1], value)
            self._pen.line((x0, y, x1, y), fill=_GRID, width=_SHARPER)
            self._text(x0 - 8 * _SHARPER, y, short(value), "rm", _GREY, 14)
        for value in ticks(*self._x):
            if self._whole and value != int(value):
                continue
            x, y = self._place(value, self._y[0])
            self._pen.line((x, y, x, y + 5 * _SHARPER), fill=_GREY, width=_SHARPER)
            self._text(x, y + 9 * _SHARPER, short(value), "ma", _GREY, 14)

    def _frame(self) -> None:
        (x0, y0), (x1, zero) = self._place(self._x[0], self._y[0]), self._place(self._x[1], 0)
        self._pen.line((x0, y0, x1, y0), fill=_GREY, width=_SHARPER)
        self._pen.line((x0, zero, x1, zero), fill=_GREY, width=_SHARPER)

    def _words(self) -> None:
        self._text(_LEFT * _SHARPER, 16 * _SHARPER, self._title, "la", INK, 20)
        self._text((WIDTH + _LEFT - _RIGHT) / 2 * _SHARPER, (HEIGHT - 14) * _SHARPER, self._across, "mb", INK, 15)
        self._text(_LEFT * _SHARPER, (_TOP - 7) * _SHARPER, self._up, "lb", _GREY, 13)
        right = float((WIDTH - _RIGHT) * _SHARPER)
        if len(self._series) > 1:
            for number in reversed(range(len(self._series))):
                label = self._series[number].label
                self._text(right, (_TOP - 7) * _SHARPER, label, "rb", COLOURS[number], 15)
                right -= _font(15 * _SHARPER).getlength(label) + 24 * _SHARPER

    def _text(self, x: float, y: float, text: str, anchor: str, colour: Colour, size: int) -> None:
        self._pen.text((x, y), text, fill=colour, font=_font(size * _SHARPER), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface: nothing has to be installed."""
    return ImageFont.load_default(size)


def _span(low: float, high: float) -> tuple[float, float]:
    if high > low:
        return low, high
    return low - 0.5, low + 0.5


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) within a span."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number as an axis shows it."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.4g}{letter}"
    return f"{value:.4g}" if abs(value) > 1e-9 else "0"
