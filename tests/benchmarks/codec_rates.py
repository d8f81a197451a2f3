"""Rates of the codecs and of the merge: `python -m tests.benchmarks.codec_rates [--rows N]` prints a table.

CPU seconds of one core (wall seconds where several work), input in memory or in the page cache, the better of two runs.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import orc
from pyarrow import parquet as pq

from pipeline.codec import image_refs
from pipeline.codec.delivered.merge import MergeInput, Output, merge
from pipeline.codec.refs.tables import Cursor, detect, open_refs
from pipeline.codec.shards import FeatureRow, write_features
from pipeline.records import ImageRef, item_id_of
from pipeline.settings import Columns

REFS = 200_000
DIM = 4096
NOT_ZERO = 0.27
BATCH = 1024
PARTNERS = 8


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=8 * BATCH, help="feature rows to merge")
    rows = options.parse_args().rows
    cores = len(os.sched_getaffinity(0))
    print(f"{'what':44} {'per second':>12} {'wanted':>10}")
    for name, data, wanted in ref_files():
        show(
            f"refs, {name} -> take -> encode", REFS / best(time.process_time, lambda d=data, n=name: ship(d, n)), wanted
        )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        inputs = shards(folder, rows)
        for formats, wanted in ((["text"], 3_500), (["parquet"], 5_000), (["text", "parquet"], None)):
            for threads in sorted({1, cores}):
                clock = time.process_time if threads == 1 else time.perf_counter
                seconds = best(clock, lambda f=formats, t=threads: merged(inputs, folder / "out", f, t))
                what = f"rows, {' and '.join(formats)}, {threads} core{'s' * (threads > 1)}"
                show(what, rows / seconds, wanted if threads == 1 else None)


def best(clock: Callable[[], float], work: Callable[[], None]) -> float:
    """Seconds of the quicker of two runs."""
    seconds = []
    for _ in range(2):
        began = clock()
        work()
        seconds.append(clock() - began)
    return min(seconds)


def show(what: str, rate: float, wanted: int | None) -> None:
    print(f"{what:44} {rate:12,.0f} {'' if wanted is None else f'{wanted:,}':>10}", flush=True)


def ref_files() -> Iterator[tuple[str, bytes, int | None]]:
    """Files of the same refs in several formats; external ids, so that each ref is hashed."""
    partners = [at // 5000 for at in range(REFS)]
    names = [f"SKU-{at}" for at in range(REFS)]
    urls = [f"https://img.example.com/p/{at % 100}/{at}/large_{at}.jpg?w=600&v={at * 7 % 1000}" for at in range(REFS)]
    table = pa.table({"partner_id": partners, "external_id": names, "url": urls})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=100_000)
    yield "urls.parquet", buffer.getvalue(), 200_000
    buffer = io.BytesIO()
    orc.write_table(table, buffer)
    yield "urls.orc", buffer.getvalue(), None
    for quoting, name, wanted in ((csv.QUOTE_MINIMAL, "urls.csv", 100_000), (csv.QUOTE_ALL, "quoted.csv", None)):
        text = io.StringIO()
        writer = csv.writer(text, quoting=quoting)  # type: ignore[arg-type]
        writer.writerow(["partner_id", "external_id", "url"])
        writer.writerows(zip(partners, names, urls, strict=True))
        yield name, text.getvalue().encode(), wanted
    refs = zip(partners, map(item_id_of, names), names, urls, strict=True)
    yield "urls.pb", image_refs.encode(ImageRef(*ref, b"", 0) for ref in refs), None


def ship(data: bytes, name: str) -> None:
    reader = open_refs(io.BytesIO(data), name, detect(name), Columns(), None, Cursor(0, 0))
    ended = False
    while not ended:
        taken = reader.take(1024, 64 * 2**20)
        image_refs.encode(taken.refs)
        ended = taken.ended


def shards(folder: Path, rows: int) -> list[MergeInput]:
    """Shards of normalised, half-wave features, as fc7 has them; each partner's items in a few of them."""
    random = np.random.default_rng(7)
    inputs = []
    for batch in range(-(-rows // BATCH)):
        count = min(BATCH, rows - batch * BATCH)
        matrix = np.where(random.random((count, DIM)) < NOT_ZERO, random.gamma(1.2, 1.0, (count, DIM)), 0)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        ids = random.integers(0, 2**64, count, np.uint64).tolist()
        ordinals = range(batch * BATCH, batch * BATCH + count)
        listed = [
            FeatureRow(
                ordinal * PARTNERS // rows,
                item_id,
                ordinal,
                f"SKU-{ordinal}",
                f"https://img.example.com/p/{ordinal}/large_{ordinal}.jpg",
                item_id.to_bytes(32, "big"),
                datetime(2024, 1, 1, tzinfo=UTC),
            )
            for ordinal, item_id in zip(ordinals, ids, strict=True)
        ]
        path = folder / f"{batch}.features"
        write_features(path, listed, matrix.astype(np.float32))
        inputs.append(MergeInput(batch, path, None))
    return inputs


def merged(inputs: list[MergeInput], out: Path, formats: list[str], threads: int) -> None:
    merge(
        inputs,
        Output(
            out,
            dim=DIM,
            version="20240101T000000Z",
            fingerprint="0" * 64,
            formats=formats,
            redact_queries=True,
            last_try=False,
        ),
        threads,
    )
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
