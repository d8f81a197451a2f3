"""A database as Caffe writes it: records by their number, in the order of their keys."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import FormatError, SolverError
from pipeline.training.packages import demand


class Records(Protocol):
    """The records of an open database; any thread may read."""

    path: Path
    keys: list[bytes]

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | memoryview]:
        """The values of these records, each until the next is asked for.  Raises FormatError for one that is gone."""

    def close(self) -> None: ...


def key_text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


class Lmdb:
    """An LMDB, opened for reading.

    Where a lock file lies beside it, somebody else may write, so it is read under LMDB's lock; else without one, so
    that nothing is created beside the data.  One process opens a database once, whatever number of layers read it:
    LMDB allows no more.
    """

    def __init__(self, path: Path, environment: Any) -> None:
        self.path, self._environment, self._users = path, environment, 1
        with environment.begin() as transaction, transaction.cursor() as cursor:
            self.keys = list(cursor.iternext(keys=True, values=False))

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | memoryview]:
        with self._environment.begin(buffers=True) as transaction:
            for number in numbers:
                value = transaction.get(self.keys[number])
                if value is None:
                    raise FormatError(
                        f"record '{key_text(self.keys[number])}' is gone from {self.path}",
                        "it was there as the training began",
                        "somebody changes the database: train from a copy",
                    )
                yield value

    def close(self) -> None:
        with _LOCK:
            self._users -= 1
            if not self._users:
                _OPEN.pop(self.path, None)
                self._environment.close()

    def share(self) -> Lmdb:
        self._users += 1
        return self


_LOCK = threading.Lock()
_OPEN: dict[Path, Lmdb] = {}
"""What this process has open, for LMDB refuses to open one twice."""


def open_lmdb(path: Path, field: str) -> Lmdb:
    """Raises SolverError, which names the field, for what is no LMDB that can be read."""
    lmdb = demand("lmdb", f"{field} (LMDB)")
    place = path.resolve()
    with _LOCK:
        if place in _OPEN:
            return _OPEN[place].share()
        if not (place / "data.mdb").is_file():
            what = "there is no such folder" if not place.exists() else "it has no file data.mdb"
            hint = "give the folder of an LMDB"
            if (place / "CURRENT").is_file():
                what, hint = "it is a LevelDB", "say backend: LEVELDB"
            raise SolverError(f"{field}: {path} is no LMDB", what, hint)
        locked = (place / "lock.mdb").is_file() and os.access(place / "lock.mdb", os.W_OK)
        try:
            environment = lmdb.open(str(place), readonly=True, lock=locked, readahead=False, max_spare_txns=64)
            found = _OPEN[place] = Lmdb(place, environment)
        except lmdb.Error as error:
            raise SolverError(
                f"{field}: {path} cannot be read as an LMDB",
                str(error),
                "make it anew if it is damaged; close it if this process has it open by other means",
            ) from error
        return found


class LevelDb:
    """A LevelDB, read into memory once: its reader goes through the files and finds no single key."""

    def __init__(self, path: Path, records: list[tuple[bytes, bytes]]) -> None:
        self.path = path
        self.keys = [key for key, _ in records]
        self._values = [value for _, value in records]

    def read(self, numbers: Sequence[int]) -> Iterator[bytes | memoryview]:
        return (self._values[number] for number in numbers)

    def close(self) -> None:
        self._values = []


def open_leveldb(path: Path, field: str) -> LevelDb:
    """As open_lmdb."""
    rleveldb = demand("rleveldb", f"{field} (LEVELDB)")
    if not (path / "CURRENT").is_file():
        what = "there is no such folder" if not path.exists() else "it has no file CURRENT"
        hint = "give the folder of a LevelDB; for an LMDB, say backend: LMDB (LEVELDB is Caffe's default)"
        raise SolverError(f"{field}: {path} is no LevelDB", what, hint)
    size = sum(entry.stat().st_size for entry in os.scandir(path))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise SolverError(
            f"{field}: the LevelDB {path} is too large to be read into memory",
            f"{size // 2**20} MiB of {memory // 2**20} MiB",
            "make an LMDB of it with Caffe's convert tools, and say backend: LMDB",
        )
    newest: dict[bytes, Any] = {}
    try:
        with rleveldb.RawLevelDb(str(path)) as database:
            for record in database.iterate_records_raw():
                old = newest.get(record.user_key)
                if old is None or old.seq < record.seq:
                    newest[record.user_key] = record
    except (ValueError, OSError) as error:
        raise SolverError(f"{field}: {path} cannot be read as a LevelDB", str(error), "make it anew") from error
    live = [(key, one.value) for key, one in newest.items() if one.state == rleveldb.KeyState.Live]
    return LevelDb(path, sorted(live))
