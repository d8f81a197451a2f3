"""Datasets in the form that docs/datasets.md states, made of arrays and of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from pipeline.training.dataset.manifest import Kind, Manifest, ShardFile
from pipeline.training.dataset.manifest import Side as SideOf
from pipeline.training.dataset.shards import digest_of, name_of

Side = tuple[NDArray[np.float32] | Sequence[bytes], Sequence[int | None]]
"""Features (n, dim), or images as files; and their labels."""


def made(folder: Path, sides: Mapping[str, Side], fingerprint: str = "", rows: int = 4096) -> Path:
    """A dataset with one shard a side."""
    folder.mkdir(parents=True)
    shards, held = [], {}
    dim = 0
    kind: Kind = "images"
    for number, (side, (values, labels)) in enumerate(sides.items()):
        path = folder / name_of(number)
        columns: dict[str, Any] = {
            "key": pa.array([b"%08d_12_%d" % (at, number * 10**6 + at) for at in range(len(labels))], pa.binary()),
            "label": pa.array(labels, pa.int32()),
        }
        if isinstance(values, np.ndarray):
            kind, dim = "features", values.shape[1]
            form = pa.list_(pa.field("element", pa.float32(), nullable=False), dim)
            columns["features"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=form)
        else:
            columns |= {name: pa.nulls(len(labels), pa.int32()) for name in ("channels", "height", "width")}
            columns |= {"encoded": pa.array([True] * len(labels)), "data": pa.array(list(values), pa.binary())}
            columns["float_data"] = pa.nulls(len(labels), pa.list_(pa.float32()))
        columns["side"] = pa.array([side] * len(labels))
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False, row_group_size=rows)
        shards.append(ShardFile(name=path.name, rows=len(labels), sha256=digest_of(path), side=side))
        counted = Counter(str(label) for label in labels if label is not None)
        held[side] = SideOf(examples=len(labels), labels=dict(counted))
    total: Counter[str] = Counter()
    for one in held.values():
        total.update(one.labels)
    Manifest(
        source="a test", examples=sum(one.examples for one in held.values()), labels=dict(total), shards=shards,
        kind=kind, dim=dim,
        classes={label: f"class {label}" for label in total}, sides=held,
        fingerprints={fingerprint: sum(total.values())} if fingerprint else {},
    ).write(folder)  # fmt: skip
    return folder


def clouds(count: int, dim: int, classes: int, seed: int = 0, apart: float = 1.0) -> tuple[Any, list[int]]:
    """Features of overlapping classes: correlated, none negative, of different widths, as a net's are."""
    random = np.random.default_rng(seed)
    same = np.random.default_rng(99)
    centres, mixing = same.standard_normal((classes, 6)), same.standard_normal((6, dim))
    labels = random.integers(0, classes, count)
    hidden = apart * centres[labels] + random.standard_normal((count, 6))
    values = np.maximum(0.0, hidden @ mixing + random.standard_normal((count, dim))) * (1 + np.arange(dim) % 7)
    return values.astype(np.float32), labels.tolist()
