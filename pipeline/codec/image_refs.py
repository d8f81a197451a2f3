"""Image refs as varint-delimited protobuf: the form of batches, of carried refs and of a lake's delimited files.

protobuf is imported where a batch is written or read: who only looks at the ledger starts sooner without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import FormatError
from pipeline.records import MAX_PARTNER_ID, ImageRef

MAX_RECORD = 64 * 2**20
"""Bytes of one record; a longer length prefix is taken for lost framing."""

MAX_VARINT = 10
"""Bytes of the longest varint."""

_CONTENT = b"\x2a"
"""The tag of field 5, of bytes: the greatest number, so that it stands where protobuf itself writes it."""


def encode(refs: Iterable[ImageRef]) -> bytes:
    """The refs in order, each preceded by its length; ordinals are places and are not written.

    Raises FormatError for a ref that the format cannot hold (an id out of range, a lone surrogate, over 64 MiB).
    """
    from pipeline.codec import image_refs_pb2 as messages

    message = messages.ImageRef()
    out = BytesIO()
    write = out.write
    number = 0
    try:
        for partner_id, item_id, external_id, url, content, _ in refs:
            message.partner_id = partner_id
            message.item_id = item_id
            message.external_id = external_id
            message.url = url
            body = message.SerializeToString()
            # The last field, written by hand: a batch of images would else be copied twice more.
            head = _CONTENT + _varint(len(content)) if content else b""
            length = len(body) + len(head) + len(content)
            if length > MAX_RECORD:
                raise FormatError("an image ref cannot be encoded", f"a record is longer than {MAX_RECORD} bytes")
            write(_varint(length))
            write(body)
            if content:
                write(head)
                write(content)
            number += 1
    except ValueError as error:  # out of range, or a string that has no UTF-8
        raise FormatError("an image ref cannot be encoded", f"ref {number}: {error}") from error
    return out.getvalue()


def decode(data: bytes, first_ordinal: int = 0) -> list[ImageRef]:
    """The refs that `encode` wrote; ordinals count on from first_ordinal.

    Raises FormatError, with the offset, where the bytes are anything else.
    """
    from google.protobuf.message import DecodeError

    from pipeline.codec import image_refs_pb2 as messages

    refs: list[ImageRef] = []
    message = messages.ImageRef()
    for ordinal, (start, body) in enumerate(_bodies(data), first_ordinal):
        try:
            message.ParseFromString(body)
        except DecodeError as error:
            raise FormatError("a batch of image refs is damaged", f"offset {start}: not an ImageRef message") from error
        if not message.HasField("item_id") or message.partner_id > MAX_PARTNER_ID:
            raise FormatError("a batch of image refs is damaged", f"offset {start}: no item id, or a bad partner id")
        refs.append(
            ImageRef(message.partner_id, message.item_id, message.external_id, message.url, message.content, ordinal)
        )
    return refs


def pieces(path: Path, refs: int, size: int) -> Iterator[list[ImageRef]]:
    """The refs of a file that `encode` wrote, so many (or so many bytes) at a time; only one piece is in memory.

    Raises FormatError, with the offset within the piece's bytes, where the file is anything else.
    """
    with path.open("rb") as file:
        waiting, count = bytearray(), 0
        while record := _record(file):
            waiting += record
            count += 1
            if count == refs or len(waiting) >= size:
                yield decode(bytes(waiting))
                waiting, count = bytearray(), 0
        if waiting:
            yield decode(bytes(waiting))


def _record(file: BinaryIO) -> bytes:
    """The next record with its length prefix; whatever is left where that is broken, for `decode` to refuse."""
    prefix = bytearray()
    while byte := file.read(1):
        prefix += byte
        if byte[0] < 0x80 or len(prefix) == MAX_VARINT:
            break
    found = read_varint(prefix, 0) if prefix and prefix[-1] < 0x80 else None
    return bytes(prefix) + (file.read(min(found[0], MAX_RECORD)) if found else b"")


def read_varint(data: bytes | bytearray | memoryview, at: int) -> tuple[int, int] | None:
    """The varint at an offset and the offset after it; None where the data ends within it.

    Raises ValueError for one of more than 10 bytes.
    """
    value = shift = 0
    for place in range(at, min(at + MAX_VARINT, len(data))):
        byte = data[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    if len(data) - at >= MAX_VARINT:
        raise ValueError(f"a varint of more than {MAX_VARINT} bytes")
    return None


def _bodies(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, message bytes) of each record."""
    at = 0
    while at < len(data):
        try:
            prefix = read_varint(data, at)
        except ValueError as error:
            raise FormatError("a batch of image refs is damaged", f"offset {at}: {error}") from error
        if prefix is None or prefix[0] > len(data) - prefix[1]:
            raise FormatError("a batch of image refs is damaged", f"offset {at}: it ends within a record")
        length, start = prefix
        yield at, data[start : start + length]
        at = start + length


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
