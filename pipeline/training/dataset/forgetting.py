"""A dataset without the examples of whom is forgotten, and the databases that were exported of it.

A shard that has some is written anew under another name; then the manifest that names it takes the place of the old
one, in one step; then the old shard goes.  So a dataset is whole at each instant, whoever is killed, and what no
manifest names goes with the next try.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from pipeline.codec.arrow_damage import ARROW_ERRORS, damage_of
from pipeline.errors import FormatError
from pipeline.process.folder_lock import folder_lock
from pipeline.stores.local import typed
from pipeline.training.dataset import database
from pipeline.training.dataset.assembling import OF_FEW_VALUES
from pipeline.training.dataset.folders import at_work
from pipeline.training.dataset.law import law_of
from pipeline.training.dataset.manifest import MANIFEST, Manifest, ShardFile, Side, digest_of_manifest, read_manifest
from pipeline.training.dataset.shards import digest_of

EXPORTS = "_exports.json"
"""Beside a manifest: where databases lie that were made of the dataset."""
_KEY = re.compile(rb"\d{8}_(\d+)_(\d+)")
"""How `make` names an example: place, partner, item."""

Goes = Callable[[NDArray[np.int64], NDArray[np.uint64]], NDArray[np.bool_]]
"""Which examples go, by partner and unsigned item."""


@dataclass
class Went:
    """What went.  waiting: what is at work there just now, in words."""

    examples: int = 0
    waiting: list[str] = field(default_factory=list)


def note_export(dataset: Path, made: Path, within: Path) -> None:
    """Say beside a dataset that a database is made of it: before it is.  within: the folder that appears whole with it.

    A database by itself takes no note.  Raises as a local store does.
    """
    if (dataset / MANIFEST).is_file():
        found = sorted({*_exports(dataset), (str(made.absolute()), str(within.absolute()))})
        _replace(dataset / EXPORTS, json.dumps(found, indent=1) + "\n")


def without(dataset: Path, goes: Goes) -> Went:
    """Remove the examples of a dataset and of what was exported of it; a folder that is not there has none.

    Raises FormatError for what cannot be read, and as a local store does.
    """
    went = Went()
    if at_work(dataset):
        went.waiting.append(f"the dataset {dataset} is being made")
    if not (dataset / MANIFEST).is_file():
        return went
    with folder_lock(dataset) as mine:
        if not mine:
            went.waiting.append(f"the dataset {dataset} is being written")
            return went
        try:
            went.examples = _dataset(dataset, goes)
        except OSError as error:
            raise typed(error, dataset) from error
    for export, within in ((Path(one), Path(other)) for one, other in _exports(dataset)):
        if at_work(within):
            went.waiting.append(f"the database {export} is being made")
        elif (export / "data.mdb").is_file():
            went.examples += database.without(export, lambda key: _key_goes(key, goes))
    return went


def _exports(dataset: Path) -> list[tuple[str, str]]:
    """Each database, and the folder that appears whole with it."""
    try:
        found = json.loads((dataset / EXPORTS).read_text(encoding="utf-8"))
        pairs = [(str(one), str(other)) for one, other in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise FormatError(f"{dataset / EXPORTS} cannot be read", str(error), "delete it, and what it names") from error
    return pairs


def _key_goes(key: bytes, goes: Goes) -> bool:
    found = _KEY.fullmatch(key)
    if found is None:
        return False
    partner, item = (int(one) for one in found.groups())
    return bool(goes(np.array([partner], np.int64), np.array([item], np.uint64))[0])


def _dataset(dataset: Path, goes: Goes) -> int:
    manifest = read_manifest(dataset)
    if manifest.split is None:
        return 0  # not of `make`: it knows no items
    shards: list[ShardFile] = []
    labels, prints = Counter[int](), Counter[str]()
    sides: dict[str, Counter[int]] = {}
    for shard in manifest.shards:
        path = dataset / shard.name
        gone = _gone_of(path, goes)
        if not gone.any():
            shards.append(shard)
            continue
        rows = _columns(path, ["label", "side", "fingerprint"]).filter(pa.array(gone)).to_pylist()
        labels.update(one["label"] for one in rows)
        prints.update(one["fingerprint"] for one in rows)
        sides.setdefault(shard.side, Counter()).update(one["label"] for one in rows)
        if not gone.all():
            name = f"{shard.name.partition('.')[0]}.{manifest.gone + labels.total()}.parquet"
            _write_without(path, dataset / name, gone)
            left = shard.rows - int(gone.sum())
            shards.append(ShardFile(name=name, rows=left, sha256=digest_of(dataset / name), side=shard.side))
    number = labels.total()
    if number:
        _replace(dataset / MANIFEST, _told(manifest, dataset, shards, (labels, prints, sides)).text())
    named = {one.name for one in read_manifest(dataset).shards}
    for path in dataset.glob("part-*.parquet"):
        if path.name not in named:
            path.unlink()
    return number


def _told(
    manifest: Manifest,
    dataset: Path,
    shards: list[ShardFile],
    gone: tuple[Counter[int], Counter[str], dict[str, Counter[int]]],
) -> Manifest:
    """What the manifest says then.  gone: labels, fingerprints, and labels by side."""
    labels, prints, sides = gone
    assert manifest.law is not None
    number, law = labels.total(), manifest.law
    left = law_of(
        law.rows,
        law.examples - number,
        law.without_image,
        law.without_label,
        law.duplicates,
        law.forgotten + number,
    )
    return manifest.model_copy(
        update={
            "examples": manifest.examples - number,
            "labels": _less(manifest.labels, {str(label): count for label, count in labels.items()}),
            "fingerprints": _less(manifest.fingerprints, prints),
            "shards": shards,
            "law": left,
            "before": [*manifest.before, digest_of_manifest(dataset)],
            "sides": {
                name: Side(
                    examples=side.examples - sides.get(name, Counter()).total(),
                    labels=_less(side.labels, {str(at): count for at, count in sides.get(name, Counter()).items()}),
                )
                for name, side in manifest.sides.items()
            },
        }
    )


def _less(counts: dict[str, int], gone: dict[str, int] | Counter[str]) -> dict[str, int]:
    left = {name: count - gone.get(name, 0) for name, count in counts.items()}
    return {name: count for name, count in left.items() if count}


def _gone_of(path: Path, goes: Goes) -> NDArray[np.bool_]:
    table = _columns(path, ["partner_id", "item_id"])
    return goes(table["partner_id"].to_numpy(), table["item_id"].to_numpy().view(np.uint64))


def _columns(path: Path, names: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=names, partitioning=None, use_threads=False)
    except (FileNotFoundError, *ARROW_ERRORS) as error:
        what = str(error) if isinstance(error, FileNotFoundError) else damage_of(error)
        raise FormatError(f"the shard {path} cannot be read", what, "bring it back, or delete the dataset") from error


def _write_without(path: Path, target: Path, gone: NDArray[np.bool_]) -> None:
    """Row group by row group, as `make` writes them."""
    with (
        pq.ParquetFile(path, pre_buffer=False) as file,
        pq.ParquetWriter(target, file.schema_arrow, compression="none", use_dictionary=list(OF_FEW_VALUES)) as writer,
    ):
        for first, group in _groups(file):
            stays = group.filter(pa.array(~gone[first : first + len(group)]))
            if len(stays):
                writer.write_table(stays, row_group_size=len(stays))


def _groups(file: Any) -> Iterator[tuple[int, pa.Table]]:
    first = 0
    for number in range(file.num_row_groups):
        group = file.read_row_group(number, use_threads=False)
        yield first, group
        first += len(group)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise typed(error, path) from error
