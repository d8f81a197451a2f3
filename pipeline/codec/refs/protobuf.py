"""Ref files of varint-delimited ImageRef messages."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from pipeline.codec import image_refs_pb2 as messages
from pipeline.codec.image_refs import MAX_RECORD, MAX_VARINT, read_varint
from pipeline.codec.refs.byte_stream import PIECE, Damaged, RefBytes
from pipeline.codec.refs.rows import Block, Cursor, Rejected
from pipeline.codec.refs.rules import Cell, RawRows, Rules, judge

_ROWS = 4096
NO_MESSAGE = "not an ImageRef message"


def protobuf_blocks(data: RefBytes, rules: Rules, at: Cursor) -> Iterator[Block]:
    """The records from a cursor on; partner 0 stands for the source's own.

    A record that is no ImageRef is rejected alone.  Where the framing is lost, nothing behind it can be told apart:
    the rest of the file is rejected as one entry that says how much it is.
    """
    row = at.row
    nobody = None if rules.null_partner else 0
    records = _Records(data, at.position)
    message = messages.ImageRef()
    while not records.ended:
        first = row
        broken: list[Rejected] = []
        positions: list[int] = []
        rows: list[int] = []
        partners: list[Cell] = []
        items: list[Cell] = []
        externals: list[Cell] = []
        urls: list[Cell] = []
        contents: list[Cell] = []
        size = 0
        while row - first < _ROWS and size < PIECE:
            offset = records.offset
            body = records.next()
            if body is None:
                break
            size += len(body)
            row += 1
            try:
                message.ParseFromString(body)
            except DecodeError:
                broken.append(Rejected(row - 1, offset, NO_MESSAGE, body[:32].hex(" ")))
                continue
            positions.append(offset)
            rows.append(row - 1)
            partners.append(message.partner_id or rules.partner_id or nobody)
            items.append(message.item_id if message.HasField("item_id") else None)
            externals.append(message.external_id)
            urls.append(message.url)
            contents.append(message.content)
        if records.lost:
            broken.append(Rejected(row, records.lost_at, records.lost, ""))
            row += 1
        raw = RawRows(positions, rows, partners, items, externals, urls, contents)
        yield judge(raw, rules, broken, Cursor(records.offset, row))


class _Records:
    """The framing: message bytes one after the other, from an offset on."""

    def __init__(self, data: RefBytes, at: int) -> None:
        self.offset = at
        """Of the next record; once ended, of the file's end."""
        self.ended = False
        self.lost = ""
        """Why the rest cannot be read."""
        self.lost_at = 0
        self._data = data
        self._buffer = b""
        self._at = 0

    def next(self) -> bytes | None:
        """The next record; None at the end and where the framing is lost."""
        try:
            size, framed = self._frame()
        except Damaged as damage:
            self._lose(str(damage))
            return None
        self._at += framed
        self.offset += framed
        self.ended = framed == 0
        return self._buffer[self._at - size : self._at] if framed else None

    def _frame(self) -> tuple[int, int]:
        """The next record's size and its size with the length in front, all of it in the buffer; (0, 0) at the end."""
        if not self._fill(1):
            return 0, 0
        try:
            prefix = read_varint(self._buffer, self._at)
            if prefix is None:
                self._fill(MAX_VARINT)
                prefix = read_varint(self._buffer, self._at)
        except ValueError as error:
            raise Damaged(str(error)) from error
        if prefix is None:
            raise Damaged("a length that the file's end cuts off")
        size, start = prefix
        framed = start - self._at + size
        if size > MAX_RECORD:
            raise Damaged(f"a record of {size} bytes")
        if not self._fill(framed):
            raise Damaged(f"a record of {size} bytes that the file's end cuts off")
        return size, framed

    def _fill(self, size: int) -> bool:
        """Whether so many bytes, from the next record on, are in the buffer."""
        held = len(self._buffer) - self._at
        if held >= size:
            return True
        more = self._data.read(max(size - held, PIECE))
        self._buffer = self._buffer[self._at :] + more
        self._at = 0
        return len(self._buffer) >= size

    def _lose(self, why: str) -> None:
        rest = len(self._buffer) - self._at
        try:
            while more := self._data.read(PIECE):
                rest += len(more)
        except Damaged:
            pass  # the entry below says that all of it is lost
        self.lost = f"{why}: {rest} bytes from offset {self.offset} on cannot be read and count as one rejected row"
        self.lost_at = self.offset
        self.offset += rest
        self.ended = True
