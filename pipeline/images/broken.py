"""Why a picture cannot be had, raised within the room; what leaves the room is a `Failure`."""

from __future__ import annotations

from pipeline.records import Failure


class Broken(Exception):
    """`reason` is a failure's: "truncated", "decode" or "too_many_pixels"."""

    def __init__(self, reason: str, says: str) -> None:
        super().__init__(says)
        self.reason = reason

    def as_failure(self) -> Failure:
        return Failure.of(self.reason, str(self))


def torn(kind: str) -> Broken:
    """It may be whole when it is fetched again."""
    return Broken("truncated", f"the {kind} image ends before its end")


def check_pixels(width: int, height: int, max_pixels: int, what: str = "") -> None:
    """Raises Broken when a picture, or a part of it that a decoder takes memory for, is larger than is allowed."""
    if width * height > max_pixels:
        raise Broken("too_many_pixels", f"{what}{width} x {height} pixels; at most {max_pixels} are allowed")
