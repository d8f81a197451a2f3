"""Three dozen pictures of things that a shop might sell: mugs, cushions and lamps, drawn by this script.

They belong to this project and are under its licence; no picture of anybody else's is in the sample.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

EACH = 12
MANY = 60
"""Pictures of a kind that differ from each other: colours, patterns and periods come round together after so many."""
PATTERNS = ("striped", "chequered", "dotted", "glazed")
SIZES = ((240, 180), (320, 320), (200, 260), (420, 300))
FORMATS = {"mug": ("jpg",), "cushion": ("png", "webp"), "lamp": ("jpg", "gif")}
ENCODERS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF"}

Colour = tuple[int, int, int]


def render() -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each picture, e.g. `mug-03.jpg`; the same pixels at every call."""
    for kind, formats in FORMATS.items():
        for number in range(EACH):
            suffix = formats[number % len(formats)]
            yield f"{kind}-{number:02}.{suffix}", _encode(picture(kind, number), suffix)


def more() -> Iterator[tuple[str, bytes]]:
    """As `render`, what follows after those: JPEGs, none of them equal to another."""
    for kind in FORMATS:
        for number in range(EACH, MANY):
            yield f"{kind}-{number:02}.jpg", _encode(picture(kind, number), "jpg")


def category(name: str) -> str:
    """What the picture of an item shows, e.g. `striped mug` of `mug-12`."""
    kind, _, number = name.partition("-")
    return f"{PATTERNS[int(number) % len(PATTERNS)]} {kind}"


def picture(kind: str, number: int) -> Image.Image:
    """One thing on a soft background, RGB; its colour goes round the circle with its number."""
    width, height = SIZES[number % len(SIZES)]
    body = _colour(number / EACH, 0.75, 0.85)
    image = Image.fromarray(_gradient(width, height, _colour(number / EACH + 0.45, 0.12, 0.97)))
    surface = Image.fromarray(_texture(width, height, number, body, _colour(number / EACH + 0.08, 0.55, 0.55)))
    mask = Image.new("L", (width, height), 0)
    {"mug": _mug, "cushion": _cushion, "lamp": _lamp}[kind](ImageDraw.Draw(mask), width, height)
    shadow = mask.filter(ImageFilter.GaussianBlur(width / 40)).point(lambda value: value // 3)
    image.paste(Image.new("RGB", image.size, (60, 60, 70)), (width // 40, height // 30), shadow)
    image.paste(surface, (0, 0), mask)
    return image


def _mug(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    left, right, top, bottom = width * 0.25, width * 0.62, height * 0.25, height * 0.8
    draw.rounded_rectangle((left, top, right, bottom), radius=width * 0.04, fill=255)
    handle = (right - width * 0.08, top + height * 0.1, right + width * 0.14, bottom - height * 0.12)
    draw.arc(handle, -100, 100, fill=255, width=max(4, width // 25))


def _cushion(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    across, down = np.linspace(0, 2 * np.pi, 90), min(width, height) * 0.4
    x = width / 2 + down * np.sign(np.cos(across)) * np.abs(np.cos(across)) ** 0.35
    y = height / 2 + down * np.sign(np.sin(across)) * np.abs(np.sin(across)) ** 0.35
    draw.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=255)


def _lamp(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    middle = width / 2
    shade = ((-0.12, 0.15), (0.12, 0.15), (0.24, 0.48), (-0.24, 0.48))
    draw.polygon([(middle + x * width, y * height) for x, y in shade], fill=255)
    draw.rectangle((middle - width * 0.015, height * 0.48, middle + width * 0.015, height * 0.84), fill=255)
    draw.ellipse((middle - width * 0.14, height * 0.81, middle + width * 0.14, height * 0.89), fill=255)


def _gradient(width: int, height: int, colour: Colour) -> np.ndarray:
    light = np.linspace(1.0, 0.82, height)[:, None] * np.linspace(0.96, 1.0, width)[None, :]
    return (light[:, :, None] * np.array(colour)).astype(np.uint8)


def _texture(width: int, height: int, number: int, first: Colour, second: Colour) -> np.ndarray:
    """One of PATTERNS by the number, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    period = 10 + 3 * (number % 5)
    patterns = (
        (x + y) % period < period // 2,
        (x // period + y // period) % 2 == 0,
        (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < (period / 3) ** 2,
        np.sin(x / period) * np.cos(y / period) > 0.8,
    )
    mixed = np.where(patterns[number % len(patterns)][:, :, None], np.array(first), np.array(second))
    light = np.clip(1.15 - 0.5 * x / width, 0, 1)[:, :, None]
    return (mixed * light).astype(np.uint8)


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


def _encode(image: Image.Image, suffix: str) -> bytes:
    buffer = BytesIO()
    options = {"quality": 82} if suffix in ("jpg", "webp") else {}
    image.save(buffer, ENCODERS[suffix], **options)
    return buffer.getvalue()
