"""Which way up a picture is: what EXIF says of it, else what XMP says.  The one opinion that decoding has."""

from __future__ import annotations

import re
import warnings

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

Pixels = NDArray[np.uint8]

_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}
warnings.filterwarnings("ignore", module=r"PIL\.")  # it speaks of damaged tags on stderr, of no item by name


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """1 to 8, as EXIF numbers them; 1 where nothing is said, where it is damaged, or where it is no such number.

    exif: a TIFF block, with or without its `Exif` mark, read as Pillow's `ImageOps.exif_transpose` reads it: any type
    whose value equals a whole number (SHORT, LONG, RATIONAL, FLOAT, ...), the first of several tags.
    xmp: asked where EXIF has no such tag.
    """
    found: object = None
    if exif:
        read = Image.Exif()
        try:
            read.load(exif)
            found = read.get(ExifTags.Base.Orientation)
        except Exception:  # foreign bytes: a block that cannot be read says nothing, and the picture stands
            found = None
    if found is None and xmp:
        match = _XMP.search(xmp)
        found = int(match[1]) if match else None
    return next((number for number in range(2, 9) if found == number), 1)


def upright(image: Pixels, number: int) -> Pixels:
    """(h, w, 3) as stored -> as it is to be seen."""
    if number in _TURNS:
        return np.asarray(cv2.rotate(image, _TURNS[number]), np.uint8)
    if number in (5, 7):
        turned = np.asarray(cv2.transpose(image), np.uint8)
        return turned if number == 5 else np.asarray(cv2.flip(turned, -1), np.uint8)
    if number in (2, 4):
        return np.asarray(cv2.flip(image, 1 if number == 2 else 0), np.uint8)
    return image
