"""What a training leaves: weights for NumPy and as a table, a net where the examples are dense, and a manifest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.training.descent.data import Known
from pipeline.training.descent.descent import Trained, Wanted
from pipeline.training.descent.examples import Labels
from pipeline.training.descent.judging import Judgement
from pipeline.training.descent.losses import LOSSES, Loss
from pipeline.training.descent.values import Numbers
from pipeline.training.linear import joining
from pipeline.training.linear.head import Head
from pipeline.training.linear.losses import LOSSES as OF_HEADS

NPZ, TABLE, ABOUT = "weights.npz", "weights.parquet", "linear.json"
_OF_NET = {Loss.HINGE: "hinge", Loss.LOGISTIC: "logistic", Loss.SQUARED_HINGE: "hinge"}
_ROWS = 2**20


@dataclass(frozen=True)
class Result:
    """data: a name, for the manifest.  shards: that met, and after how many steps of each, 0: of its pass.  test: of
    other examples, their name and what the model came to on them."""

    data: str
    wanted: Wanted
    trained: Trained
    shards: tuple[int, int] | None = None
    test: tuple[str, Judgement] | None = None


def write(folder: Path, result: Result, known: Known, trunk: joining.Trunk | None) -> dict[str, Any]:
    """Puts all files into an empty folder, the manifest last; gives the manifest."""
    trained, labels = result.trained, known.labels
    np.savez(folder / NPZ, weights=trained.weights, bias=trained.bias, classes=np.array(labels.classes, np.int64))
    _write_table(folder / TABLE, trained, labels)
    if known.dense:
        joining.write_net(folder, head_of(trained, labels, result.wanted.loss), trunk)
    about = manifest(result, known)
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return about


def manifest(result: Result, known: Known) -> dict[str, Any]:
    """What is known of a model, as JSON has it."""
    wanted, trained = result.wanted, result.trained
    last = trained.passes[-1]
    return {
        "format": 1,
        "data": result.data,
        "examples": known.count,
        "left_out": known.left_out.count,
        "dim": known.dim,
        "classes": list(known.labels.classes),
        "many_labels": known.labels.many,
        "fingerprints": known.manifest.fingerprints if known.manifest else {},
        "loss": next(name for name, one in LOSSES.items() if one == wanted.loss),
        "l2": wanted.l2,
        "rate": trained.rate,
        "wanted": {name: value for name, value in asdict(wanted).items() if name not in ("loss", "l2", "rate")},
        "objective": trained.objective,
        "accuracy": trained.right,
        "held_out_accuracy": trained.held_right,
        "test": {"data": result.test[0], **asdict(result.test[1])} if result.test else None,
        "best_pass": trained.best,
        "shards": dict(zip(("count", "local_steps"), result.shards, strict=True)) if result.shards else None,
        "seconds": sum(one.seconds for one in trained.passes),
        "last_pass": last._asdict(),
    }


def head_of(trained: Trained, labels: Labels, loss: Loss) -> Head:
    """A score a class: of two classes, the first one's is minus the second's."""
    weights, bias = trained.weights, trained.bias
    if labels.vectors == 1 and len(labels.classes) == 2:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return Head(weights, bias, OF_HEADS[_OF_NET[loss]])


def _write_table(path: Path, trained: Trained, labels: Labels) -> None:
    """Rows (class, index, weight) of all weights that are not 0; a row without an index is the bias."""
    schema = pa.schema([("class", pa.int64()), ("index", pa.int64()), ("weight", pa.float32())])
    names = labels.classes[-1:] if len(trained.weights) == 1 else labels.classes
    with pq.ParquetWriter(path, schema) as file:
        for name, weights, bias in zip(names, trained.weights, trained.bias, strict=True):
            file.write_table(_table(schema, name, pa.array([None], pa.int64()), np.array([bias])))
            at = np.flatnonzero(weights)
            for first in range(0, len(at), _ROWS):
                some = at[first : first + _ROWS]
                file.write_table(_table(schema, name, pa.array(some, pa.int64()), weights[some]))


def _table(schema: pa.Schema, name: int, index: pa.Array, weights: Numbers) -> pa.Table:
    return pa.table([pa.array(np.full(len(weights), name)), index, pa.array(weights, pa.float32())], schema=schema)
