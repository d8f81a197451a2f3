"""Readers in processes of their own: what a file does to one is the file's, what somebody does to one is nobody's."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipeline.codec.refs import sandbox
from pipeline.codec.refs.rows import RefReader
from pipeline.codec.refs.tables import Cursor
from pipeline.errors import FormatError
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
        if "pipeline.codec.refs.sandbox_child" in Path(f"/proc/{one}/cmdline").read_text()
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
            1904, 4096, "row group 0 cannot be read from row 4096 on (1,904 rows)"
        )  # fmt: skip
        assert rejected.sample == "the file kills the process that reads it"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in no time."""
    made: list[float] = []
    monkeypatch.setattr(sandbox.ApartFile.__init__, "__defaults__", (made.append,))
    return made


@contextlib.contextmanager
def killing(monkeypatch: pytest.MonkeyPatch, times: int, kind: str) -> Iterator[None]:
    """The next readers are killed at the first question of a kind, so many times, as the kernel does it."""
    left = [times]
    asked = sandbox.Reader.ask

    def ask(self: sandbox.Reader, file: BinaryIO, **fields: Any) -> tuple[dict[str, Any], bytes]:
        if fields["kind"] == kind and left[0]:
            left[0] -= 1
            os.kill(self.child.pid, signal.SIGKILL)
            self.child.wait()
        return asked(self, file, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(sandbox.Reader, "ask", ask)
        yield
    assert left == [0]


def test_a_reader_that_somebody_kills_blames_no_file_and_another_goes_on(pauses: list[float]) -> None:
    opened = begun()
    for child in children():
        os.kill(child, signal.SIGKILL)
    taken = opened.take(10**6, 10**9)
    assert [ref.url for ref in taken.refs] == URLS[10:]
    assert taken.rejected == 0
    assert pauses == [1.0]


@pytest.mark.parametrize("kind", ["open", "read"])
def test_a_reader_that_is_killed_again_and_again_is_tried_after_growing_pauses_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], kind: str
) -> None:
    """As by the kernel, for want of memory."""
    idle = 1 if kind == "open" else 0
    with killing(monkeypatch, idle + len(sandbox.PAUSES), kind):
        assert len(take_all(table(), "refs.parquet").refs) == len(URLS), "as long as one of them gets through"
    assert pauses == list(sandbox.PAUSES)
    with killing(monkeypatch, idle + len(sandbox.PAUSES) + 1, kind):
        if kind == "open":
            with pytest.raises(FormatError, match="killed again and again"):
                take_all(table(), "refs.parquet")
        else:
            taken = take_all(table(), "refs.parquet")
            (rejected,) = taken.samples
            assert [ref.url for ref in taken.refs] == [*URLS[: rejected.row], *URLS[6000:]], "the rest of it is read"
            assert rejected.sample == sandbox.ENDED
            assert taken.rejected + len(taken.refs) == len(URLS)
    assert len(take_all(table(), "refs.parquet").refs) == len(URLS), "and the next file"


def test_a_file_of_many_groups_that_are_too_large_waits_no_longer_than_one(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"url": URLS}), buffer, row_group_size=1000)
    with killing(monkeypatch, len(sandbox.PAUSES) + 9, "read"):
        taken = take_all(buffer.getvalue(), "refs.parquet")
    assert (taken.rejected, pauses) == (len(URLS), list(sandbox.PAUSES))


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
    with pytest.raises(FormatError, match="the file kills the process that reads it"):
        take_all(CRASHING.read_bytes(), "refs.orc")
    assert len(take_all(table(), "refs.parquet").refs) == len(URLS)


@contextlib.contextmanager
def wanting(monkeypatch: pytest.MonkeyPatch, spare: int, *, kept_only: bool) -> Iterator[list[int]]:
    """Readers that have so many bytes left when they are asked for the first rows: all of them, or those that have read
    a file before.  Memory ends in what is asked for, or in a thread of the library: that aborts."""
    asked = sandbox.Reader.ask
    begun: list[int] = []

    def ask(self: sandbox.Reader, file: BinaryIO, **fields: Any) -> tuple[dict[str, Any], bytes]:
        pid = self.child.pid
        if fields["kind"] == "read" and fields["start"] == 0 and not (kept_only and pid not in idle):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            held = int(next(line for line in lines if line.startswith("VmData:")).split()[1]) * 1024
            resource.prlimit(pid, resource.RLIMIT_DATA, (held + spare,) * 2)
        if fields["kind"] == "read":
            begun.append(pid)
        return asked(self, file, **fields)

    take_all(table(), "refs.parquet")
    idle = children()
    with monkeypatch.context() as patch:
        patch.setattr(sandbox.Reader, "ask", ask)
        yield begun


def wide() -> bytes:
    """Ten rows of 4 MiB each in one row group, and ten small ones in another."""
    schema = pa.schema([("url", pa.string()), ("content", pa.binary())])
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema) as writer:
        for size, first in ((4 * 2**20, 0), (1, 10)):
            urls = [f"http://a/{first + at}" for at in range(10)]
            images = [os.urandom(64) * (size // 64 or 1) for _ in urls]
            writer.write_table(pa.table({"url": urls, "content": images}, schema))
    return buffer.getvalue()


def test_a_kept_reader_that_wants_memory_rejects_nothing_of_a_good_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with wanting(monkeypatch, 2**20, kept_only=True) as begun:
        taken = take_all(wide(), "refs.parquet")
    assert (len(taken.refs), taken.rejected) == (20, 0)
    assert len(set(begun)) >= 2, "the kept one was asked first, and another one then"


def test_what_wants_too_much_of_every_reader_is_lost_alone_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with wanting(monkeypatch, 2**20, kept_only=False) as begun:
        taken = take_all(wide(), "refs.parquet")
    assert [ref.url for ref in taken.refs] == [f"http://a/{at}" for at in range(10, 20)]
    assert taken.rejected == 10
    assert taken.samples[0].sample in (
        "reading it needs more memory than one file may use",
        "the file kills the process that reads it",
    )
    assert len(set(begun)) >= 3, "the kept one, one to judge, and one for the other row group"


def test_readers_are_kept_and_do_not_grow_in_number() -> None:
    for _ in range(5):
        begun().close()
        take_all(table(), "refs.parquet")
    assert len(children()) <= 2
