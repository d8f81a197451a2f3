"""A contact sheet: the image that was asked about and the nearest ones, side by side, with what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.stores.local import typed

CELL, GAP, LINE = 200, 18, 19
COLUMNS = 6
_INK, _GREY, _PALE, _BLUE = (32, 36, 44), (120, 126, 138), (243, 244, 247), (38, 110, 190)


@dataclass(frozen=True)
class Picture:
    """One cell.  pixels: (height, width, 3) uint8, BGR, or None and why there are none.  lines: below it."""

    pixels: npt.NDArray[np.uint8] | None
    reason: str
    lines: tuple[str, ...]


def draw(path: Path, title: str, asked: Picture, near: Sequence[Picture]) -> None:
    """Writes a PNG; the image that was asked about is framed.  Raises a typed error where it cannot be written."""
    pictures = [asked, *near]
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    below = max(len(one.lines) for one in pictures) * LINE
    high = CELL + below + GAP + 8
    sheet = Image.new("RGB", (max(640, columns * (CELL + GAP) + GAP), 44 + rows * high + GAP // 2), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 14), title, fill=_INK, font=_font(17))
    for number, one in enumerate(pictures):
        left, top = GAP + number % columns * (CELL + GAP), 44 + number // columns * high
        _cell(sheet, pen, one, left, top)
        if number == 0:
            pen.rectangle((left - 4, top - 4, left + CELL + 3, top + CELL + 3), outline=_BLUE, width=3)
    try:
        sheet.save(path, "PNG", optimize=True)
    except OSError as error:
        raise typed(error, path) from error


def _cell(sheet: Image.Image, pen: ImageDraw.ImageDraw, one: Picture, left: int, top: int) -> None:
    pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=_PALE)
    if one.pixels is None:
        pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=_GREY)
        lines = _folded(one.reason, CELL - 16, 14)
        for number, text in enumerate(lines):
            y = top + CELL // 2 + (number - len(lines) / 2 + 0.5) * LINE
            pen.text((left + CELL / 2, y), text, fill=_GREY, font=_font(14), anchor="mm")
    else:
        image = Image.fromarray(np.ascontiguousarray(one.pixels[:, :, ::-1]))
        image = ImageOps.contain(image, (CELL, CELL), Image.Resampling.LANCZOS)
        sheet.paste(image, (left + (CELL - image.width) // 2, top + (CELL - image.height) // 2))
    for number, text in enumerate(one.lines):
        shade = _INK if number == 0 else _GREY
        pen.text((left, top + CELL + 7 + number * LINE), _cut(text, CELL, 13), fill=shade, font=_font(13))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _cut(text: str, width: int, size: int) -> str:
    """As much of it as fits: its beginning and its end, which tell ids and URLs apart."""
    if _font(size).getlength(text) <= width:
        return text
    kept = len(text)
    while kept > 4 and _font(size).getlength(_ends(text, kept)) > width:
        kept -= 1
    return _ends(text, kept)


def _ends(text: str, kept: int) -> str:
    return f"{text[: kept // 2]}...{text[len(text) - (kept - kept // 2) :]}"


def _folded(text: str, width: int, size: int) -> list[str]:
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_cut(line, width, size) for line in lines[:6]]
