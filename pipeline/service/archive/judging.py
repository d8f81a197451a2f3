"""Entries with bytes -> pictures, each decoded once, and rejected entries."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2

from pipeline.images import decoding
from pipeline.images.formats import sniff
from pipeline.records import Failure
from pipeline.service.archive.entries import REASONS, Entry, Limits, Picture, Refused, Rejected
from pipeline.service.archive.forms import BLOCK, CENTRAL, END, GZIP, LOCAL, is_header, packed_by
from pipeline.service.archive.streams import Plain, Stream, Unpacked
from pipeline.service.archive.tar import Tar
from pipeline.service.archive.zip import Zip

_PLAIN_PNG = frozenset((0, 2))
"""PNG's kinds of pixels without a palette or transparency."""
_TO_DO = "pack the folders anew as tar.gz or zip"


def opened(path: Path) -> BinaryIO:
    """A regular file, for reading; a pipe is not waited for.  Raises Refused."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Refused("not_a_file", error.strerror or str(error), "give the path of an archive") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused("not_a_file", "it is a folder, a pipe or a device", "give the path of an archive")
    return open(handle, "rb")


def entries(file: BinaryIO, limits: Limits) -> Iterator[Entry]:
    """The entries of an archive, in order.  file: can be sought in.  Raises Refused."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > limits.packed:
        raise Refused("too_large", f"{size:,} bytes; the most is {limits.packed:,}", "give several archives")
    head = file.read(BLOCK)
    file.seek(0)
    if head.startswith((LOCAL, END, CENTRAL)):
        yield from Zip(file, size, limits)
    elif head.startswith(GZIP) or is_header(head):
        stream: Stream = Unpacked(file, limits) if head.startswith(GZIP) else Plain(file, size)
        yield from Tar(stream, limits)
    elif head[257:262] == b"ustar":
        raise Refused("damaged", "the first header of tar has a wrong checksum")
    else:
        says = f"it is {packed_by(head)}" if packed_by(head) else "it begins as none" if size else "it is empty"
        raise Refused("unknown", says, _TO_DO)


class Judge:
    """Pictures and rejected entries of one archive; what the archive as a whole may not be, it raises."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._labels: set[tuple[str, ...]] = set()
        self._rejected_in_a_row = 0

    def judged(self, entry: Entry) -> Picture | Rejected | None:
        """None for a folder.  Raises Refused."""
        found = self._judged(entry)
        if isinstance(found, Picture):
            self._rejected_in_a_row = 0
            self._labels.add(found.path[:-1])
            if len(self._labels) > self._limits.labels:
                raise Refused("too_many_labels", f"more than {self._limits.labels:,}")
        else:
            self._rejected_in_a_row += 1
            if self._rejected_in_a_row > self._limits.rejected:
                raise Refused("too_many_rejected", f"{self._rejected_in_a_row:,} after entry "
                              f"{entry.number - self._rejected_in_a_row + 1:,}")  # fmt: skip
        return found

    def _judged(self, entry: Entry) -> Picture | Rejected | None:
        if entry.reason:
            return Rejected(entry.number, entry.name, entry.reason, entry.detail, entry.path)
        if entry.content is None:
            return None
        found = picture(entry, entry.content, self._limits.pixels)
        if isinstance(found, Picture):
            return found
        return Rejected(entry.number, entry.name, found.reason, found.detail, entry.path)


def picture(entry: Entry, content: bytes, pixels: int) -> Picture | Failure:
    """The picture that an entry's bytes are, or why they are none.  pixels: that it may have."""
    if not content:
        return Failure("empty", "", False)
    if sniff(content) is None and (form := packed_by(content[:BLOCK])):
        return Failure("nested", form, False)
    found = decoding.read(content, pixels, None)
    if isinstance(found, Failure):
        assert found.reason in REASONS
        return found
    form = sniff(content) or ""
    height, width = found.pixels.shape[:2]
    digest = hashlib.sha256(content).digest()
    if not (form == "jpeg" or (form == "png" and content[24] == 8 and content[25] in _PLAIN_PNG)):
        done, png = cv2.imencode(".png", found.pixels)
        if not done:
            return Failure("decode", "it cannot be kept as PNG", False)
        content = png.tobytes()
    return Picture(entry.number, entry.path, content, digest, form, width, height)
