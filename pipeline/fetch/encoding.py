"""A body that came compressed though we asked for none: undone in small steps under the cap, so that bombs end small.

What a body is, its first bytes decide, as they do everywhere here: an image is taken as it is, whatever it was declared
to be; what begins as gzip or zstd is undone though nothing was declared (`x.jpg.gz`, objects that are stored so).
Declared codings that are none (`UTF-8`, `none`, `aws-chunked`) are passed over, as the Fetch standard wants it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator
from typing import Any, Protocol

from pipeline.fetch.sniff import ENOUGH
from pipeline.records import Failure

DEEPEST = 5
"""Codings upon each other that are undone."""
_FIRST_PIECE, _LONGEST_PIECE = 512, 2**16
_AT_ONCE = 2**18
"""Bytes that one step makes at the most, or a little more."""
_ZSTD_PIECE = 2**9
"""Four bytes of zstd can stand for 128 KiB, and its library makes all that a piece stands for."""
_ZSTD_WINDOW = 2**23
"""As browsers have it (RFC 9659)."""

_GZIP, _ZSTD, _SKIPPED = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"

Unpacking = Generator[int, None, bytes | Failure]
"""A decompression in small steps: bytes that each made (less than 0: that are free again); at the end what came out."""


class _Stream(Protocol):
    """One member, frame or stream.  ended: it is whole, and `unused` bytes of the last piece lie behind it."""

    ended: bool
    unused: int
    hungry: bool
    """It wants another piece; until then it makes more of what it has."""

    def step(self, piece: bytes | memoryview) -> bytes: ...


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)
        self.ended, self.unused, self.hungry = False, 0, True

    def step(self, piece: bytes | memoryview) -> bytes:
        stream = self._stream
        made = stream.decompress(stream.unconsumed_tail or piece, _AT_ONCE)
        self.ended = stream.eof
        self.unused = len(stream.unused_data)
        # a full step may have left bytes that were made already
        self.hungry = not stream.unconsumed_tail and len(made) < _AT_ONCE
        return made


class _Brotli:
    def __init__(self) -> None:
        import brotli

        self._stream = brotli.Decompressor()
        self.ended, self.unused, self.hungry = False, 0, True

    def step(self, piece: bytes | memoryview) -> bytes:
        made: bytes = self._stream.process(bytes(piece) if self.hungry else b"", output_buffer_limit=_AT_ONCE)
        self.ended = self._stream.is_finished()
        self.hungry = self._stream.can_accept_more_data()
        return made


class _Zstd:
    def __init__(self, decompressor: Any) -> None:
        self._stream = decompressor.decompressobj()
        self.ended, self.unused, self.hungry = False, 0, True

    def step(self, piece: bytes | memoryview) -> bytes:
        made: bytes = self._stream.decompress(piece)
        self.ended = self._stream.eof
        self.unused = len(self._stream.unused_data)
        return made


def _gzip(_body: bytes) -> Callable[[], _Stream]:
    return lambda: _Zlib(16 + zlib.MAX_WBITS)


def _deflate(body: bytes) -> Callable[[], _Stream]:
    """zlib's header, as the RFC wants it, or the bare stream that some servers send."""
    headed = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] * 256 + body[1]) % 31 == 0
    return lambda: _Zlib(zlib.MAX_WBITS if headed else -zlib.MAX_WBITS)


def _brotli(_body: bytes) -> Callable[[], _Stream]:
    return _Brotli


def _zstd(_body: bytes) -> Callable[[], _Stream]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)  # one for all frames: it is dear to make
    return lambda: _Zstd(decompressor)


_STREAMS: dict[str, Callable[[bytes], Callable[[], _Stream]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
KNOWN = tuple(_STREAMS)
_LARGEST_PIECE = {"zstd": _ZSTD_PIECE}


def codings(encoding: str) -> list[str]:
    """Those of a Content-Encoding header that are known, in the order in which they were applied."""
    return [name for name in (part.strip().lower() for part in encoding.split(",")) if name in _STREAMS]


def stored(head: bytes) -> str:
    """The coding that a body's first bytes show; "" for none."""
    return "gzip" if head.startswith(_GZIP) else "zstd" if head.startswith(_ZSTD) else ""


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes | Failure:
    """The bytes under all codings of `encoding`, at most `max_bytes` of them after each, or why not."""
    work = _undo_all(body, codings(encoding), max_bytes, lambda _head: None)
    return _run(work)


def unpack(body: bytes, encoding: str, max_bytes: int, accept: Callable[[bytes], str | None]) -> Unpacking:
    """The same in steps, until `accept` takes the first bytes; what was stored compressed is undone as well."""
    declared = codings(encoding)
    if len(declared) > DEEPEST:
        return Failure.of("protocol", "too many content-encodings")
    content = yield from _undo_all(body, declared, max_bytes, accept)
    for _ in range(DEEPEST - len(declared)):
        if isinstance(content, Failure) or accept(content[:ENOUGH]) or not (coding := stored(content)):
            break
        content = yield from _undo_all(content, [coding], max_bytes, accept)
    return content


def _run(work: Unpacking) -> bytes | Failure:
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: bytes | Failure = end.value
            return found


def _undo_all(body: bytes, declared: list[str], max_bytes: int, accept: Callable[[bytes], Any]) -> Unpacking:
    given = 0
    for coding in reversed(declared):
        if accept(body[:ENOUGH]):
            break
        content = yield from _undo(body, coding, max_bytes)
        if isinstance(content, Failure):
            return content
        yield -given  # the layer before is free
        body, given = content, len(content)
    return body


def _undo(body: bytes, coding: str, max_bytes: int) -> Unpacking:
    """One coding: all its members or frames, each begun with a small piece, so that very many cost what they weigh."""
    view, at, out = memoryview(body), 0, bytearray()
    longest = _LARGEST_PIECE.get(coding, _LONGEST_PIECE)
    begin = _STREAMS[coding](body)
    while at < len(body) and (not at or _goes_on(body[at : at + 4], coding)):
        stream, size = begin(), _FIRST_PIECE
        while not stream.ended:
            piece = view[at : at + size] if stream.hungry else b""
            if piece:
                at += len(piece)
                size = min(2 * size, longest)
            try:
                made = stream.step(piece)
            except MemoryError:
                raise
            except Exception:  # each library has its own error, and each says that these bytes are none of its own
                return Failure.of("protocol", "content-encoding does not decode")
            if not made and at == len(body) and stream.hungry and not piece and not stream.ended:
                return Failure.of("truncated", "compressed body ended early")
            out += made
            if len(out) > max_bytes:
                return Failure.of("too_large", "after decompression")
            yield len(made)
        at -= stream.unused
    return bytes(out)


def _goes_on(head: bytes, coding: str) -> bool:
    """Another member follows; anything else behind the last one is left alone, as browsers do."""
    if coding == "zstd":
        return head == _ZSTD or (head[1:] == _SKIPPED and head[0] & 0xF0 == 0x50)
    return coding in ("gzip", "x-gzip") and head.startswith(_GZIP)
