"""An example of a dataset, and where examples are read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, FormatError
from pipeline.training.data import datums
from pipeline.training.data.records import Records, key_text, open_leveldb, open_lmdb
from pipeline.training.data.transform import Unfit
from pipeline.training.dataset import shards


@dataclass(frozen=True, slots=True)
class Example:
    """A key, and the Datum that stands under it in a database of Caffe's."""

    key: bytes
    datum: caffe_pb2.Datum

    def image(self) -> NDArray[Any]:
        """(channels, height, width), uint8 or float32.  Raises FormatError, which names the key."""
        try:
            return datums.image(self.datum)
        except Unfit as error:
            raise self.unusable(str(error)) from error

    def unusable(self, says: str) -> FormatError:
        return FormatError(f"example '{key_text(self.key)}' cannot be used", says, "repair or remove it")


def read(path: Path, side: str | None = None) -> Iterator[Example]:
    """The examples of an LMDB, a LevelDB or a folder of shards, in the order of their keys.

    side: only this one.  Raises ConfigError for a path that is none of them and for a side that is not there,
    FormatError for a damaged record or shard.
    """
    if (path / shards.MANIFEST).is_file():
        yield from (Example(key, datum) for key, datum in shards.read(path, side))
        return
    if side is not None:
        what = "a database of Caffe's is one side"
        raise ConfigError(f"the dataset {path} has no side '{side}'", what, "leave --side out")
    if (path / "data.mdb").is_file():
        records: Records = open_lmdb(path, "the dataset")
    elif (path / "CURRENT").is_file():
        records = open_leveldb(path, "the dataset")
    else:
        raise ConfigError(
            f"{path} is no dataset",
            "it holds no data.mdb (LMDB), no CURRENT (LevelDB) and no " + shards.MANIFEST,
            "give a folder of one of these; a list of images is brought in by: hathi dataset import LIST FOLDER",
        )
    try:
        for key, value in zip(records.keys, records.read(range(len(records.keys))), strict=True):
            try:
                yield Example(key, datums.parse(value))
            except Unfit as error:
                raise FormatError(
                    f"record '{key_text(key)}' of {path} cannot be used", str(error), "repair or remove it"
                ) from error
    finally:
        records.close()
