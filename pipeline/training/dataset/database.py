"""A dataset as an LMDB that Caffe reads."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import FormatError
from pipeline.stores.local import typed
from pipeline.training.data.records import key_text
from pipeline.training.dataset.examples import Example
from pipeline.training.packages import demand

_ROOM = 1 << 40  # addresses, not bytes on the disk: the largest that the database may ever be
_AT_ONCE = 1000  # records of a transaction
_ANEW = ".anew-"


def write(folder: Path, examples: Iterable[Example]) -> int:
    """Writes the records into an empty folder; their number.  Raises FormatError for a key that comes twice."""
    lmdb = demand("lmdb", "an LMDB")
    count = 0
    with lmdb.open(str(folder), map_size=_ROOM, sync=False) as environment:
        transaction = environment.begin(write=True)
        try:
            for example in examples:
                if not transaction.put(example.key, example.datum.SerializeToString(), overwrite=False):
                    says = f"{count} records are before it"
                    raise FormatError(f"the key '{key_text(example.key)}' comes twice", says, "keys must differ")
                count += 1
                if count % _AT_ONCE == 0:
                    transaction.commit()
                    transaction = environment.begin(write=True)
            transaction.commit()
        except BaseException:
            transaction.abort()
            raise
        environment.sync(True)
    (folder / "lock.mdb").unlink(missing_ok=True)
    return count


def without(folder: Path, goes: Callable[[bytes], bool]) -> int:
    """Write a database anew without some records, by their keys; how many went.  Deleted records keep their bytes in
    LMDB's free pages, so the file is another one, which takes the place of the old one in one step: who reads the old
    one goes on.  Raises FormatError for what is no LMDB, and as a local store does.
    """
    lmdb = demand("lmdb", "an LMDB")
    for left in folder.glob(f"{_ANEW}*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
            with transaction.cursor() as cursor:
                gone = sum(1 for key in cursor.iternext(keys=True, values=False) if goes(key))
            if gone:
                _copy(lmdb, transaction, folder, goes)
    except lmdb.Error as error:
        raise FormatError(f"the database {folder} cannot be read", str(error), "bring it back, or delete it") from error
    except OSError as error:
        raise typed(error, folder) from error
    return gone


def _copy(lmdb: Any, transaction: Any, folder: Path, goes: Callable[[bytes], bool]) -> None:
    anew = Path(tempfile.mkdtemp(prefix=_ANEW, dir=folder))
    try:
        with lmdb.open(str(anew), map_size=_ROOM, sync=False, lock=False) as environment:
            with transaction.cursor() as cursor, environment.begin(write=True) as into:
                for key, value in cursor:
                    if not goes(key):
                        into.put(key, value, append=True)
            environment.sync(True)
        os.replace(anew / "data.mdb", folder / "data.mdb")
    finally:
        shutil.rmtree(anew, ignore_errors=True)
