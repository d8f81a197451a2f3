"""An index of a catalogue, built once and kept: HNSW by usearch (extra `index`).

Measured by tests/benchmarks/similar_speed.py with usearch, hnswlib and faiss, 100,000 clustered vectors of 256 values:
all find what an exact search finds.  usearch with half-precision values builds in least CPU time (20 s; 21, 25); its
files are a little over half as large (63 MiB; 112) and are mapped, not loaded; hnswlib has to be compiled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import numpy as np

from pipeline.analysis.similar.catalogue import Catalogue
from pipeline.analysis.similar.nearest import Found, Query, ranked
from pipeline.clock import random_nonce
from pipeline.errors import ConfigError
from pipeline.process.folder_lock import folder_lock
from pipeline.process.installed import to_install
from pipeline.stores.local import typed

MEASURES = {"l2": "l2sq", "cosine": "cos"}
_DEGREE, _BUILD, _SEARCH = 16, 128, 128
_MORE = 4
"""So many times the wanted number are taken from the index, and then ranked exactly."""


def approximate(catalogue: Catalogue, query: Query, folder: Path) -> Found:
    """As `exact`, by an index kept in a folder, which is built when there is none for just these files.

    Raises ConfigError for a metric that it cannot serve, or where usearch is not installed.
    """
    if query.metric not in MEASURES:
        raise ConfigError(f"no index for {query.metric}", "", "leave --approximate out, or choose l2 or cosine")
    if importlib.util.find_spec("usearch") is None:
        raise ConfigError("usearch is not installed", "", f"{to_install('index')}, or leave --approximate out")
    from usearch.index import Index

    path = folder / f"{_digest(catalogue, query)}.usearch"
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder, shared=True):  # `hathi forget` deletes what is here, and waits for who builds
        if not path.exists():
            _build(catalogue, query, path)
        index = Index.restore(str(path), view=True)
    index.expansion_search = max(_SEARCH, _MORE * query.count)
    found = index.search(query.vector, min(len(index), _MORE * query.count + 1))
    return ranked(catalogue, query, np.asarray(found.keys).astype(np.int64), len(index))


def _digest(catalogue: Catalogue, query: Query) -> str:
    """What an index is of: any other file, net or metric makes another."""
    text = repr((query.metric, query.fingerprint, [(one.path, one.rows) for one in catalogue.sources]))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _build(catalogue: Catalogue, query: Query, path: Path) -> None:
    from usearch.index import Index

    index = Index(
        ndim=len(query.vector),
        metric=MEASURES[query.metric],
        dtype="f16",
        connectivity=_DEGREE,
        expansion_add=_BUILD,
    )
    for places, block in catalogue.blocks():
        same = np.array([text == query.fingerprint for text in block.fingerprint])
        some = catalogue.wins[places] & same & np.isfinite(block.matrix).all(1)
        if some.any():
            index.add(places[some].astype(np.uint64), block.matrix[some])
    own = path.with_suffix(f".{random_nonce()}")
    try:  # under a name of our own first: two builders at once leave one whole index
        index.save(str(own))
        os.replace(own, path)
    except OSError as error:
        own.unlink(missing_ok=True)
        raise typed(error, path) from error
