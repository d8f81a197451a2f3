"""Pixels of an encoded image as Caffe has them: what OpenCV decodes, BGR, and what OpenCV resizes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import png
from pipeline.images.broken import Broken
from pipeline.images.formats import sniff
from pipeline.images.torn import is_torn

Pixels = NDArray[np.uint8]

_AS_IT_IS, _GREY, _COLOUR = -1, 0, 1  # cv::imdecode's flags


_ANY_SIZE = 2**62
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it refuses is told here, by the example

TORN = "its image ends before its own end"


class Undecodable(Exception):
    """Bytes that give no picture: the reason as a sentence."""


def decode(content: bytes, colour: bool | None, size: tuple[int, int] | None = None) -> Pixels:
    """(channels, height, width) uint8.  colour: 3 channels, 1 channel, or None: as the file has them.

    size: (height, width) to resize to, bilinear.  Raises Undecodable.
    """
    if not content:
        raise Undecodable("it is empty")
    kind = sniff(bytes(content[:4096]))
    if kind == "png":
        _demand_whole(bytes(content))
    flag = _AS_IT_IS if colour is None else _COLOUR if colour else _GREY
    try:
        found = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error as error:
        raise Undecodable(f"OpenCV does not decode it: {error.err or error}") from error
    if found is None:
        if torn(content):
            raise Undecodable(TORN)
        raise Undecodable(f"OpenCV does not decode it ({kind or 'it begins as no known image format'})")
    if found.dtype != np.uint8:
        raise Undecodable(f"its values are {found.dtype}: Caffe takes images of 8 bits a channel")
    if size is not None:
        found = cv2.resize(found, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    picture: Pixels = found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
    return picture


def _demand_whole(content: bytes) -> None:
    """Raises Undecodable for a damaged PNG, which libpng would tell to stderr, without a name."""
    try:
        png.read_header(content, _ANY_SIZE)
    except Broken as error:
        says = TORN if error.reason == "truncated" else f"OpenCV does not decode it: {error}"
        raise Undecodable(says) from error


def torn(content: bytes) -> bool:
    """The file ends before its own end.  Some decoders fill what is missing with grey and say nothing."""
    kind = sniff(content)
    if kind == "jpeg":
        return content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")  # no end behind the last scan's begin
    return kind is not None and is_torn(content, kind)
