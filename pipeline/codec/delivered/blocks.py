"""Delivered features as blocks of numbers, from Parquet or from text: for who computes over them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.codec.delivered.forms import TextForm, partner_of, text_form_of
from pipeline.codec.shards import FEATURES, IMAGE, Matrix
from pipeline.errors import FormatError

BLOCK_ROWS = 1024
_TEXT_ROWS = 64
_COLUMNS = ("partner_id", "item_id", "fingerprint", FEATURES)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Block:
    """Some rows of a file."""

    partner_id: npt.NDArray[np.int64]
    item_id: npt.NDArray[np.uint64]
    fingerprint: tuple[str, ...]
    """Of each row; "" where the file does not tell."""
    matrix: Matrix
    """(rows, dim), float32."""
    first: int = 0
    """The first row's place in its file."""


def blocks(name: str, stream: BinaryIO, dim: int = 0) -> Iterator[Block]:
    """The blocks of one file, at most BLOCK_ROWS rows each; Parquet by its name, else text (gzip or plain).

    dim: values of a feature, as the manifest beside a text says; 0 where there is none.  What a form's lines do not
    say of the partner, its folder tells; 0 where it does not.
    Raises FormatError, which names the file, for what is damaged or holds no features.
    """
    return _parquet(name, stream) if name.endswith(".parquet") else _text(text_form_of(name), name, stream, dim)


def images_not_features(where: str) -> FormatError:
    """What a set that keeps images delivered, where features are asked for."""
    return FormatError(
        f"{where} holds images and no features",
        'a set of net = "image" delivered them: they have no values to compute with',
        "name the root of a set with a net; hathi dataset make trains from images",
    )


def matrix_of(name: str, column: pa.Array) -> Matrix:
    """A column of vectors, fixed or variable lists, as (rows, dim) float32.  Raises FormatError for uneven ones."""
    if column.null_count:
        raise FormatError(f"no features in {name}", "a vector is null", "not a delivered file of features")
    if not (pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type)):
        raise FormatError(
            f"no features in {name}", f"they are of type {column.type}", "the column features must hold lists of floats"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if len(column) and len(flat) % len(column):
        raise FormatError(f"no features in {name}", "its vectors have several lengths", "not a delivered file")
    if pa.types.is_list(column.type) and len(set(column.value_lengths().to_pylist())) > 1:
        raise FormatError(f"no features in {name}", "its vectors have several lengths", "not a delivered file")
    return cast(Matrix, flat.reshape(len(column), -1 if len(column) else 0))


def _parquet(name: str, stream: BinaryIO) -> Iterator[Block]:
    try:
        file = pq.ParquetFile(stream)
        have = [column for column in _COLUMNS if column in file.schema_arrow.names]
        if IMAGE in file.schema_arrow.names and FEATURES not in have:
            raise images_not_features(name)
        if FEATURES not in have or "item_id" not in have:
            raise FormatError(f"no features in {name}", f"its columns: {', '.join(file.schema_arrow.names)}",
                              "a delivered file has item_id and features")  # fmt: skip
        first = 0
        for batch in file.iter_batches(BLOCK_ROWS, columns=have, use_threads=False):
            if len(batch):
                yield _block(name, batch, first)
            first += len(batch)
    except ARROW_ERRORS as error:
        raise FormatError("a file of features is damaged", f"{name}: {damage_of(error)}", "hathi verify") from error


def _block(name: str, batch: pa.RecordBatch, first: int) -> Block:
    columns: dict[str, Any] = dict(zip(batch.schema.names, batch.columns, strict=True))
    rows = len(batch)
    partners = columns["partner_id"].to_numpy() if "partner_id" in columns else np.zeros(rows)
    fingerprints = columns["fingerprint"].to_pylist() if "fingerprint" in columns else [""] * rows
    return Block(
        partners.astype(np.int64),
        columns["item_id"].to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64),
        tuple(fingerprints),
        matrix_of(name, columns[FEATURES]),
        first,
    )


def _text(form: TextForm, name: str, stream: BinaryIO, dim: int) -> Iterator[Block]:
    magic = stream.read(2)
    stream.seek(0)
    first = 0
    try:
        with gzip.open(stream) if magic == _GZIP else nullcontext(stream) as lines:
            while some := list(islice(lines, _TEXT_ROWS)):
                partners, items, matrix = form.read(some, dim)
                if partners is None:
                    partners = np.full(len(some), partner_of(name) or 0, np.int64)
                yield Block(partners, items, ("",) * len(some), matrix, first)
                first += len(some)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, OverflowError) as error:
        what = f"{name}, after row {first}: {error}"
        raise FormatError(
            "a file of features is damaged",
            what,
            f"check that the file is {form.name}: docs/consuming.md shows the form",
        ) from error
