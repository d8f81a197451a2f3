"""A dataset as an LMDB that Caffe reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import FormatError
from pipeline.training.data.records import key_text
from pipeline.training.dataset.examples import Example
from pipeline.training.packages import demand

_ROOM = 1 << 40  # addresses, not bytes on the disk: the largest that the database may ever be
_AT_ONCE = 1000  # records of a transaction


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
