"""Lines of a text source, in pieces of many, with the offset of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipeline.codec.refs.byte_stream import PIECE, Damaged, RefBytes

MAX_LINE = 64 * 2**20
"""Bytes; a longer line is passed over."""
BOM = b"\xef\xbb\xbf"
_SHOWN = 2048
_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Lines:
    """Consecutive lines without their ends; bytes that are no UTF-8 stand as lone surrogates."""

    texts: list[str]
    offsets: list[int]
    """Where each begins, and at last where the piece ends."""
    ends: list[str]
    """What ends each: a newline, a carriage return, both; nothing at the file's end."""
    lost: str = ""
    """Why the bytes from the last offset on could not be read; there are no texts then."""
    passed_over: int = 0
    """The length of a line that is too long; it is the only text then, and just its beginning."""


def read_lines(data: RefBytes, at: int) -> Iterator[Lines]:
    """The lines from offset `at` on, where a line begins, in pieces of about 1 MiB.

    A line ends with a newline, a carriage return or both, as Hadoop has it; one file may mix them.
    """
    head: list[bytes] = []  # of a line that goes on
    size = 0
    held = b""  # a carriage return at a piece's end: the next byte tells whether it ends the line alone
    while True:
        try:
            piece = data.read(PIECE)
        except Damaged as damage:
            yield Lines([], [at], [], lost=str(damage))
            return
        ended = not piece
        piece, held = held + piece, b""
        if not ended and piece.endswith(b"\r"):
            piece, held = piece[:-1], b"\r"
        if at == size == 0 and piece.startswith(BOM):
            piece, at = piece[len(BOM) :], len(BOM)
        first = _END.search(piece) if size else None
        if size and first is None and not ended:
            size += len(piece)
            if size <= MAX_LINE:
                head.append(piece)
            continue
        goes_on = first.start() if first else len(piece)
        if size + goes_on > MAX_LINE:
            length = size + goes_on
            following = at + length + (len(first[0]) if first else 0)
            yield Lines([_decoded(b"".join(head)[:_SHOWN])], [at, following], ["\n"], passed_over=length)
            piece, at, head, size = piece[first.end() :] if first else b"", following, [], 0
        end = len(piece) if ended else max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1
        whole = b"".join([*head, piece[:end]]) if end or ended else b""
        if whole:
            yield _split(whole, at)
        if ended:
            return
        at += len(whole)
        if end:
            head, size = ([piece[end:]], len(piece) - end) if end < len(piece) else ([], 0)
        elif piece:
            head.append(piece)
            size += len(piece)


def _split(whole: bytes, at: int) -> Lines:
    returns = whole.count(b"\r")
    if not returns:
        return _by_one(whole, b"\n", at)
    newlines = whole.count(b"\n")
    if not newlines:
        return _by_one(whole, b"\r", at)
    if returns == newlines == whole.count(b"\r\n"):
        return _by_one(whole, b"\r\n", at)
    lines: list[bytes] = []
    ends: list[bytes] = []
    last = 0
    for end in _END.finditer(whole):
        lines.append(whole[last : end.start()])
        ends.append(end[0])
        last = end.end()
    if last < len(whole):
        lines.append(whole[last:])
        ends.append(b"")
    lengths = (len(line) + len(end) for line, end in zip(lines, ends, strict=True))
    texts = [_decoded(line) for line in lines]
    return Lines(texts, list(accumulate(lengths, initial=at)), [end.decode() for end in ends])


def _by_one(whole: bytes, end: bytes, at: int) -> Lines:
    """Lines that all end the same way; the file's last one may have no end."""
    ending = end.decode()
    text = _decoded(whole)
    texts = text.split(ending)
    step = len(end)
    lines: Sequence[str | bytes] = texts if text.isascii() else whole.split(end)
    offsets = list(accumulate([len(line) + step for line in lines], initial=at))
    ends = [ending] * len(texts)
    if texts[-1] == "":
        texts.pop()
        offsets.pop()
        ends.pop()
    else:
        offsets[-1] -= len(end)
        ends[-1] = ""
    return Lines(texts, offsets, ends)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
