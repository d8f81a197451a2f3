from __future__ import annotations

from datetime import UTC
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet as pq

from pipeline.codec.delivered.blocks import blocks
from pipeline.codec.delivered.failures import FailuresWriter
from pipeline.codec.delivered.parquet import FeaturesWriter
from pipeline.errors import FormatError
from pipeline.operations.report.statistics import Sample
from pipeline.records import MAX_ITEM_ID
from tests.unit.codec.rows import failure, feature

ROWS = [feature(12, 15341120044065015867, 0, external_id="SKU-1", etag='"e"'), feature(12, MAX_ITEM_ID, 1)]
MATRIX = np.array([[0.5, 0, 0.25], [0, 1, 0]], np.float32)


def deliver_features(folder: Path) -> Path:
    writer = FeaturesWriter(folder, 3, "20240101T000000Z", "f" * 64)
    writer.write(ROWS, MATRIX)
    ((path, written),) = writer.close()
    assert (path.name, written.rows, written.size) == ("part-00000.parquet", 2, path.stat().st_size)
    return path


def deliver_failures(folder: Path, redact_queries: bool) -> Path:
    writer = FailuresWriter(folder, "20240101T000000Z", "f" * 64, redact_queries)
    url = "https://h/x.jpg?signature=abc#f"
    writer.write([failure(12, MAX_ITEM_ID, 1, url=url, external_id=url), failure(12, 5, 2, url=url, retriable=True)])
    ((path, _),) = writer.close()
    return path


def test_feature_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    schema = pq.read_schema(deliver_features(tmp_path))
    assert [(field.name, str(field.type)) for field in schema] == [
        ("partner_id", "int64"),
        ("item_id", "int64"),
        ("external_id", "string"),
        ("url", "string"),
        ("content_sha256", "fixed_size_binary[32]"),
        ("fetched_at", "timestamp[us, tz=UTC]"),
        ("version", "string"),
        ("fingerprint", "string"),
        ("features", "fixed_size_list<element: float not null>[3]"),
        ("etag", "string"),
        ("last_modified", "string"),
        ("reused", "string"),
    ]


def test_failure_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    schema = pq.read_schema(deliver_failures(tmp_path, True))
    assert [(field.name, str(field.type)) for field in schema] == [
        ("partner_id", "int64"),
        ("item_id", "int64"),
        ("external_id", "string"),
        ("url", "string"),
        ("reason", "string"),
        ("retriable", "bool"),
        ("detail", "string"),
        ("version", "string"),
        ("fingerprint", "string"),
    ]


def test_parquet_says_what_spark_and_hive_need_to_read(tmp_path: Path) -> None:
    columns = pq.read_metadata(deliver_features(tmp_path)).schema
    kinds = {columns.column(at).path: columns.column(at) for at in range(len(columns))}
    assert kinds["item_id"].physical_type == "INT64"
    assert kinds["features.list.element"].physical_type == "FLOAT"
    assert str(kinds["fetched_at"].logical_type).startswith("Timestamp(isAdjustedToUTC=true, timeUnit=microseconds")
    assert kinds["content_sha256"].physical_type == "FIXED_LEN_BYTE_ARRAY"


def test_pandas_reads_features_without_our_code(tmp_path: Path) -> None:
    frame = pd.read_parquet(deliver_features(tmp_path))
    assert frame["item_id"].tolist() == [-3105624029644535749, -1]
    assert np.stack(frame["features"]).tolist() == MATRIX.tolist()
    assert frame["external_id"].tolist() == ["SKU-1", f"SKU-{MAX_ITEM_ID}"]
    assert frame["fetched_at"][0].to_pydatetime().astimezone(UTC) == ROWS[0].fetched_at
    assert frame["url"][0] == ROWS[0].url
    assert frame["etag"].isna().tolist() == [False, True]


def test_duckdb_reads_features_and_failures_without_our_code(tmp_path: Path) -> None:
    path = deliver_features(tmp_path)
    rows = duckdb.sql(f"SELECT item_id, features, content_sha256, version FROM '{path}'").fetchall()
    assert rows == [
        (-3105624029644535749, [0.5, 0.0, 0.25], bytes(32), "20240101T000000Z"),
        (-1, [0.0, 1.0, 0.0], (1).to_bytes(32, "big"), "20240101T000000Z"),
    ]
    path = deliver_failures(tmp_path / "failures", True)
    rows = duckdb.sql(f"SELECT item_id, reason, retriable, detail FROM '{path}'").fetchall()
    assert rows == [(-1, "http_4xx", False, "404"), (5, "http_4xx", True, "404")]


@pytest.mark.parametrize("redact", [True, False])
def test_a_query_is_kept_out_of_failures_where_that_is_asked_for(tmp_path: Path, redact: bool) -> None:
    frame = pd.read_parquet(deliver_failures(tmp_path, redact))
    url = "https://h/x.jpg?redacted" if redact else "https://h/x.jpg?signature=abc#f"
    assert frame["url"].tolist() == [url, url]
    assert frame["external_id"].tolist() == [url, "SKU-5"]


def test_a_large_table_goes_on_in_further_parts(tmp_path: Path) -> None:
    writer = FeaturesWriter(tmp_path, 3, "v", "f", part_bytes=1)
    for _ in range(3):
        writer.write(ROWS, MATRIX)
    parts = writer.close()
    assert [path.name for path, _ in parts] == [f"part-{number:05d}.parquet" for number in range(3)]
    assert len(pd.read_parquet(tmp_path)) == 6


def test_a_table_without_rows_has_no_files(tmp_path: Path) -> None:
    assert FeaturesWriter(tmp_path / "none", 3, "v", "f").close() == []
    assert not (tmp_path / "none").exists()


def test_float16_is_half_as_large_and_read_by_pandas_duckdb_stats_and_report_alike(tmp_path: Path) -> None:
    matrix = np.random.default_rng(1).normal(0, 0.1, (200, 512)).astype(np.float32)
    rows = [feature(12, item, item) for item in range(200)]
    files = {}
    for numbers in ("float32", "float16"):
        writer = FeaturesWriter(tmp_path / numbers, 512, "20240101T000000Z", "f" * 64, numbers=numbers)
        writer.write(rows, matrix)
        ((files[numbers], _),) = writer.close()
    assert files["float16"].stat().st_size < 0.55 * files["float32"].stat().st_size
    path, wanted = files["float16"], matrix.astype(np.float16).astype(np.float32)
    assert np.abs(wanted - matrix).max() < 1e-3
    assert str(pq.read_schema(path).field("features").type) == "fixed_size_list<element: halffloat not null>[512]"
    np.testing.assert_array_equal(np.stack(pd.read_parquet(path)["features"]), wanted)
    found = duckdb.sql(f"SELECT features FROM read_parquet('{path}')").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in found], np.float32), wanted)
    with path.open("rb") as stream:
        (block,) = blocks(str(path), stream)
    np.testing.assert_array_equal(block.matrix, wanted)
    assert block.matrix.dtype == np.float32
    sample = Sample("demo", "f" * 64, "engine", 512)
    with path.open("rb") as stream:
        sample.add(stream, "S")
    assert sample.parts[0].dtype == np.float32


def test_a_value_that_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    writer = FeaturesWriter(tmp_path, 3, "20240101T000000Z", "f" * 64, numbers="float16")
    with pytest.raises(FormatError, match="does not fit in float16"):
        writer.write(ROWS, MATRIX * 1e6)
    writer.abandon()
