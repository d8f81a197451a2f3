from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.analysis.stats.collecting import collect
from pipeline.analysis.stats.finding import files_of
from pipeline.codec.delivered.blocks import blocks
from pipeline.codec.delivered.forms import TEXT_FORMS, TextFiles
from pipeline.codec.delivered.libsvm import libsvm_lines, read_libsvm_lines
from pipeline.errors import FormatError
from pipeline.operations.why.delivered import rows_of
from pipeline.records import MAX_ITEM_ID
from pipeline.stores.local import LocalStore
from tests.unit.deltas import deliver, name_of

VALUES = st.floats(allow_nan=False, allow_infinity=False, width=32)


def test_a_line_is_the_item_and_its_values_that_are_not_zero_from_index_1() -> None:
    matrix = np.array([[0, 0.5, -0.0, 1 / 3], [0, 0, 0, 0], [1e-8, 0, 0, 3e38]], np.float32)
    lines = libsvm_lines(7, [5, MAX_ITEM_ID, 0], matrix).tobytes()
    assert lines == b"5 2:0.5 4:0.33333334\n18446744073709551615\n0 1:1e-8 4:3e+38\n"


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.just(0.0) | VALUES))
@settings(deadline=None)
def test_the_same_numbers_are_read_back(matrix: np.ndarray) -> None:
    items = list(range(len(matrix)))
    lines = libsvm_lines(7, items, matrix).tobytes().splitlines(keepends=True)
    _, found, read = read_libsvm_lines(lines, matrix.shape[1])
    assert found.tolist() == items
    np.testing.assert_array_equal(read, matrix)


def test_what_is_not_finite_is_not_written() -> None:
    with pytest.raises(FormatError, match="cannot be written"):
        libsvm_lines(7, [1], np.array([[1, np.inf]], np.float32))


@pytest.mark.parametrize(
    "line", [b"", b"x 1:1", b"1 0:1", b"1 4:1", b"1 2:1 1:1", b"1 1:1:1", b"1 1.5:1", b"1 1:x", b"1 1"]
)
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.libsvm").write_bytes(b"1 1:1\n" + line + b"\n")
    with (tmp_path / "x.libsvm").open("rb") as stream, pytest.raises(FormatError, match="damaged") as error:
        list(blocks("x.libsvm", stream, 3))
    assert "x.libsvm" in error.value.detail


def test_beside_the_original_text_both_hold_every_row_and_one_is_read(tmp_path: Path) -> None:
    files = TextFiles(tmp_path, ["text", "libsvm"])
    files.write(7, [1, 2], np.eye(2, dtype=np.float32))
    assert [(path.name, written.rows) for path, written in files.close()] == [(form.file, 2) for form in TEXT_FORMS]
    assert gzip.decompress((tmp_path / "cnn_features.libsvm.gz").read_bytes()) == b"1 1:1\n2 2:1\n"
    lake = LocalStore(tmp_path)
    assert collect(lake, files_of(lake, "")).rows == 2


def test_stats_and_why_read_it_where_there_is_nothing_else(tmp_path: Path) -> None:
    deliver(tmp_path, name_of(1), {1: np.array([0, 0.5, 0]), 9: np.array([0, 0.25, 0])}, text="libsvm")
    lake = LocalStore(tmp_path)
    found = collect(lake, files_of(lake, "", 7), 7)
    assert (found.rows, found.dim, found.always_zero) == (2, 3, [0, 2])
    folder = f"features/{name_of(1)}/7"
    names = [one.name for one in (tmp_path / folder).iterdir()]
    (outcome,) = rows_of(names, lambda name: lake.open(f"{folder}/{name}"), [9])
    assert (outcome.kind, outcome.item_id) == ("feature", 9)


def test_without_a_manifest_it_is_refused_because_nobody_knows_its_length(tmp_path: Path) -> None:
    files = TextFiles(tmp_path, ["libsvm"])
    files.write(7, [1], np.ones((1, 2), np.float32))
    files.close()
    lake = LocalStore(tmp_path)
    with pytest.raises(FormatError) as error:
        collect(lake, files_of(lake, ""))
    assert "no _manifest.json lies beside the file" in error.value.detail
