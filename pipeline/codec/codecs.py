"""The forms of what the stages read and write, as one value: tests put lighter ones in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.codec import image_refs, shards
from pipeline.codec.delivered.failures import held_items
from pipeline.codec.delivered.merge import Merged, MergeInput, Output, merge
from pipeline.codec.hashed_file import Written
from pipeline.codec.refs.tables import Cursor, Format, How, RefReader, open_refs
from pipeline.codec.shards import FailureRow, FeatureRow, Matrix
from pipeline.records import ImageRef
from pipeline.settings import Columns

OpenRefs = Callable[[BinaryIO, str, Format, Columns, int | None, Cursor, How], RefReader]


@dataclass(frozen=True)
class Forms:
    """Batches, shards, deliveries: how each becomes bytes and is read back."""

    encode: Callable[[Iterable[ImageRef]], bytes] = image_refs.encode
    decode: Callable[[bytes, int], list[ImageRef]] = image_refs.decode
    open_refs: OpenRefs = open_refs
    write_features: Callable[[Path, Sequence[FeatureRow], Matrix], Written] = shards.write_features
    write_failures: Callable[[Path, Sequence[FailureRow]], Written] = shards.write_failures
    merge: Callable[[Sequence[MergeInput], Output], Merged] = merge
    pieces: Callable[[Path, int, int], Iterator[list[ImageRef]]] = image_refs.pieces
    """The refs of a local file in the form of `encode`, so many, or so many bytes, at a time."""
    held_items: Callable[[Path, int], frozenset[tuple[int, int]]] = held_items
    """(partner, item) of the `held` rows of one batch in a delivered failures file."""
