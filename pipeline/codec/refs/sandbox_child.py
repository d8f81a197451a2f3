"""The process in which foreign Parquet, ORC and Avro files are read: what kills it costs the rows it was at, no daemon.

It knows no store: it asks its parent for the file's bytes, and gives back rows as Arrow's streams.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import pyarrow as pa

from pipeline.codec.arrow_damage import ARROW_ERRORS
from pipeline.codec.refs.arrow_batches import Batch, orc_batches, orc_table, parquet_batches, parquet_table
from pipeline.process.channel import Channel
from pipeline.process.life import OUT_OF_MEMORY, limit_memory, limit_processor, live

MEMORY = 2 * 2**30
"""Bytes that a file may make the process take, beyond what it is."""
WORN = 71
"""The exit code of a process that wants memory after it has read something else: another one is to judge."""
STEP_SECONDS = 120
"""Processor time of one step; then the system ends the process."""


class AskedFile(io.RawIOBase):
    """The parent's file."""

    def __init__(self, channel: Channel, size: int) -> None:
        self._channel = channel
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        self._channel.send(kind="read", at=self._at, size=wanted)
        _, content = self._channel.receive()
        self._at += len(content)
        return content


def serve(channel: Channel) -> None:
    """One file after the other, until the parent is gone."""
    fresh = True
    while True:
        asked, _ = channel.receive()
        if asked["kind"] == "open":
            _read(channel, asked["format"], cast(BinaryIO, AskedFile(channel, asked["size"])), fresh)
            fresh = False


def _read(channel: Channel, format: str, file: BinaryIO, fresh: bool) -> None:
    """One file: its schema and groups, then a batch for each `next`, until `leave`.

    What wants too much memory is lost only if a process says so that has read nothing before it: so the same rows are
    lost wherever reading begins, and whatever was read before.
    """
    limit_processor(STEP_SECONDS)
    open_table, read = _reader_of(format)
    try:
        table = open_table(file)
    except (*ARROW_ERRORS, MemoryError) as error:
        if isinstance(error, MemoryError) and not fresh:
            os._exit(WORN)
        channel.send(kind="damaged", error=str(error))
        return
    channel.send(table.schema.serialize(), kind="opened", groups=table.groups)
    asked, _ = channel.receive()
    if asked["kind"] != "read":
        return
    batches: Iterator[Batch] = read(table.file, asked["names"], asked["start"], asked["rows"])
    while asked["kind"] != "leave":
        limit_processor(STEP_SECONDS)
        try:
            batch = next(batches, None)
            cells = _stream(batch.cells) if batch else b""
        except MemoryError:  # beside what the formats' readers tell of
            os._exit(OUT_OF_MEMORY if fresh else WORN)
        if batch is None:
            channel.send(kind="end")
        elif batch.short and not fresh:
            os._exit(WORN)
        else:
            channel.send(cells, kind="batch", first=batch.first, count=batch.count, lost=batch.lost, error=batch.error)
            fresh = False
        asked, _ = channel.receive()


def _reader_of(format: str) -> tuple[Any, Any]:
    """How a format is opened and read."""
    if format == "avro":
        from pipeline.codec.refs.avro import avro_batches, avro_table  # its library takes a while

        return avro_table, avro_batches
    return (parquet_table, parquet_batches) if format == "parquet" else (orc_table, orc_batches)


def _stream(cells: pa.RecordBatch | None) -> bytes | memoryview:
    if cells is None:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, cells.schema) as writer:
        writer.write_batch(cells)
    return memoryview(sink.getvalue())


def _work(channel: Channel) -> None:
    limit_memory(MEMORY, beyond=True)
    for asked_to_stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the parent decides; without it we end too
        signal.signal(asked_to_stop, signal.SIG_IGN)
    try:
        serve(channel)
    except MemoryError:  # between two batches: it is no batch's fault
        os._exit(WORN)


if __name__ == "__main__":
    live(_work)
