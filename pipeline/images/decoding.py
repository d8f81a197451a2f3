"""Image bytes -> pixels: JPEG by libjpeg-turbo, PNG by libpng, the rest by Pillow; what cannot be had is a Failure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import icon, jpeg, others, png, tiff
from pipeline.images.broken import Broken, torn
from pipeline.images.formats import begins, sniff
from pipeline.images.orientation import upright
from pipeline.images.torn import is_torn
from pipeline.records import Failure

Pixels = NDArray[np.uint8]
Extent = tuple[float, float]

MARGIN = 1.3
"""How much larger than its target a reduced image must still be: under it the resize would show what was left out."""

cv2.setNumThreads(1)  # callers decode in threads of their own; OpenCV's would fight with them


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture: (height, width, 3) uint8, BGR, upright, over white, the first frame."""

    pixels: Pixels
    extent: Extent
    """Its (height, width) in those pixels: of 605 rows at 1/2 it fills 302.5 of 303."""
    damage: str = ""
    """What the decoder says was wrong with the bytes, where it went on all the same; "": nothing."""


def decode(
    content: bytes, *, max_pixels: int = 100_000_000, reduce_to: tuple[int, int] | None = None
) -> Pixels | Failure:
    """The pixels of an image: (height, width, 3) uint8, BGR, upright, over white, the first frame; or a Failure.

    max_pixels: what the image may declare.  reduce_to: (height, width) that it will be resized to; a JPEG much larger
    than that is decoded at 1/2, 1/4 or 1/8 of its size.
    Failures: empty, not_image, truncated, decode, too_many_pixels.  Raises nothing for any content.
    """
    found = read(content, max_pixels, reduce_to)
    return found if isinstance(found, Failure) else found.pixels


def decode_reduced(
    content: bytes, max_pixels: int, reduce_to: tuple[int, int] | None
) -> tuple[Pixels, Extent] | Failure:
    """As `decode`, and the picture's extent (`Decoded`)."""
    found = read(content, max_pixels, reduce_to)
    return found if isinstance(found, Failure) else (found.pixels, found.extent)


def read(
    content: bytes,
    max_pixels: int,
    reduce_to: tuple[int, int] | None,
    room: jpeg.Room | None = None,
    *,
    grey: bool = False,
) -> Decoded | Failure:
    """As `decode`, and what was said of damage.  room: where the pixels may lie until this thread reads again.

    grey: brightness is all that is wanted, so JPEG and PNG give that alone, in three equal channels.
    """
    if not content:
        return Failure.of("empty", "no bytes")
    kind = sniff(content)
    if kind is None:
        if begins(content):
            return Failure.of("truncated", "the image ends within its first bytes")
        return Failure.of("not_image", _looks_like(content))
    try:
        found = _read(content, kind, max_pixels, reduce_to, room, grey=grey)
    except Broken as broken:
        return broken.as_failure()
    except MemoryError:
        return Failure.of("too_many_pixels", f"the {kind} image does not fit into memory")
    except Exception as error:  # decoders of foreign bytes raise nearly anything; here it becomes a value
        return _refused(content, kind, error)
    if found.pixels.dtype != np.uint8 or found.pixels.ndim != 3 or found.pixels.shape[2] != 3 or not found.pixels.size:
        return Failure.of("decode", f"the {kind} decoder gave no picture")
    return found


def _read(
    content: bytes,
    kind: str,
    max_pixels: int,
    reduce_to: tuple[int, int] | None,
    room: jpeg.Room | None,
    *,
    grey: bool,
) -> Decoded:
    if kind == "ico":
        kind, content = icon.largest(content, max_pixels)
    if kind == "jpeg":
        return _jpeg(content, max_pixels, reduce_to, room, grey=grey)
    if kind == "png":
        header = png.read_header(content, max_pixels)
        pixels, turn = png.decode(content, header, grey=grey), header.orientation
    else:
        if (kind == "jpeg2000" and is_torn(content, kind)) or (kind == "tiff" and tiff.is_torn_unseen(content)):
            raise torn(kind)  # their decoders give grey or black for parts that are not there
        pixels, turn = others.decode(content, kind, max_pixels)
    image = upright(pixels, turn)
    return Decoded(image, image.shape[:2])


def _jpeg(
    content: bytes, max_pixels: int, reduce_to: tuple[int, int] | None, room: jpeg.Room | None, *, grey: bool
) -> Decoded:
    header = jpeg.read_header(content, max_pixels)
    size = (header.width, header.height) if header.turned else (header.height, header.width)
    factor = _reduction(size, reduce_to, whole=header.orientation != 1) if header.colours else 1
    pixels, damage = jpeg.decode(content, header, factor, room, grey=grey)
    return Decoded(upright(pixels, header.orientation), (size[0] / factor, size[1] / factor), damage)


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


def _refused(content: bytes, kind: str, error: Exception) -> Failure:
    if isinstance(error, EOFError) or "truncated" in str(error).lower() or is_torn(content, kind):
        return torn(kind).as_failure()
    if kind == "jxl" and content.startswith(b"\xff\x0a"):
        return Failure.of("truncated", "the jxl image is torn or damaged: a bare one does not tell which")
    return Failure.of("decode", f"the {kind} decoder refused it: {type(error).__name__}")


def _looks_like(content: bytes) -> str:
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "it is an HTML page"
    if head.startswith((b"<?xml", b"<svg")):
        return "it is XML or SVG"
    return "it begins as no known image format"
