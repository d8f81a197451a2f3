from __future__ import annotations

import decimal
import errno
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import orc
from pyarrow import parquet as pq

from pipeline.codec.refs.tables import Cursor
from pipeline.errors import FormatError, TemporaryError
from pipeline.records import MAX_ITEM_ID
from tests.unit.codec.ref_files import reader, take_all


def table(name: str, columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    (orc.write_table if name.endswith("orc") else pq.write_table)(pa.table(columns), buffer, **options)
    return buffer.getvalue()


URLS = [f"http://a/{at}" for at in range(4)]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([0, 5, MAX_ITEM_ID, 2**63], pa.uint64()),
        pa.array([0, 5, -1, -(2**63)], pa.int64()),
        pa.array(["0", "5", str(MAX_ITEM_ID), str(2**63)]),
        pa.array(["0", "5", str(MAX_ITEM_ID), str(2**63)], pa.large_string()),
        pa.array([b"0", b"5", str(MAX_ITEM_ID).encode(), str(2**63).encode()]),
        pa.array(["0", "5", str(MAX_ITEM_ID), str(2**63)]).dictionary_encode(),
        pa.array([decimal.Decimal(number) for number in (0, 5, MAX_ITEM_ID, 2**63)], pa.decimal128(20, 0)),
    ],
    ids=lambda array: str(array.type),
)
def test_item_ids_are_read_from_columns_of_many_types(ids: pa.Array) -> None:
    refs = take_all(table("refs.parquet", {"item_id": ids, "url": URLS}), "refs.parquet").refs
    assert [ref.item_id for ref in refs] == [0, 5, MAX_ITEM_ID, 2**63]


def test_small_signed_ids_that_are_negative_are_rejected() -> None:
    data = table("refs.parquet", {"item_id": pa.array([0, 5, -1, 7], pa.int32()), "url": URLS})
    taken = take_all(data, "refs.parquet")
    assert ([ref.item_id for ref in taken.refs], taken.samples[0].why) == ([0, 5, 7], "the item id is negative")
    assert (taken.samples[0].row, taken.samples[0].offset) == (2, None)


@pytest.mark.parametrize("name", ["refs.parquet", "refs.orc"])
def test_nulls_are_empty_cells(name: str) -> None:
    columns = {
        "item_id": pa.array([1, None, 3, 4], pa.int64()),
        "url": pa.array(["http://a/", "http://b/", None, ""]),
        "content": pa.array([None, None, b"x", None], pa.binary()),
    }
    taken = take_all(table(name, columns), name)
    assert [(ref.item_id, ref.url, ref.content) for ref in taken.refs] == [(1, "http://a/", b""), (3, "", b"x")]
    assert [rejected.why for rejected in taken.samples] == ["the id is empty", "no url and no content"]


def test_a_column_of_nulls_is_a_column_of_empty_cells() -> None:
    data = table("refs.parquet", {"item_id": pa.nulls(4), "external_id": ["a", "b", "c", "d"], "url": URLS})
    assert len(take_all(data, "refs.parquet").refs) == 4
    assert take_all(table("refs.parquet", {"url": pa.nulls(4)}), "refs.parquet").rejected == 4


@pytest.mark.parametrize("name", ["refs.parquet", "refs.orc"])
@pytest.mark.parametrize(
    ("column", "cells"),
    [("url", [1, 2, 3, 4]), ("item_id", [1.5, 2, 3, 4]), ("partner_id", [[1]] * 4), ("external_id", [1.5] * 4)],
)
def test_a_column_of_the_wrong_type_is_refused_by_name_and_type(name: str, column: str, cells: list[Any]) -> None:
    with pytest.raises(FormatError) as caught:
        reader(table(name, {"url": URLS, column: cells}), name)
    assert column in caught.value.detail
    assert "has type" in caught.value.detail


def test_text_that_is_no_utf8_costs_its_row_only() -> None:
    broken = pa.array([b"http://a/", b"http://\xff/", b"http://c/", b"http://d/"]).view(pa.string())
    taken = take_all(table("refs.parquet", {"url": broken}), "refs.parquet")
    assert [ref.url for ref in taken.refs] == ["http://a/", "http://c/", "http://d/"]
    assert [(rejected.row, rejected.why) for rejected in taken.samples] == [(1, "the url is not UTF-8")]


def test_a_damaged_row_group_is_rejected_and_the_others_stand() -> None:
    urls = [f"http://a/{at}" for at in range(40)]
    data = bytearray(table("refs.parquet", {"url": urls}, row_group_size=10, use_dictionary=False))
    start = pq.read_metadata(io.BytesIO(data)).row_group(1).column(0).data_page_offset
    data[start + 20 : start + 60] = b"\xff" * 40
    for at in (Cursor(0, 0), Cursor(5, 5)):
        taken = reader(bytes(data), "refs.parquet", at=at).take(1000, 10**9)
        assert [ref.url for ref in taken.refs] == urls[at.row : 10] + urls[20:]
        assert (taken.rejected, taken.rows, taken.cursor) == (10, 40 - at.row, Cursor(40, 40))
        (rejected,) = taken.samples
        assert rejected.row == 10
        assert "row group 1" in rejected.why
        assert "10 rows" in rejected.why


def test_a_damaged_stripe_is_rejected_and_all_behind_it() -> None:
    random = np.random.default_rng(0)
    urls = [f"http://a/{random.bytes(200).hex()}" for _ in range(4000)]
    data = bytearray(table("refs.orc", {"url": urls}, stripe_size=2**16, batch_size=100, compression="zlib"))
    file = orc.ORCFile(io.BytesIO(data))
    assert file.nstripes > 2
    first = file.read_stripe(0).num_rows
    data[len(data) // 2 : len(data) // 2 + 2000] = b"\xff" * 2000
    taken = take_all(bytes(data), "refs.orc")
    assert first <= len(taken.refs) < 4000
    assert [ref.url for ref in taken.refs] == urls[: len(taken.refs)]
    assert taken.rows == 4000
    assert "stripe" in taken.samples[0].why


@pytest.mark.parametrize("error", [TemporaryError("the store is away"), OSError(errno.EIO, "broken disk")])
def test_a_store_that_fails_is_not_taken_for_a_damaged_file(error: Exception) -> None:
    class Failing(io.BytesIO):
        broken = False

        def read(self, size: int | None = -1) -> bytes:
            if self.broken:
                raise error
            return super().read(size)

    from pipeline.codec.refs.tables import open_refs
    from pipeline.settings import Columns

    file = Failing(table("refs.parquet", {"url": [f"http://a/{at}" for at in range(5000)]}, row_group_size=1000))
    open_reader = open_refs(file, "refs.parquet", "parquet", Columns(), None, Cursor(0, 0))
    assert len(open_reader.take(10, 10**6).refs) == 10
    file.broken = True
    with pytest.raises(type(error)):
        open_reader.take(10**6, 10**9)


def test_only_the_columns_that_matter_are_read() -> None:
    columns = {"url": URLS, "nested": [{"a": [1]}] * 4, "when": pa.array([0] * 4, pa.timestamp("ns"))}
    assert len(take_all(table("refs.parquet", columns), "refs.parquet").refs) == 4
