from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.delivered.text import TextWriter, text_lines
from pipeline.codec.shards import Matrix
from pipeline.errors import FormatError
from pipeline.records import MAX_ITEM_ID, MAX_PARTNER_ID


def plainly(partner_id: int, item_ids: list[int], matrix: Matrix) -> bytes:
    """The lines, number by number: Python's round and numpy's rint both go to the even neighbour."""
    lines = []
    for item_id, row in zip(item_ids, matrix.astype(np.float64).tolist(), strict=True):
        lines.append(" ".join(map(str, [partner_id, item_id, *(round(1e6 * value) for value in row)])) + "\n")
    return "".join(lines).encode()


unit = st.floats(-1, 1, width=32)
wide = st.floats(-65536, 65536, width=32) | unit
any_size = st.floats(allow_nan=False, allow_infinity=False, width=32)
edges = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, -0.999999, 0.999999, 1e-6, -1e-6, 5e-7, 1.5e-6, 1.000001, -1.000001, 30.0]
)


@pytest.mark.parametrize("values", [unit, wide, any_size], ids=["unit", "wide", "any"])
@given(data=st.data())
@settings(deadline=None)
def test_every_value_is_written_as_its_rounded_millionths(
    values: st.SearchStrategy[float], data: st.DataObject
) -> None:
    width = data.draw(st.integers(1, 5))
    rows = data.draw(st.lists(st.lists(values | edges, min_size=width, max_size=width), max_size=5))
    matrix = np.array(rows, np.float32).reshape(-1, width)
    partner_id = data.draw(st.integers(0, MAX_PARTNER_ID))
    item_ids = data.draw(st.lists(st.integers(0, MAX_ITEM_ID), min_size=len(rows), max_size=len(rows)))
    assert text_lines(partner_id, item_ids, matrix).tobytes() == plainly(partner_id, item_ids, matrix)


def test_every_number_from_minus_a_million_to_a_million_is_written_right() -> None:
    numbers = np.arange(-1_000_000, 1_000_001)
    matrix = (numbers / 1e6).reshape(1, -1)
    assert text_lines(0, [0], matrix).tobytes().split()[2:] == [b"%d" % number for number in numbers.tolist()]  # type: ignore[arg-type]


def test_the_longest_ids_have_room() -> None:
    line = text_lines(MAX_PARTNER_ID, [MAX_ITEM_ID], np.zeros((1, 1), np.float32)).tobytes()
    assert line == b"9223372036854775807 18446744073709551615 0\n"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(FormatError):
        text_lines(1, [2], np.array([[0.5, value]], np.float32))


def test_the_file_is_gzip_without_time_or_name_and_always_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    matrix = random.random((300, 50)).astype(np.float32)
    item_ids = list(range(300))
    written = []
    for name in ("one", "other"):
        writer = TextWriter(tmp_path / name)
        writer.write(7, item_ids[:200], matrix[:200])
        writer.write(7, item_ids[200:], matrix[200:])
        written.append(writer.close())
    data = (tmp_path / "one").read_bytes()
    assert written[0] == written[1]
    assert (written[0].size, written[0].sha256, written[0].rows) == (len(data), hashlib.sha256(data).hexdigest(), 300)
    assert data[:10] == b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # no flags, so no name; a time of 0
    assert gzip.decompress(data) == plainly(7, item_ids, matrix)


def test_pandas_and_duckdb_read_it_without_our_code(tmp_path: Path) -> None:
    matrix = np.array([[0, 0.25, -0.5], [1, 0, 0.000001]], np.float32)
    writer = TextWriter(tmp_path / "cnn_features.txt.gz")
    writer.write(12, [5, MAX_ITEM_ID], matrix)
    writer.close()
    expected = [[12, 5, 0, 250_000, -500_000], [12, MAX_ITEM_ID, 1_000_000, 0, 1]]
    frame = pd.read_csv(tmp_path / "cnn_features.txt.gz", sep=" ", header=None)
    assert [[int(cell) for cell in row] for row in frame.itertuples(index=False)] == expected
    rows = duckdb.sql(f"SELECT * FROM read_csv('{tmp_path}/cnn_features.txt.gz', delim=' ', header=false)").fetchall()
    assert [[int(cell) for cell in row] for row in rows] == expected
