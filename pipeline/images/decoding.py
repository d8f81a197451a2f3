"""Image bytes -> pixels: JPEG and plain PNG by OpenCV, the rest by Pillow; what cannot be decoded is a Failure."""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.images import jpeg, png
from pipeline.images.formats import sniff
from pipeline.records import Failure

Pixels = NDArray[np.uint8]
Extent = tuple[float, float]

MARGIN = 1.3
"""How much larger than its target a reduced image must still be: under it the resize would show what was left out."""

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_PILLOW = {"gif": "GIF", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF", "avif": "AVIF", "jpeg2000": "JPEG2000",
           "ico": "ICO", "png": "PNG", "jpeg": "JPEG"}  # fmt: skip
cv2.setNumThreads(1)  # callers decode in threads of their own; OpenCV's would fight with them
Image.MAX_IMAGE_PIXELS = None  # ours is an argument, checked before the pixels are there


def decode(
    content: bytes, *, max_pixels: int = 100_000_000, reduce_to: tuple[int, int] | None = None
) -> Pixels | Failure:
    """The pixels of an image: (height, width, 3) uint8, BGR, upright, over white, the first frame; or a Failure.

    max_pixels: what the image may declare.  reduce_to: (height, width) that it will be resized to; a JPEG much larger
    than that is decoded at 1/2, 1/4 or 1/8 of its size.
    Failures: empty, not_image, truncated, decode, too_many_pixels.  Raises nothing for any content.
    """
    found = decode_reduced(content, max_pixels, reduce_to)
    return found if isinstance(found, Failure) else found[0]


def decode_reduced(
    content: bytes, max_pixels: int, reduce_to: tuple[int, int] | None
) -> tuple[Pixels, Extent] | Failure:
    """As `decode`, and the picture's (height, width) in those pixels: of 605 rows at 1/2 it fills 302.5 of 303."""
    if not content:
        return Failure.of("empty", "no bytes")
    kind = sniff(content)
    if kind is None:
        return Failure.of("not_image", _looks_like(content))
    try:
        if kind == "jpeg":
            return _jpeg(content, max_pixels, reduce_to)
        return _whole(_png(content, max_pixels) if kind == "png" else _pillow(content, kind, max_pixels))
    except jpeg.Broken as broken:
        return Failure.of(broken.reason, str(broken))
    except MemoryError:
        return Failure.of("too_many_pixels", f"the {kind} image does not fit into memory")
    except Exception as error:  # decoders of foreign bytes raise nearly anything; here it becomes a value
        return _refused(kind, error)


def _whole(image: Pixels | Failure) -> tuple[Pixels, Extent] | Failure:
    return image if isinstance(image, Failure) else (image, image.shape[:2])


def _refused(kind: str, error: Exception) -> Failure:
    cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
    if cut:
        return Failure.of("truncated", f"the {kind} image ends before its end")
    return Failure.of("decode", f"the {kind} decoder refused it: {type(error).__name__}")


def _too_large(width: int, height: int, max_pixels: int) -> Failure | None:
    if width * height <= max_pixels:
        return None
    return Failure.of("too_many_pixels", f"{width} x {height} pixels; at most {max_pixels} are allowed")


def _jpeg(content: bytes, max_pixels: int, reduce_to: tuple[int, int] | None) -> tuple[Pixels, Extent] | Failure:
    header = jpeg.read_header(content)
    failure = _too_large(header.width, header.height, max_pixels)
    if failure:
        return failure
    if header.components == 4:
        return _whole(_pillow(content, "jpeg", max_pixels))  # CMYK and YCCK: OpenCV's colours are not right
    size = (header.width, header.height) if header.turned else (header.height, header.width)
    factor = _reduction(size, reduce_to, whole=header.orientation != 1)
    image = _opencv(content, "jpeg", _REDUCED.get(factor, cv2.IMREAD_COLOR))
    return image if isinstance(image, Failure) else (image, (size[0] / factor, size[1] / factor))


def _reduction(size: tuple[int, int], reduce_to: tuple[int, int] | None, whole: bool) -> int:
    """whole: without a last pixel that the picture fills in part, which an orientation may make the first."""
    if reduce_to is None:
        return 1
    for factor in (8, 4, 2):
        if whole and (size[0] % factor or size[1] % factor):
            continue
        if all(math.ceil(has / factor) >= MARGIN * wants for has, wants in zip(size, reduce_to, strict=True)):
            return factor
    return 1


def _png(content: bytes, max_pixels: int) -> Pixels | Failure:
    header = png.read_header(content)
    failure = _too_large(header.width, header.height, max_pixels)
    if failure:
        return failure
    if header.see_through or header.oriented:
        return _pillow(content, "png", max_pixels)
    return _opencv(content, "png", cv2.IMREAD_COLOR)


def _opencv(content: bytes, kind: str, how: int) -> Pixels | Failure:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), how)
    if image is None:
        return Failure.of("decode", f"the {kind} decoder refused it")
    return np.asarray(image, np.uint8)


def _pillow(content: bytes, kind: str, max_pixels: int) -> Pixels | Failure:
    if kind not in _PILLOW:
        return Failure.of("decode", f"no decoder for {kind}")
    with Image.open(io.BytesIO(content), formats=[_PILLOW[kind]]) as opened:
        failure = _too_large(opened.width, opened.height, max_pixels)
        if failure:
            return failure
        opened.load()
        rgb = np.asarray(_over_white(ImageOps.exif_transpose(opened)))
    return np.ascontiguousarray(rgb[:, :, ::-1])


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


def _looks_like(content: bytes) -> str:
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "it is an HTML page"
    if head.startswith((b"<?xml", b"<svg")):
        return "it is XML or SVG"
    return "it begins as no known image format"
