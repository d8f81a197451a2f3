"""Which shard reads which part of the data: pieces of files, dealt out by a seed alone.

A piece is some lines of a text, or a row group of a Parquet file.  Where there are too few of them to mix, each shard
reads all, and takes its part of the examples of each.  So a file that is sorted by label does no harm, and whose
process reads a shard decides nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.codec.refs.packed import packing
from pipeline.errors import ConfigError
from pipeline.settings import Hdfs
from pipeline.stores.backends import scheme_of
from pipeline.stores.opening import open_place
from pipeline.stores.store import Lake
from pipeline.training.dataset.manifest import MANIFEST
from pipeline.training.descent import libsvm, tables
from pipeline.training.descent.data import files_of, refuse_dim
from pipeline.training.descent.gathering import Gathered, LeftOut
from pipeline.training.descent.libsvm import File, Span
from pipeline.training.descent.tables import DenseRows
from pipeline.training.descent.values import Numbers
from pipeline.training.linear import reading
from pipeline.training.linear.head import TRAIN

TEXT, PACKED, SPARSE, DENSE = "text", "packed text", "sparse", "dense"
MIXED = 4
"""Pieces a shard, at least; where there are fewer, each shard takes its part of every piece."""
_LEAST, _MOST = 2**16, 2**26  # bytes of a piece of text


class Piece(NamedTuple):
    """kind: of the file.  span: of text; group: of Parquet, its rows before it in `before`.

    Of the examples those count here whose number in the piece, modulo `parts`, is `part`.
    """

    file: int
    kind: str
    span: Span | None
    group: int
    before: int
    part: int
    parts: int


@dataclass(frozen=True)
class Plan:
    """place: the URL of a folder of a lake, or "": files are paths.  shards: the pieces of each.

    dim: of dense examples; of sparse ones --dim, or None.  rows: examples of each shard at most, where known.
    """

    place: str
    files: tuple[str, ...]
    shards: tuple[tuple[Piece, ...], ...]
    dim: int | None
    dense: bool
    rows: tuple[int, ...]
    seed: int

    def file(self, number: int) -> File:
        return _File(_lake(self.place), self.files[number], self.place) if self.place else Path(self.files[number])


@dataclass(frozen=True)
class _File:
    """Of a lake."""

    lake: Lake
    name: str
    place: str

    def open(self, _: str) -> Any:
        return self.lake.open(self.name)

    def __str__(self) -> str:
        return f"{self.place.rstrip('/')}/{self.name}"


def _lake(place: str) -> Lake:
    return open_place(place, Hdfs())


def plan(data: str, shards: int, dim: int | None, seed: int) -> Plan:
    """data: a file, a folder of files, a dataset of features, or the URL of a folder of a lake.

    Raises ConfigError and FormatError for what holds no examples.
    """
    place, files, dim_of = _found(data)
    some = Plan(place, files, (), dim, False, (), seed)
    opened = [some.file(number) for number in range(len(files))]
    kinds = [_kind(one) for one in opened]
    if len({one == DENSE for one in kinds}) > 1 or len({one in (TEXT, PACKED) for one in kinds}) > 1:
        raise ConfigError(f"{data} holds files of several kinds", ", ".join(sorted(set(kinds))), "give one kind")
    dense = kinds[0] == DENSE
    if dense:
        refuse_dim(data, dim)
    pieces = (
        _texts(opened, kinds, shards) if kinds[0] in (TEXT, PACKED) else _groups(opened, kinds, shards)
    )  # fmt: skip
    order = np.random.default_rng([seed, 1]).permutation(len(pieces)).tolist()
    dealt: list[list[Piece]] = [[] for _ in range(shards)]
    for turn, at in enumerate(order):
        piece, _ = pieces[at]
        if piece.parts == 1:
            dealt[turn % shards].append(piece)
        else:
            for part in range(shards):
                dealt[part].append(piece._replace(part=part))
    sizes = {(piece.file, piece.group): rows for piece, rows in pieces}
    rows = tuple(sum(-(-sizes[one.file, one.group] // one.parts) for one in own) for own in dealt) if dense else ()
    return replace(some, shards=tuple(map(tuple, dealt)), dense=dense, rows=rows,
                   dim=dim_of or tables.shape(opened).dim if dense else dim)  # fmt: skip


def _found(data: str) -> tuple[str, tuple[str, ...], int]:
    """(place, files, numbers of a feature of a dataset or 0)."""
    if scheme_of(data) not in ("", "file"):
        lake = _lake(data)
        names = tuple(sorted(one.path for one in lake.walk("")))
        if not names:
            raise ConfigError(f"{data} holds no file", "", "give a folder of a lake with files of examples")
        return data, names, 0
    path = Path(data.removeprefix("file://")).absolute()
    if (path / MANIFEST).is_file():
        manifest = reading.of_features(path)
        side = TRAIN if TRAIN in manifest.sides else ""
        reading.classes_of(manifest, path, side or None)
        names = tuple(str(path / one.name) for one in manifest.shards if not side or one.side == side)
        return "", names, manifest.dim
    return "", tuple(map(str, files_of(path))), 0


def _kind(file: File) -> str:
    try:
        with file.open("rb") as stream:
            begin = stream.read(16)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read", error.strerror or str(error), "") from error
    if begin.startswith(b"PAR1"):
        return DENSE if tables.is_dense(file) else SPARSE
    if begin.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        raise ConfigError(f"{file} is a file of NumPy's", "shards are read from text and from Parquet",
                          "write it as Parquet, or leave --on out")  # fmt: skip
    return PACKED if packing(begin) else TEXT


def _length(file: File) -> int:
    with file.open("rb") as stream:
        return int(stream.seek(0, 2))


def _texts(files: Sequence[File], kinds: Sequence[str], shards: int) -> list[tuple[Piece, int]]:
    lengths = [_length(file) if kind == TEXT else 0 for file, kind in zip(files, kinds, strict=True)]
    step = min(sum(lengths) // (4 * MIXED * shards), _MOST)
    found = []
    for number, (kind, length) in enumerate(zip(kinds, lengths, strict=True)):
        if kind == TEXT and step >= _LEAST:
            spans = [Span(begin, min(begin + step, length)) for begin in range(0, length, step)]
            found += [Piece(number, kind, span, -1, 0, 0, 1) for span in spans]
        else:
            found.append(Piece(number, kind, None, -1, 0, 0, shards))
    return [(one, 0) for one in found]


def _groups(files: Sequence[File], kinds: Sequence[str], shards: int) -> list[tuple[Piece, int]]:
    found = []
    for number, (file, kind) in enumerate(zip(files, kinds, strict=True)):
        about, before = tables.opened(file).metadata, 0
        for group in range(about.num_row_groups):
            rows = about.row_group(group).num_rows
            found.append((Piece(number, kind, None, group, before, 0, 1), rows))
            before += rows
    if len(found) >= MIXED * shards:
        return found
    return [(piece._replace(parts=shards), rows) for piece, rows in found]


class Lines(NamedTuple):
    """How many lines a piece of text has, and what is odd in it; its first line is 1."""

    piece: Piece
    lines: int
    left_out: LeftOut


def gathered(plan: Plan, piece: Piece, heard: list[Lines]) -> Iterator[Gathered]:
    """The sparse examples of a piece.  heard: gets what is odd."""
    file, left_out, count = plan.file(piece.file), LeftOut(), [0]
    if piece.kind == SPARSE:
        some = tables.read(file, plan.dim, left_out, piece.group)
    else:
        some = libsvm.read(file, plan.dim, left_out, piece.span, lambda lines: count.__setitem__(0, lines))
    seen = 0
    for one in some:
        kept = (np.arange(len(one.lengths)) + seen) % piece.parts == piece.part
        seen += len(one.lengths)
        yield one if piece.parts == 1 else _of(one, kept)
    if piece.part == 0:
        heard.append(Lines(piece, count[0], left_out))


def dense_rows(plan: Plan, piece: Piece, heard: list[Lines]) -> Iterator[DenseRows]:
    """The dense examples of a piece.  heard: gets what is odd."""
    left_out, seen = LeftOut(), 0
    assert plan.dim is not None
    for one in tables.read_dense(plan.file(piece.file), plan.dim, left_out, piece.group):
        kept = (np.arange(len(one.rows)) + seen) % piece.parts == piece.part
        seen += len(one.rows)
        if piece.parts > 1:
            one = DenseRows(one.rows[kept], one.label[np.repeat(kept, one.label_lengths)], one.label_lengths[kept])
        yield one
    if piece.part == 0:
        heard.append(Lines(piece, 0, left_out))


def _of(one: Gathered, kept: Numbers) -> Gathered:
    of, labels = np.repeat(kept, one.lengths), np.repeat(kept, one.label_lengths)
    return Gathered(one.columns[of], one.value[of], one.lengths[kept], one.label[labels], one.label_lengths[kept])


def named(heard: Sequence[Lines]) -> LeftOut:
    """What is odd in all pieces, by the lines of whole files."""
    found = LeftOut()
    lines: dict[int, int] = {}
    for piece, number, left_out in sorted(heard, key=lambda one: (one.piece.file, one.piece.span or Span(0, 0),
                                                                 one.piece.group)):  # fmt: skip
        found.add(left_out, piece.before + lines.get(piece.file, 0))
        lines[piece.file] = lines.get(piece.file, 0) + number
    return found
