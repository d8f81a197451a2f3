"""The forms of what the stages read and write, as one value: tests put lighter ones in their place.

Shards and merges are imported where one is written or made: who only looks at the ledger needs no NumPy and Arrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.codec import image_refs
from pipeline.codec.hashed_file import Written
from pipeline.codec.refs.tables import Cursor, Format, How, RefReader, open_refs
from pipeline.records import ImageRef
from pipeline.settings import Columns

if TYPE_CHECKING:
    from pipeline.codec.delivered.merge import Merged, MergeInput, Output
    from pipeline.codec.delivered.without import Gone, Left
    from pipeline.codec.shards import FailureRow, FeatureRow, Matrix

OpenRefs = Callable[[BinaryIO, str, Format, Columns, int | None, Cursor, How], RefReader]


def _write_features(path: Path, rows: Sequence[FeatureRow], matrix: Matrix) -> Written:
    from pipeline.codec.shards import write_features

    return write_features(path, rows, matrix)


def _write_failures(path: Path, rows: Sequence[FailureRow]) -> Written:
    from pipeline.codec.shards import write_failures

    return write_failures(path, rows)


def _merge(inputs: Sequence[MergeInput], output: Output) -> Merged:
    from pipeline.codec.delivered.merge import merge

    return merge(inputs, output)


def _held_items(path: Path, batch: int) -> frozenset[tuple[int, int]]:
    from pipeline.codec.delivered.failures import held_items

    return held_items(path, batch)


def _holds(name: str, stream: BinaryIO, gone: Gone) -> bool:
    from pipeline.codec.delivered.without import holds

    return holds(name, stream, gone)


def _without(name: str, stream: BinaryIO, path: Path, gone: Gone) -> Left:
    from pipeline.codec.delivered.without import without

    return without(name, stream, path, gone)


@dataclass(frozen=True)
class Forms:
    """Batches, shards, deliveries: how each becomes bytes and is read back."""

    encode: Callable[[Iterable[ImageRef]], bytes] = image_refs.encode
    decode: Callable[[bytes, int], list[ImageRef]] = image_refs.decode
    open_refs: OpenRefs = open_refs
    write_features: Callable[[Path, Sequence[FeatureRow], Matrix], Written] = _write_features
    write_failures: Callable[[Path, Sequence[FailureRow]], Written] = _write_failures
    merge: Callable[[Sequence[MergeInput], Output], Merged] = _merge
    pieces: Callable[[Path, int, int], Iterator[list[ImageRef]]] = image_refs.pieces
    """The refs of a local file in the form of `encode`, so many, or so many bytes, at a time."""
    held_items: Callable[[Path, int], frozenset[tuple[int, int]]] = _held_items
    """(partner, item) of the `held` rows of one batch in a delivered failures file."""
    holds: Callable[[str, BinaryIO, Gone], bool] = _holds
    """Whether a delivered file, by its name, has rows that are to go."""
    without: Callable[[str, BinaryIO, Path, Gone], Left] = _without
    """Writes what stays of a delivered file to a new local one."""
