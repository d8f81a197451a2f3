"""A partner's merged table as files in a local folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.codec.delivered.blocks import matrix_of
from pipeline.codec.delivered.forms import FEATURES, TextFiles
from pipeline.codec.delivered.parquet import SHIPMENT, rows_of_group
from pipeline.codec.delivered.parquet_parts import Parts
from pipeline.codec.hashed_file import Written
from pipeline.records import Numbers, unsigned
from pipeline.stages.compact.merging import Input, Rows, Target, merged, most_inputs, numbers_of, table_schema

_REPEATED = ("version", "fingerprint", SHIPMENT)


@dataclass(frozen=True)
class Table:
    """What was written.  files: (name relative to the folder, what its manifest says)."""

    files: tuple[tuple[str, Written], ...]
    rows: int
    fingerprints: dict[str, int]
    numbers: Numbers


def write(
    folder: Path,
    inputs: Sequence[Input],
    target: Target,
    formats: Sequence[str],
    note: Callable[[int], None],
) -> Table:
    """Merge inputs into Parquet in a folder and, where asked for, text; the same inputs give the same bytes.

    note: told of so many more rows, at a point where it is safe to stop.
    """
    folder.mkdir(parents=True)
    left = fewer(folder, inputs, target, note)
    numbers = numbers_of(left)
    parts = Parts(folder / FEATURES, table_schema(target.dim, numbers), _REPEATED)
    texts = TextFiles(folder, formats)
    try:
        rows, prints = _into(parts, texts, merged(left, target), target, note)
    except BaseException:
        parts.abandon()
        texts.abandon()
        raise
    files = [(path.relative_to(folder).as_posix(), written) for path, written in parts.close() + texts.close()]
    return Table(tuple(sorted(files)), rows, prints, numbers)


def fewer(
    folder: Path,
    inputs: Sequence[Input],
    target: Target,
    note: Callable[[int], None],
) -> list[Input]:
    """As many inputs as one merge may have: some of very many are merged into files in a local folder first."""
    left = list(inputs)
    room = most_inputs(target.dim)
    while len(left) > room:
        some, left = left[:room], left[room:]
        path = folder / f"some-{len(left)}"
        numbers = numbers_of(some)
        parts = Parts(path, table_schema(target.dim, numbers), _REPEATED, part_bytes=2**62)
        rows = _into(parts, None, merged(some, target), target, note)[0]
        parts.close()
        left.append(Input(path.name, partial(_opened, path / "part-00000.parquet"), None, rows, numbers))
    return left


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _into(
    parts: Parts,
    texts: TextFiles | None,
    blocks: Iterator[Rows],
    target: Target,
    note: Callable[[int], None],
) -> tuple[int, dict[str, int]]:
    rows = 0
    prints: Counter[str] = Counter()
    for table, ranks in _regrouped(blocks, rows_of_group(target.dim)):
        columns = {name: table.column(name).combine_chunks() for name in table.schema.names}
        columns[SHIPMENT] = pa.array(target.names).take(pa.array(ranks))
        parts.write(columns)
        if texts:
            items = [unsigned(item) for item in columns["item_id"].to_pylist()]
            texts.write(target.partner_id, items, matrix_of("a current table", columns["features"]))
        prints.update(columns["fingerprint"].to_pylist())
        rows += len(table)
        note(len(table))
    return rows, dict(sorted(prints.items()))


def _regrouped(blocks: Iterator[Rows], size: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Row groups of `size` rows, whatever the blocks were."""
    waiting: list[pa.Table] = []
    ranks: list[np.ndarray] = []
    held = 0
    for block in blocks:
        waiting.append(block.table)
        ranks.append(block.ranks)
        held += len(block.table)
        if held < size:
            continue
        table, places = pa.concat_tables(waiting), np.concatenate(ranks)
        whole = held - held % size
        for first in range(0, whole, size):
            yield table.slice(first, size), places[first : first + size]
        waiting, ranks, held = [table.slice(whole)], [places[whole:]], held - whole
    if held:
        yield pa.concat_tables(waiting), np.concatenate(ranks)
