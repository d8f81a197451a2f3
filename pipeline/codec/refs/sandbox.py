"""Parquet, ORC and Avro files read in a process of their own (sandbox_child.py): what kills it costs its rows.

A reader that has finished a file is kept for the next one.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.codec.refs.arrow_batches import BATCH_ROWS, TOO_MUCH, Batch, lost_group
from pipeline.codec.refs.sandbox_child import WORN
from pipeline.process.channel import Gone
from pipeline.process.child import Child, python_of
from pipeline.process.life import OUT_OF_MEMORY

KILLED = "the file kills the process that reads it"
ENDED = "the process that reads it was killed again and again, probably because memory ran out"
PAUSES = (1.0, 5.0, 25.0, 60.0)
"""Seconds before each further try at a file whose reader somebody has killed: whoever is short of memory may have some
again.  Then the file is to blame: its reader is what the system ends first when it takes too much."""

MOST_WORN = 16
"""So many readers a file may wear out; then the rest of it takes too much."""


class Died(Exception):
    """What a reader was reading ended it: how, in words.  Never leaves this package."""


class Killed(Exception):
    """Somebody ended a reader: no file is to blame, unless it happens again and again.  Never leaves this package."""


class Worn(Exception):
    """A reader wants memory after it has read something else: another one is to judge.  Never leaves this package."""


class Damaged(Exception):
    """The file is not of its format, in pyarrow's words.  Never leaves this package."""


class Reader:
    """A child that reads."""

    def __init__(self) -> None:
        self.child = Child(python_of("pipeline.codec.refs.sandbox_child"))

    def ask(self, file: BinaryIO, **fields: Any) -> tuple[dict[str, Any], bytes]:
        """Its answer, once it has what it needs of the file.  Raises Died, Killed, Worn, and what the file raises."""
        channel = self.child.channel
        try:
            channel.send(**fields)
            while True:
                said, content = channel.receive()
                if said["kind"] != "read":
                    return said, content
                file.seek(said["at"])
                channel.send(_read(file, said["size"]))
        except Gone as error:
            end = self.child.wait()
            if end.code == WORN:
                raise Worn from error
            if end.by_itself:
                raise Died(TOO_MUCH if end.code == OUT_OF_MEMORY else KILLED) from error
            raise Killed(end.story) from error

    def tell(self, **fields: Any) -> None:
        with contextlib.suppress(Gone):  # the next one who asks sees it
            self.child.channel.send(**fields)

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.child.kill()


class Readers:
    """Those that wait for a file, one at the most."""

    def __init__(self) -> None:
        self._idle: list[Reader] = []

    def take(self) -> Reader:
        try:
            return self._idle.pop()
        except IndexError:
            return Reader()

    def give_back(self, reader: Reader) -> None:
        if self._idle:
            reader.end()
        else:
            self._idle.append(reader)


_READERS = Readers()


class ApartFile:
    """A Parquet, ORC or Avro file, open in a reader."""

    def __init__(self, file: BinaryIO, format: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Raises Damaged where it cannot be opened."""
        self._file = file
        self._sleep = sleep
        self._kills = self._worn = 0
        self._format = format
        self._size = file.seek(0, io.SEEK_END)
        self._reader, said, content = self._open()
        self.schema: pa.Schema = pa.ipc.read_schema(pa.py_buffer(content))
        self._groups: list[int] = said["groups"]

    def batches(self, names: list[str], start: int) -> Iterator[Batch]:
        """Rows from `start` on.  Where its reader dies, the rest of the row group (of ORC: of the file) is lost.

        Where somebody kills its reader another one goes on, after a while; not for ever.
        """
        row = start
        while True:
            try:
                yield from self._batches(names, row)
                return
            except _KilledAt as killed:
                row = max(killed.row, row)
                if self._waited():
                    self._reader, _, _ = self._open()
                    continue
                why = ENDED
            except _WornAt as worn:
                row = max(worn.row, row)
                self._worn += 1
                if self._worn <= MOST_WORN:
                    self._reader, _, _ = self._open()
                    continue
                why = TOO_MUCH
            except _DiedAt as died:
                row = max(died.row, row)
                why = str(died.__cause__)
            if not self._groups:  # Avro does not say how many there are
                yield Batch(row, 1, None, f"the rows from {row} on cannot be read and count as one rejected row", why)
                return
            group = next((at for at, end in enumerate(self._groups) if end > row), None)
            if group is None:
                return
            end = self._groups[group]
            yield Batch(row, end - row, None, self._lost(group, row), why)
            row = end
            if row >= self._groups[-1]:
                return
            self._reader, _, _ = self._open()

    def _batches(self, names: list[str], start: int) -> Iterator[Batch]:
        row = start
        whole = False
        try:
            said, content = self._reader.ask(self._file, kind="read", names=names, start=start, rows=BATCH_ROWS)
            while said["kind"] != "end":
                cells = pa.ipc.open_stream(content).read_next_batch() if content else None
                row = said["first"] + said["count"]
                yield Batch(said["first"], said["count"], cells, said["lost"], said["error"])
                said, content = self._reader.ask(self._file, kind="next")
            whole = True
        except GeneratorExit:  # it waits for the next question
            whole = True
            raise
        except Died as died:
            raise _DiedAt(row) from died
        except Killed as killed:
            raise _KilledAt(row) from killed
        except Worn as worn:
            raise _WornAt(row) from worn
        finally:
            if whole:
                self._reader.tell(kind="leave")
                _READERS.give_back(self._reader)
            else:
                self._reader.end()

    def close(self) -> None:
        """Leave it before anything was read."""
        self._reader.end()

    def _lost(self, group: int, row: int) -> str:
        return lost_group(group, row) if self._format == "parquet" else f"the rows from {row} on cannot be read"

    def _open(self) -> tuple[Reader, dict[str, Any], bytes]:
        idle = True  # perhaps it was killed while it waited for a file
        fresh = bool(self._worn)
        while True:
            reader = Reader() if fresh else _READERS.take()
            try:
                said, content = reader.ask(self._file, kind="open", format=self._format, size=self._size)
            except Died as died:
                reader.end()
                raise Damaged(str(died)) from None
            except Worn:
                reader.end()
                fresh = True
                continue
            except Killed:
                reader.end()
                if not idle and not self._waited():
                    raise Damaged(ENDED) from None
                idle = False
                continue
            except BaseException:
                reader.end()
                raise
            if said["kind"] == "damaged":
                _READERS.give_back(reader)
                raise Damaged(said["error"])
            return reader, said, content

    def _waited(self) -> bool:
        """Whether there is one more try, after a pause."""
        if self._kills >= len(PAUSES):
            return False
        self._sleep(PAUSES[self._kills])
        self._kills += 1
        return True


class _DiedAt(Exception):
    def __init__(self, row: int) -> None:
        self.row = row


class _KilledAt(_DiedAt):
    pass


class _WornAt(_DiedAt):
    pass


def _read(file: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer at the end only."""
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data
