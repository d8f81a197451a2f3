from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet as pq

from pipeline.codec.shards import (
    GROUP_CONTENT_BYTES,
    FailureRow,
    FeatureRow,
    Matrix,
    Shard,
    write_failures,
    write_features,
)
from pipeline.errors import FormatError
from pipeline.records import MAX_ITEM_ID, MAX_PARTNER_ID
from tests.unit.codec.rows import failure, feature

IDS = [(2, 0), (1, MAX_ITEM_ID), (1, 2**63), (1, 5), (MAX_PARTNER_ID, 7), (0, 1)]


def many(count: int) -> tuple[list[FeatureRow], Matrix]:
    rows = [feature(at % 3, at * 7919 % 1009, at) for at in range(count)]
    return rows, np.arange(count * 5, dtype=np.float32).reshape(count, 5)


def read_features(path: Path, dim: int) -> list[tuple[FeatureRow, list[float]]]:
    shard = Shard(path)
    groups = [shard.features(group, dim) for group in range(len(shard.starts) - 1)]
    return [(row, vector.tolist()) for rows, matrix in groups for row, vector in zip(rows, matrix, strict=True)]


def test_features_come_back_sorted_by_unsigned_keys(tmp_path: Path) -> None:
    rows = [
        feature(partner_id, item_id, at, etag=None if at % 2 else f'"{at}"', last_modified="ü" if at % 2 else None)
        for at, (partner_id, item_id) in enumerate(IDS)
    ]
    matrix = np.array([[at, -at, 0.5] for at in range(len(rows))], np.float32)
    written = write_features(tmp_path / "shard", rows, matrix)
    data = (tmp_path / "shard").read_bytes()
    assert (written.size, written.sha256, written.rows) == (len(data), hashlib.sha256(data).hexdigest(), len(rows))
    expected = sorted(rows, key=lambda row: (row.partner_id, row.item_id, row.ordinal))
    assert read_features(tmp_path / "shard", 3) == [(row, [row.ordinal, -row.ordinal, 0.5]) for row in expected]
    keys = Shard(tmp_path / "shard").keys()
    assert keys.partner_id.tolist() == [row.partner_id for row in expected]
    assert keys.item_id.tolist() == [row.item_id for row in expected]
    assert keys.ordinal.tolist() == [row.ordinal for row in expected]
    assert not keys.retriable.any()


def test_failures_come_back_complete(tmp_path: Path) -> None:
    rows = [
        failure(partner_id, item_id, at, retriable=at % 2 == 0, content=b"image" if at % 2 == 0 else None, detail="ü")
        for at, (partner_id, item_id) in enumerate(IDS)
    ]
    written = write_failures(tmp_path / "shard", rows)
    expected = sorted(rows, key=lambda row: (row.partner_id, row.item_id, row.ordinal))
    shard = Shard(tmp_path / "shard")
    assert (written.rows, shard.failures(0)) == (len(rows), expected)
    assert shard.keys().retriable.tolist() == [row.retriable for row in expected]
    assert shard.external_ids(0) == [row.external_id for row in expected]


def test_features_can_be_read_as_failures(tmp_path: Path) -> None:
    row = feature(1, MAX_ITEM_ID, 4)
    write_features(tmp_path / "shard", [row], np.ones((1, 3), np.float32))
    assert Shard(tmp_path / "shard").as_failures(0, "id_collision", "why") == [
        FailureRow(1, MAX_ITEM_ID, 4, row.external_id, row.url, "id_collision", False, "why")
    ]


def test_row_groups_have_64_rows(tmp_path: Path) -> None:
    rows, matrix = many(200)
    write_features(tmp_path / "shard", rows, matrix)
    assert Shard(tmp_path / "shard").starts == [0, 64, 128, 192, 200]
    assert sorted(row.ordinal for row, _ in read_features(tmp_path / "shard", 5)) == list(range(200))


def test_row_groups_with_inline_images_have_fewer_rows(tmp_path: Path) -> None:
    sizes = [0, GROUP_CONTENT_BYTES // 2, GROUP_CONTENT_BYTES // 2, 1, 3 * GROUP_CONTENT_BYTES, 0]
    rows = [failure(1, at, at, content=bytes(size)) for at, size in enumerate(sizes)]
    write_failures(tmp_path / "shard", rows)
    shard = Shard(tmp_path / "shard")
    assert shard.starts == [0, 3, 4, 5, 6]
    assert [row for group in range(4) for row in shard.failures(group)] == rows


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    rows, matrix = many(150)
    one = write_features(tmp_path / "one", rows, matrix)
    other = write_features(tmp_path / "other", rows[::-1], matrix[::-1])
    assert one == other


def test_a_shard_without_rows_has_no_groups(tmp_path: Path) -> None:
    write_features(tmp_path / "features", [], np.zeros((0, 5), np.float32))
    write_failures(tmp_path / "failures", [])
    for name in ("features", "failures"):
        shard = Shard(tmp_path / name)
        assert shard.starts == [0]
        assert len(shard.keys().item_id) == 0


def test_the_columns_are_those_of_the_design(tmp_path: Path) -> None:
    rows, matrix = many(3)
    write_features(tmp_path / "features", rows, matrix)
    write_failures(tmp_path / "failures", [failure(1, 2, 3)])
    features = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "features")}
    assert features == {
        "partner_id": "int64",
        "item_id": "int64",
        "ordinal": "int64",
        "external_id": "string",
        "url": "string",
        "content_sha256": "fixed_size_binary[32]",
        "fetched_at": "timestamp[us, tz=UTC]",
        "etag": "string",
        "last_modified": "string",
        "features": "fixed_size_list<element: float not null>[5]",
    }
    failures = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "failures")}
    assert list(failures) == [*list(features)[:5], "reason", "retriable", "detail", "content"]


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    write_failures(tmp_path / "shard", [])
    with pytest.raises(FileExistsError):
        write_failures(tmp_path / "shard", [])


def test_a_damaged_shard_is_refused_by_name(tmp_path: Path) -> None:
    rows, matrix = many(200)
    write_features(tmp_path / "shard", rows, matrix)
    data = bytearray((tmp_path / "shard").read_bytes())
    (tmp_path / "cut").write_bytes(data[:-5])
    with pytest.raises(FormatError, match="damaged"):
        Shard(tmp_path / "cut")
    data[100:3000] = b"\xff" * 2900
    (tmp_path / "overwritten").write_bytes(data)
    with pytest.raises(FormatError) as caught:
        Shard(tmp_path / "overwritten").features(0, 5)
    assert "overwritten" in caught.value.detail
    with pytest.raises(FileNotFoundError):
        Shard(tmp_path / "missing")


def test_a_shard_of_another_width_is_refused(tmp_path: Path) -> None:
    rows, matrix = many(3)
    write_features(tmp_path / "shard", rows, matrix)
    with pytest.raises(FormatError, match="width"):
        Shard(tmp_path / "shard").features(0, 6)


def test_damage_has_a_column_where_a_row_has_some_and_shards_without_it_are_read_as_before(tmp_path: Path) -> None:
    good, matrix = many(3)
    marked = [replace(good[0], damage="Corrupt JPEG data: premature end of data segment"), *good[1:]]
    write_features(tmp_path / "good", good, matrix)
    write_features(tmp_path / "marked", marked, matrix)
    assert "damage" not in pq.read_schema(tmp_path / "good").names
    assert {row.damage for row in Shard(tmp_path / "good").features(0, 5)[0]} == {None}
    read, vectors = Shard(tmp_path / "marked").features(0, 5)
    assert sorted(read, key=lambda row: row.ordinal) == sorted(marked, key=lambda row: row.ordinal)
    np.testing.assert_array_equal(vectors, Shard(tmp_path / "good").features(0, 5)[1])
