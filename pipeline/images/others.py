"""GIF, WebP, BMP, TIFF, AVIF, JPEG 2000, icons by Pillow; HEIC and JPEG XL by a plugin where it is installed."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging  # noqa: F401  # loads libtiff

from pipeline.images import boxes, tiff
from pipeline.images.broken import Broken, check_pixels
from pipeline.images.orientation import orientation

Pixels = NDArray[np.uint8]

PILLOW = {"gif": "GIF", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF", "avif": "AVIF", "jpeg2000": "JPEG2000",
          "ico": "ICO", "heif": "HEIF", "jxl": "JXL"}  # fmt: skip
_NAMES = {"heif": "HEIC", "jxl": "JPEG XL"}
_PLUG_INS = {"heif": "pillow-heif", "jxl": "pillow-jxl-plugin"}
Image.MAX_IMAGE_PIXELS = None  # ours is an argument, checked before the pixels are there


def _silence_libtiff() -> None:
    """It writes errors to stderr unless it is told not to, and Pillow tells it so of warnings alone."""
    with contextlib.suppress(OSError, AttributeError):  # another system, or a Pillow without it: nothing to silence
        loaded = (line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines())
        for path in {path for path in loaded if Path(path).name.startswith("libtiff")}:
            library = ctypes.CDLL(path)
            for name in ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler"):
                getattr(library, name)(None)


_silence_libtiff()
logging.getLogger("PIL").addHandler(logging.NullHandler())
logging.getLogger("PIL").propagate = False  # it logs what is wrong with a file, of no item by name: a failure says it


def decode(content: bytes, kind: str, max_pixels: int) -> tuple[Pixels, int]:
    """(height, width, 3) BGR over white, and the orientation that is still to be given to it.

    Raises Broken, and whatever a decoder raises for foreign bytes.
    """
    if kind in _NAMES:
        _plug_in(kind)
    if kind == "tiff":
        tiff.check_tiles(content, max_pixels)
    elif kind == "avif":
        boxes.check_av1(content, max_pixels)
        content = boxes.as_avif(content)
    with _opened(content, kind) as opened:
        size = opened.size
        check_pixels(*size, max_pixels)
        frame = opened.tile[0].extents if kind == "gif" and opened.tile else None
        opened.load()
        if opened.size not in (size, size[::-1]):  # the other way round: a TIFF that Pillow has turned
            raise Broken("decode", f"the {kind} image has another size than its header says")
        turn = 1 if kind in ("tiff", "heif") else orientation(*_says(opened))
        rgb = np.asarray(_over_white(opened))
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    return (_alone(bgr, frame) if frame else bgr), turn


def _opened(content: bytes, kind: str) -> ImageFile.ImageFile:
    """Opened by the one plugin that is meant."""
    try:
        return Image.open(io.BytesIO(content), formats=[PILLOW[kind]])
    except (UnidentifiedImageError, ValueError):
        if kind != "avif" or b"Exif" not in content:
            raise
        # EXIF that cannot be read is no reason to lose the picture.
        return Image.open(io.BytesIO(content.replace(b"Exif", b"skip")), formats=["AVIF"])


def _says(opened: Image.Image) -> tuple[bytes, bytes]:
    """Its EXIF and XMP."""
    found = (opened.info.get("exif"), opened.info.get("xmp"))
    return tuple(value if isinstance(value, bytes) else b"" for value in found)  # type: ignore[return-value]


def _alone(bgr: Pixels, frame: tuple[int, int, int, int]) -> Pixels:
    """A GIF's first frame, and nothing around it: browsers show no background there."""
    left, top, right, bottom = frame
    if (left, top, right, bottom) == (0, 0, bgr.shape[1], bgr.shape[0]):
        return bgr
    white = np.full_like(bgr, 255)
    white[top:bottom, left:right] = bgr[top:bottom, left:right]
    return white


def _plug_in(kind: str) -> None:
    """Raises Broken with the package that reads it: the same words on every host, since they are delivered."""
    try:
        found = importlib.import_module({"heif": "pillow_heif", "jxl": "pillow_jxl"}[kind])
    except ImportError as error:
        raise Broken("decode", f"it is {_NAMES[kind]}; the package {_PLUG_INS[kind]} reads it") from error
    if kind == "heif" and PILLOW[kind] not in Image.OPEN:
        found.register_heif_opener(thumbnails=False)


def _over_white(image: Image.Image) -> Image.Image:
    """Any mode as RGB; what is see-through shows white."""
    if image.mode.startswith("I;16"):  # Pillow would clip, not scale
        values = np.asarray(image).astype(np.uint16)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _stretched(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """32-bit grey: 8-bit values as they are, 16-bit ones scaled, others from their least to their greatest."""
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
