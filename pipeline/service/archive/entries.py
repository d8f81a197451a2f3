"""What an archive's entries come to, and what an archive may cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pipeline.errors import FormatError

REASONS: dict[str, str] = {
    "absolute": "its name begins with / or a drive",
    "bad_name": "its name is not UTF-8, too long, or holds a backslash, control or bidirectional characters",
    "checksum": "its bytes do not have the checksum that the archive says",
    "decode": "it begins as an image and cannot be decoded",
    "device": "it is a device, a pipe or a socket",
    "disagrees": "the archive says two different things of it",
    "duplicate_name": "an entry before it has the same name",
    "empty": "it has no bytes",
    "encrypted": "it is encrypted",
    "inflates": "it inflates to more than 200 times its packed size",
    "junk": "it is a file that macOS or Windows leaves beside others",
    "link": "it is a symbolic or hard link",
    "method": "it is packed by another method than deflate",
    "nested": "it is an archive itself",
    "no_label": "no folder and no table says its label",
    "not_image": "it is no image that Hathi knows",
    "overlap": "its bytes are also another entry's",
    "poison": "reading it ended the process that read it",
    "sparse": "it is a sparse file",
    "too_deep": "it lies in more folders than a label",
    "too_large": "it is larger than a file may be",
    "too_many_pixels": "it has more pixels than an image may have",
    "traversal": "its name leads out of the archive's folder",
    "truncated": "the image ends before its own end",
    "type": "it is no regular file",
}
"""Why an entry is no picture."""

WHOLE: dict[str, str] = {
    "damaged": "the archive is damaged",
    "not_a_file": "there is no regular file",
    "nothing": "the archive holds no picture",
    "process": "the archive ended the process that read it, again and again",
    "too_large": "the archive is larger than it may be",
    "too_many_entries": "the archive has more entries than it may have",
    "too_many_labels": "the archive has more labels than it may have",
    "too_many_rejected": "of very many entries one after the other, none is a picture",
    "inflates": "the archive inflates to more than 200 times its size",
    "truncated": "the archive ends before its end",
    "unknown": "the file is no tar, tar.gz or zip",
}
"""Why a whole archive is refused."""


class Refused(FormatError):
    """An archive of which nothing is taken.  reason: of WHOLE."""

    def __init__(self, reason: str, detail: str = "", hint: str = "") -> None:
        super().__init__(WHOLE[reason], detail, hint or "make the archive again")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Limits:
    """What one archive may cost.

    packed, unpacked: bytes of the file, and of all that comes out of it.  ratio: unpacked bytes for a packed one.
    entries: of any kind.  rejected: entries one after the other without a picture.  labels: folders of pictures.
    file: bytes of one.  name: bytes of one, and of a header of tar that holds one.  pixels: of an image.
    """

    packed: int = 64 * 2**30
    unpacked: int = 256 * 2**30
    ratio: int = 200
    entries: int = 2_000_000
    rejected: int = 50_000
    labels: int = 10_000
    file: int = 32 * 2**20
    name: int = 4096
    pixels: int = 25_000_000


SMALL = 4 * 2**20
"""Bytes that may come out of anything, whatever its ratio."""


class Entry(NamedTuple):
    """An entry as its archive has it.

    number: from 0 on.  name: as far as it can be read.  reason: of REASONS; "" for a folder or a file.
    content: None for a folder, and for what is rejected.
    """

    number: int
    name: str
    path: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    content: bytes | None = None


class Picture(NamedTuple):
    """A picture of an archive.

    path: its folders and its name.  content: as the archive has it, or as PNG where Caffe's data layers could not read
    it; sha256: 32 bytes, of what the archive has.  form: what it was.
    """

    number: int
    path: tuple[str, ...]
    content: bytes
    sha256: bytes
    form: str
    width: int
    height: int


class Rejected(NamedTuple):
    """An entry that is no picture.  name: for people; path: () where it has none that could be a picture's."""

    number: int
    name: str
    reason: str
    detail: str
    path: tuple[str, ...] = ()
