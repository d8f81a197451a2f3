"""Nearest neighbours by an index library: build, recall@10, query, bytes, in CPU seconds; random and clustered vectors.

    python tests/benchmarks/similar_speed.py [ROWS] [DIM]

Takes those of usearch, hnswlib and faiss that are installed; `exact` is NumPy over blocks, as `hathi similar` does it.
One thread each: CPU seconds of one thread compare on a loaded machine, and cores are not what is measured.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

QUERIES, COUNT = 100, 10
DEGREE, BUILD, SEARCH = 16, 128, 64
"""M, efConstruction and ef: the same for each library."""


def main() -> None:
    rows, dim = (int(word) for word in (sys.argv[1:] + ["100000", "256"][len(sys.argv) - 1 :])[:2])
    print(f"{rows} x {dim}, M {DEGREE}, construction {BUILD}, search {SEARCH}; CPU seconds of one thread")
    print(f"{'vectors':<10}{'library':<16}{'build s':>9}{'recall@10':>11}{'query ms':>10}{'file MiB':>10}")
    for kind, vectors in (("random", _random(rows, dim)), ("clustered", _clustered(rows, dim))):
        queries = vectors[:: max(1, rows // QUERIES)][:QUERIES] + np.float32(1e-3)
        began = time.process_time()
        truth = [_exact(vectors, query) for query in queries]
        spent = (time.process_time() - began) / len(queries) * 1e3
        print(f"{kind:<10}{'exact':<16}{'':>9}{1:>11.4f}{spent:>10.2f}{'':>10}", flush=True)
        for name, build in LIBRARIES.items():
            if importlib.util.find_spec(name) is not None:
                _measure(kind, name, build, vectors, queries, truth)


def _measure(kind, name, build, vectors, queries, truth) -> None:  # type: ignore[no-untyped-def]
    for form, search, built, size in build(vectors):
        began = time.process_time()
        found = [search(query) for query in queries]
        spent = (time.process_time() - began) / len(queries) * 1e3
        recall = np.mean([len(set(a.tolist()) & set(b.tolist())) / COUNT for a, b in zip(found, truth, strict=True)])
        label = f"{name} {form}".strip()
        print(f"{kind:<10}{label:<16}{built:>9.1f}{recall:>11.4f}{spent:>10.2f}{size / 2**20:>10.1f}", flush=True)


def _random(rows: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(1).standard_normal((rows, dim), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _clustered(rows: int, dim: int) -> np.ndarray:
    """A thousand products with variants, on a surface of 32 dimensions, rectified: what an image net gives."""
    chance = np.random.default_rng(2)
    centres = chance.standard_normal((1000, 32), np.float32)
    points = centres[chance.integers(0, 1000, rows)] + 0.4 * chance.standard_normal((rows, 32), np.float32)
    vectors = np.maximum(points @ chance.standard_normal((32, dim), np.float32), 0)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _exact(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    found = [((block - query) ** 2).sum(1) for block in np.array_split(vectors, max(1, len(vectors) // 1024))]
    return np.argsort(np.concatenate(found), kind="stable")[:COUNT]


Built = Iterator[tuple[str, Callable[[np.ndarray], np.ndarray], float, int]]


def _usearch(vectors: np.ndarray) -> Built:
    from usearch.index import Index

    for form in ("f32", "f16"):
        index = Index(
            ndim=vectors.shape[1], metric="l2sq", dtype=form,
            connectivity=DEGREE, expansion_add=BUILD, expansion_search=SEARCH,
        )  # fmt: skip
        began = time.process_time()
        index.add(np.arange(len(vectors)), vectors, threads=1)
        built = time.process_time() - began
        yield form, lambda query, index=index: index.search(query, COUNT).keys, built, _size(index.save)


def _hnswlib(vectors: np.ndarray) -> Built:
    import hnswlib

    index = hnswlib.Index("l2", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=BUILD, M=DEGREE)
    index.set_num_threads(1)
    began = time.process_time()
    index.add_items(vectors, np.arange(len(vectors)))
    built = time.process_time() - began
    index.set_ef(SEARCH)
    yield "", lambda query: index.knn_query(query, COUNT)[0][0], built, _size(index.save_index)


def _faiss(vectors: np.ndarray) -> Built:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], DEGREE)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, SEARCH
    began = time.process_time()
    index.add(vectors)
    built = time.process_time() - began
    size = _size(lambda path: faiss.write_index(index, path))
    yield "", lambda query: index.search(query[None], COUNT)[1][0], built, size


LIBRARIES: dict[str, Callable[[np.ndarray], Built]] = {"usearch": _usearch, "hnswlib": _hnswlib, "faiss": _faiss}


def _size(save: Callable[[str], object]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        save(str(Path(folder) / "index"))
        return (Path(folder) / "index").stat().st_size


if __name__ == "__main__":
    main()
