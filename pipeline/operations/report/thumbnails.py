"""Small pictures of images, made anew here: no foreign byte gets into a page."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace

from pipeline.operations.report.facts import Example, Thumbnail
from pipeline.training.predictions.judgement import Judgement

SIDE = 96
PIXELS = 50_000_000
"""An image that declares more is not opened."""
PNG_BYTES = 12_000
"""A picture that needs more is made smaller."""
BEGINS = 16
_NOBODY = Example("", "", 0, 0, "", "", "", False, "")


def thumbnail(example: Example, content: bytes) -> Thumbnail:
    """As much as can be seen of the bytes: the part of a cut image that is there, else its first bytes alone."""
    from PIL import Image  # slow to import, and wanted for pages with such images only

    begins = content[:BEGINS].hex(" ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is wrong with it we tell ourselves
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > PIXELS:
                    note = f"declares {image.width} x {image.height} pixels: not opened"
                    return Thumbnail(example, len(content), begins, note=note)
                note = "what is there of it" if _cut(image) else "Pillow can read it"
                return Thumbnail(example, len(content), begins, _small(image), note)
    except MemoryError:
        raise
    except Exception as error:  # foreign bytes in a foreign decoder: anything may be raised, and all of it means this
        return Thumbnail(example, len(content), begins, note=f"nothing can be seen of it ({type(error).__name__})")


def remade(content: bytes) -> bytes:
    """A small picture of bytes that should be one, made anew; nothing where they are none."""
    return thumbnail(_NOBODY, content).png


def redrawn(found: Judgement) -> Judgement:
    """The same with pictures that were made anew."""
    mistakes = tuple(replace(one, png=remade(one.png) if one.png else b"") for one in found.mistakes)
    return replace(found, mistakes=mistakes)


def _cut(image: object) -> bool:
    """Load the pixels; whether the image ends before they do, with those that came in place."""
    try:
        image.load()  # type: ignore[attr-defined]
    except OSError:
        if getattr(image, "tile", None):
            image.tile = []  # type: ignore[attr-defined]  # what is not there is not waited for
            return True
        raise
    return False


def _small(image: object) -> bytes:
    from PIL import Image

    assert isinstance(image, Image.Image)
    rgb = image.convert("RGB")
    for side in (SIDE, SIDE // 2, SIDE // 4):
        rgb.thumbnail((side, side))
        out = io.BytesIO()
        rgb.save(out, "PNG", optimize=True)
        if out.tell() <= PNG_BYTES:
            break
    return out.getvalue()
