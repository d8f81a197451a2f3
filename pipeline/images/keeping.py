"""Image bytes -> the image that is kept to train with: a JPEG of a short side, or the bytes as they were fetched."""

from __future__ import annotations

import numpy as np
import simplejpeg

from pipeline.images.decoding import Extent, Pixels, read
from pipeline.images.jpeg import Room
from pipeline.images.resizing import resize
from pipeline.records import Failure
from pipeline.settings import FeatureSet

LONGEST = 65_500
"""Pixels of a side: JPEG ends there."""


class Keeping:
    """The way from fetched bytes to kept ones that a set's settings describe: the same bytes give the same bytes.

    What is kept was decoded, as for a net: it is upright, over white, the first frame, and no damaged bytes pass as
    whole.  As fetched, the bytes stay what they are, and decoding only judges them.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        self._short, self._quality = feature_set.short_side, feature_set.quality
        self._how = feature_set.preprocess
        self._room = Room()

    @property
    def encoder(self) -> str:
        """What writes the images, with its version; "" where they stay as fetched."""
        return f"libjpeg-turbo of simplejpeg {simplejpeg.__version__}" if self._short else ""

    def noted(self, content: bytes) -> tuple[bytes, str] | Failure:
        """The kept bytes and what the decoder said of damage ("" for a good image), or why there are none.

        Raises nothing for any content.
        """
        wanted = (self._short, self._short) if self._short and self._how.reduced_decode else None
        found = read(content, self._how.max_pixels, wanted, self._room)
        if isinstance(found, Failure):
            return found
        if found.damage and self._how.damaged == "fail":
            return Failure.of("truncated", found.damage)
        if not self._short:
            return content, found.damage
        try:
            return self._encoded(found.pixels, found.extent), found.damage
        except MemoryError:
            return Failure.of("too_many_pixels", "the image does not fit into memory while it is resized")
        except Exception as error:  # an image that nobody foresaw is its own trouble, not that of those beside it
            return Failure.of("decode", f"writing it as JPEG raised {type(error).__name__}")

    def _encoded(self, pixels: Pixels, extent: Extent) -> bytes:
        high, wide = extent
        scale = min(self._short / min(high, wide), LONGEST / max(high, wide), 1.0)
        size = max(1, round(high * scale)), max(1, round(wide * scale))
        sized = pixels if size == pixels.shape[:2] else resize(pixels, size, extent)
        found: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(sized), self._quality, colorspace="BGR", colorsubsampling="420", fastdct=False
        )
        return found
