"""Pictures for tests: rendered, with the spectrum of photographs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Turn = Image.Transpose
ORIENTATION = 0x0112


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colour noise whose amplitude falls as 1/f^1.3, with a bright disc and a dark bar: soft detail and hard edges."""
    random = np.random.default_rng(seed)
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    distance[0, 0] = 1
    planes = []
    for _ in range(3):
        waves = (random.normal(size=distance.shape) + 1j * random.normal(size=distance.shape)) / distance**1.3
        plane = np.fft.irfft2(waves, (height, width))
        planes.append((plane - plane.mean()) / plane.std())
    values = 128 + 40 * (0.8 * planes[0][..., None] + 0.4 * np.stack(planes, -1))
    y, x = np.mgrid[:height, :width]
    soft = np.clip((min(width, height) / 4 - np.hypot(x - width / 2, y - height / 2)) / 3, 0, 1)[..., None]
    values = values * (1 - soft) + np.array([230, 120, 40]) * soft
    values[: height // 10] *= 0.3
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


_TURNS = dict(enumerate((Turn.FLIP_LEFT_RIGHT, Turn.ROTATE_180, Turn.FLIP_TOP_BOTTOM, Turn.TRANSPOSE,
                         Turn.ROTATE_270, Turn.TRANSVERSE, Turn.ROTATE_90), start=2))  # fmt: skip


def upright(opened: Image.Image) -> Image.Image:
    """Turned by the orientation that Pillow reads.  ImageOps.exif_transpose writes the other tags anew as well, and
    fails where one of them cannot be written, though the picture and its orientation can be read."""
    opened.load()
    try:
        number = opened.getexif().get(ORIENTATION)
    except SyntaxError:  # the block is no TIFF: it says nothing
        number = None
    turn = _TURNS.get(number)  # type: ignore[arg-type]
    return opened if turn is None else opened.transpose(turn)


def psnr(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Decibels, of a peak of 255; 200 for equal pictures."""
    error = np.square(first.astype(np.float64) - second).mean()
    return 200.0 if error == 0 else float(10 * np.log10(255**2 / error))


def bgr(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))[:, :, ::-1]
