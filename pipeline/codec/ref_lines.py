"""Lines of a text source, in pieces of many, with the offset of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from pipeline.codec.ref_bytes import PIECE, Damaged, RefBytes
from pipeline.errors import FormatError

MAX_LINE = 64 * 2**20
"""Bytes; a longer line is passed over."""
BOM = b"\xef\xbb\xbf"
_SHOWN = 2048
_PROBE = 4096


@dataclass(frozen=True, slots=True)
class Lines:
    """Consecutive lines without their newlines; bytes that are no UTF-8 stand as lone surrogates."""

    texts: list[str]
    offsets: list[int]
    """Where each begins, and at last where the piece ends."""
    lost: str = ""
    """Why the bytes from the last offset on could not be read; there are no texts then."""
    passed_over: int = 0
    """The length of a line that is too long; it is the only text then, and just its beginning."""


def check_is_text(data: RefBytes, name: str) -> None:
    """Raises FormatError where a file's first bytes are no UTF-8 text at all."""
    try:
        first = data.read(_PROBE)
    except Damaged as damage:
        raise FormatError(f"{name} cannot be read", str(damage), "compress it again") from damage
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError(f"{name} cannot be read", "it is UTF-16", "save it as UTF-8")
    if b"\0" in first:
        raise FormatError(
            f"{name} is no text file", "it holds zero bytes", "set the source's format, or save it as UTF-8"
        )


def read_lines(data: RefBytes, at: int) -> Iterator[Lines]:
    """The lines from offset `at` on, where a line begins, in pieces of about 1 MiB."""
    head: list[bytes] = []  # of a line that goes on
    size = 0
    while True:
        try:
            piece = data.read(PIECE)
        except Damaged as damage:
            yield Lines([], [at], lost=str(damage))
            return
        ended = not piece
        if at == size == 0 and piece.startswith(BOM):
            piece, at = piece[len(BOM) :], len(BOM)
        newline = piece.find(b"\n")
        if newline < 0 and not ended:
            size += len(piece)
            if size <= MAX_LINE or not head:
                head.append(piece)
            continue
        if size + max(newline, 0) > MAX_LINE:
            length = size + max(newline, 0)
            following = at + length + (not ended)
            yield Lines([_decoded(b"".join(head)[:_SHOWN])], [at, following], passed_over=length)
            piece, at, head, size = piece[newline + 1 :], following, [], 0
        end = piece.rfind(b"\n") + 1
        whole = b"".join([*head, piece[:end]])
        if whole:
            yield _split(whole, at)
        if ended:
            return
        at += len(whole)
        head = [piece[end:]] if end < len(piece) else []
        size = len(piece) - end


def _split(whole: bytes, at: int) -> Lines:
    texts = _decoded(whole).split("\n")
    offsets = list(accumulate((len(line) + 1 for line in whole.split(b"\n")), initial=at))
    if texts[-1] == "":
        texts.pop()
        offsets.pop()
    else:  # the file's last line, without a newline
        offsets[-1] -= 1
    return Lines(texts, offsets)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
