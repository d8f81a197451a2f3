"""The features of a dataset as rows with labels, checked on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.amounts import counted
from pipeline.errors import ConfigError, FormatError
from pipeline.training.data.records import key_text
from pipeline.training.dataset import shards
from pipeline.training.dataset.manifest import MANIFEST, Manifest, read_manifest
from pipeline.training.linear.table import Chunk, Rows

_AGAIN = "make the dataset again: hathi dataset make"
_SPARE = 1000  # numbers of classes without an example that are nothing strange


def of_features(folder: Path) -> Manifest:
    """The manifest of a dataset of features.  Raises ConfigError for one of images, and for what is no dataset."""
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{folder} is no dataset", f"it holds no {MANIFEST}", "make one: hathi dataset make NAME")
    found = read_manifest(folder)
    if found.kind != shards.FEATURES:
        raise ConfigError(
            f"the dataset {folder} holds images",
            "a head is trained on features",
            "make a dataset of the features that are delivered: hathi dataset make --features; "
            "or fine-tune the whole net on images: hathi train template finetune",
        )
    if found.dim < 1 or not found.examples:
        raise ConfigError(f"the dataset {folder} holds no features", f"{counted(found.examples, 'example')}", _AGAIN)
    return found


def classes_of(manifest: Manifest, folder: Path, side: str | None) -> tuple[int, list[str]]:
    """How many classes there are, and what is odd about them, in sentences.

    Raises ConfigError where one class alone has examples on the side, and for numbers that are no classes'.
    """
    counts = {int(label): number for label, number in (manifest.sides[side] if side else manifest).labels.items()}
    named = {int(label) for label in (*manifest.labels, *manifest.classes)}
    seen = [label for label, number in counts.items() if number]
    where = f"the side '{side}'" if side else "the dataset"
    if len(seen) < 2:
        only = f"all its examples have the label {seen[0]}" if seen else "it has no example"
        raise ConfigError(
            f"{where} of {folder} has one class only" if seen else f"{where} of {folder} is empty",
            only,
            "a head tells classes apart: give examples of two at least",
        )
    classes = max(named) + 1
    if min(named) < 0 or classes > 2 * len(named) + _SPARE:
        strange = min(named) if min(named) < 0 else max(named)
        raise ConfigError(
            f"the labels of {folder} are no numbers of classes",
            f"the label {strange} stands among {counted(len(named), 'label')}",
            "number the classes from 0",
        )
    absent = [label for label in range(classes) if not counts.get(label)]
    alone = [label for label, number in sorted(counts.items()) if number == 1]
    return classes, [
        f"{_listed(labels)}: {says}"
        for labels, says in ((absent, "no example to train with"), (alone, "one example to train with"))
        if labels
    ]


def _listed(labels: list[int]) -> str:
    more = f" and {len(labels) - 10} more" if len(labels) > 10 else ""
    return f"{'class' if len(labels) == 1 else 'classes'} {', '.join(map(str, labels[:10]))}{more}"


def rows(folder: Path, side: str | None, dim: int, classes: int) -> Iterator[Chunk]:
    """Raises FormatError, which names the example, for a feature that is not finite or has another length, and for a
    label that is missing or no class's."""
    for batch in shards.batches(folder, side, ["key", "label", shards.FEATURES]):
        keys, labels = batch.column("key"), batch.column("label")
        numbers = labels.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        values = _matrix(folder, keys, batch.column(shards.FEATURES), dim)
        bad = np.flatnonzero((numbers < 0) | (numbers >= classes))
        if bad.size:
            label = labels[int(bad[0])].as_py()
            says = (
                "it has no label"
                if label is None
                else f"its label is {label}; there are {counted(classes, 'class', 'classes')}"
            )
            raise _unusable(folder, keys, int(bad[0]), says)
        yield Chunk(values, numbers.astype(np.int32))


def _matrix(folder: Path, keys: pa.Array, column: pa.Array, dim: int) -> Rows:
    """(n, dim) float32."""
    if not pa.types.is_fixed_size_list(column.type) or column.type.value_type != pa.float32():
        says = f"its features are {column.type}; docs/datasets.md says how they stand there"
        raise FormatError(f"the dataset {folder} cannot be read", says, _AGAIN)
    if column.type.list_size != dim:
        says = f"a feature has {counted(column.type.list_size, 'number')}; the manifest says {dim:,}"
        raise FormatError(f"the dataset {folder} holds features of another length", says, _AGAIN)
    values = column.flatten()
    if column.null_count or values.null_count:
        at = int(np.argmax([any(one is None for one in row or [None]) for row in column.to_pylist()]))
        raise _unusable(folder, keys, at, "it has no feature, or a part of one")
    found: Rows = values.to_numpy().reshape(len(column), dim)
    bad = np.flatnonzero(~np.isfinite(found).all(1))
    if bad.size:
        raise _unusable(folder, keys, int(bad[0]), "its feature holds NaN or infinity")
    return found


def _unusable(folder: Path, keys: pa.Array, at: int, says: str) -> FormatError:
    name = key_text(keys[at].as_py())
    return FormatError(f"example '{name}' of {folder} cannot be used", says, f"correct or remove it; {_AGAIN}")
