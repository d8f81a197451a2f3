"""Readers in processes of their own: what a file does to one is the file's, what somebody does to one is nobody's."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipeline.codec import ref_child
from pipeline.codec.ref_rows import RefReader
from pipeline.codec.ref_tables import Cursor
from pipeline.errors import FormatError, TemporaryError
from tests.unit.codec.ref_files import START, reader, take_all

URLS = [f"http://a/{at}" for at in range(9000)]
CRASHING = Path(__file__).parents[2] / "fuzz" / "corpus" / "orc-75f0cf0c4214"


def table() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"url": URLS}), buffer, row_group_size=6000)
    return buffer.getvalue()


def begun(at: Cursor = START) -> RefReader:
    """A reader that has given ten refs, more of whose row group are still to be read."""
    opened = reader(table(), "refs.parquet", at=at)
    assert len(opened.take(10, 10**6).refs) == 10
    return opened


def children() -> set[int]:
    return {
        int(one)
        for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if "pipeline.codec.ref_child" in Path(f"/proc/{one}/cmdline").read_text()
    }


def test_a_reader_that_crashes_loses_the_rest_of_its_row_group_and_no_more() -> None:
    for at in (START, Cursor(7, 7)):
        opened = begun(at)
        for child in children():
            os.kill(child, signal.SIGSEGV)
        taken = opened.take(10**6, 10**9)
        assert [ref.url for ref in taken.refs] == [*URLS[at.row + 10 : 4096], *URLS[6000:]]
        (rejected,) = taken.samples
        assert (taken.rejected, rejected.row, rejected.why) == (
            1904, 4096, "row group 0 cannot be read from row 4096 on (1904 rows)"
        )  # fmt: skip
        assert rejected.sample == "it kills the process that reads it"


def test_a_reader_that_somebody_kills_blames_no_file() -> None:
    opened = begun()
    for child in children():
        os.kill(child, signal.SIGKILL)
    with pytest.raises(TemporaryError, match="was killed"):
        opened.take(10**6, 10**9)


def test_a_reader_does_not_stop_before_its_parent_does() -> None:
    opened = begun()
    for child in children():
        os.kill(child, signal.SIGTERM)
        os.kill(child, signal.SIGINT)
    assert len(opened.take(10**6, 10**9).refs) == len(URLS) - 10


def test_a_reader_that_was_killed_while_it_waited_is_replaced() -> None:
    assert len(take_all(table(), "refs.parquet").refs) == len(URLS)
    for child in children():
        os.kill(child, signal.SIGKILL)
    assert len(take_all(table(), "refs.parquet").refs) == len(URLS)


def test_a_file_that_crashes_its_reader_is_refused_and_the_next_one_is_read() -> None:
    with pytest.raises(FormatError, match="it kills the process that reads it"):
        take_all(CRASHING.read_bytes(), "refs.orc")
    assert len(take_all(table(), "refs.parquet").refs) == len(URLS)


def test_readers_are_kept_and_do_not_grow_in_number() -> None:
    for _ in range(5):
        begun().close()
        take_all(table(), "refs.parquet")
    assert len(children()) <= 2


def test_a_channel_that_breaks_off_is_an_end() -> None:
    for content in (b"", b'{"kind": "x"', b'{"kind": "x", "bytes": 5}\nabc'):
        with pytest.raises(EOFError):
            ref_child.Channel(io.BytesIO(content), io.BytesIO()).receive()
