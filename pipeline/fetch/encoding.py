"""A body that came compressed although we asked for none: undone under the cap, so that a bomb ends small."""

from __future__ import annotations

import zlib

from pipeline.records import Failure

PLAIN = ("", "identity")
KNOWN = ("gzip", "x-gzip", "deflate")


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes | Failure:
    """The bytes under `encoding` (one of KNOWN), at most `max_bytes` of them, or why not."""
    if encoding != "deflate":
        return _members(body, max_bytes)
    if body[:1] and body[0] & 0x0F == 8:  # zlib's header, as the RFC wants; some servers send the bare stream
        return _inflate(zlib.decompressobj(), body, max_bytes)[0]
    return _inflate(zlib.decompressobj(-zlib.MAX_WBITS), body, max_bytes)[0]


def _members(body: bytes, max_bytes: int) -> bytes | Failure:
    out: list[bytes] = []
    left = max_bytes
    while body:
        stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        part, body = _inflate(stream, body, left)
        if isinstance(part, Failure):
            return part
        out.append(part)
        left -= len(part)
    return b"".join(out)


def _inflate(stream: zlib._Decompress, body: bytes, max_bytes: int) -> tuple[bytes | Failure, bytes]:
    try:
        out = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        return Failure.of("protocol", "content-encoding does not decode"), b""
    if len(out) > max_bytes:
        return Failure.of("too_large", "after decompression"), b""
    if not stream.eof:
        return Failure.of("truncated", "compressed body ended early"), b""
    return out, stream.unused_data
