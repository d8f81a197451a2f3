"""A database as Caffe writes it: records by their number, in the order of their keys."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import FormatError, SolverError
from pipeline.training.data.leveldb import LevelDb
from pipeline.training.packages import demand


class Records(Protocol):
    """The records of an open database; any thread may read."""

    @property
    def path(self) -> Path: ...
    @property
    def keys(self) -> Sequence[bytes]: ...

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
            what = _lacks(place, "data.mdb")
            hint = "give the folder of an LMDB"
            if (place / "CURRENT").is_file():
                what, hint = "it is a LevelDB", "say backend: LEVELDB"
            raise SolverError(f"{field}: {path} is no LMDB", what, hint)
        locked = (place / "lock.mdb").is_file() and os.access(place / "lock.mdb", os.W_OK)
        try:
            environment = lmdb.open(str(place), readonly=True, lock=locked, readahead=False, max_spare_txns=64)
            _check_length(place / "data.mdb", environment, field)
            found = _OPEN[place] = Lmdb(place, environment)
        except lmdb.Error as error:
            raise SolverError(
                f"{field}: {path} cannot be read as an LMDB",
                str(error),
                "make it anew if it is damaged; close it if this process has it open by other means",
            ) from error
        return found


def _check_length(data: Path, environment: Any, field: str) -> None:
    """A page that lies beyond the file's end would kill the process as it is read."""
    wanted, has = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"], data.stat().st_size
    if has < wanted:
        environment.close()
        raise SolverError(
            f"{field}: {data} is cut: it has {has} bytes of {wanted}",
            "it was copied too early or not whole",
            "copy it again while nobody writes it",
        )


def _lacks(path: Path, file: str) -> str:
    """Why a path is no database, whose folder holds this file."""
    if not path.exists():
        return "there is no such folder"
    return f"it has no file {file}" if path.is_dir() else "it is a file, and a database is a folder"


def open_leveldb(path: Path, field: str) -> LevelDb:
    """As open_lmdb; FormatError for files that are damaged."""
    if not (path / "CURRENT").is_file():
        what = _lacks(path, "CURRENT")
        hint = "give the folder of a LevelDB; for an LMDB, say backend: LMDB (LEVELDB is Caffe's default)"
        raise SolverError(f"{field}: {path} is no LevelDB", what, hint)
    return LevelDb(path)
