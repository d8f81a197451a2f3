"""What hathi train linear reads: each form, and each kind of example that it leaves out by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from pipeline.codec.refs import packed
from pipeline.errors import ConfigError, FormatError, PipelineError
from pipeline.training.descent import data, gathering, libsvm, pieces, synchronous
from pipeline.training.descent.data import Data, Source
from pipeline.training.descent.descent import Wanted, train
from pipeline.training.descent.examples import Dense, Sparse
from pipeline.training.descent.gathering import NAMED, At, LeftOut
from pipeline.training.descent.losses import Loss
from pipeline.training.descent.memory import Own
from tests.unit.training.made_sets import clouds, made
from tests.unit.training.sparse_sets import like_rcv1, write

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GOOD = "+1 1:0.5 3:1e-2 # a comment\n-1 2:-.25 7:3\n"


def read(path: Path, **more: Any) -> Data:
    with data.opened(Source(path, path.parent, **more), Own()) as found:
        return found


def rows_of(found: Data) -> set[tuple[tuple[int, float], ...]]:
    examples = found.examples
    assert isinstance(examples, Sparse)
    rows = examples.rows
    return {
        tuple(zip(rows.columns[a:b].tolist(), rows.value[a:b].tolist(), strict=True))
        for a, b in zip(rows.start[:-1].tolist(), rows.start[1:].tolist(), strict=True)
    }


BAD = {
    "spam 1:1": "its label is no whole number",
    "0.5 1:1": "its label is no whole number",
    "nan 1:1": "its label is no whole number",
    "1:2 3:4": "its label is no whole number",
    "1,x 1:1": "its label is no whole number",
    "99999999999 1:1": "its label is no whole number",
    "1": "it has a label and no coordinate",
    "1 # 2:3": "it has a label and no coordinate",
    "1 2": "it has something that is no index:value",
    "1 3:": "it has something that is no index:value",
    "1 :3": "it has something that is no index:value",
    "1 1:1:1": "it has something that is no index:value",
    "1 1:0x10": "it has something that is no index:value",
    "1 1:1,5": "it has something that is no index:value",
    "1 a:1": "an index is no whole number from 0 to",
    "1 -3:1": "an index is no whole number from 0 to",
    "1 1.5:1": "an index is no whole number from 0 to",
    "1 2147483648:1": "an index is no whole number from 0 to",
    "1 99999999999999999999999:1": "an index is no whole number from 0 to",
    "1 3:1 2:1": "its indices do not rise",
    "1 3:1 3:1": "an index stands twice",
    "1 3:nan": "a value is NaN or infinite",
    "1 3:-INF": "a value is NaN or infinite",
    "1 3:infinity": "a value is NaN or infinite",
    "1 3:1e39": "a value is NaN or infinite",
    "1 10:1": "an index is beyond the dimension",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_line_that_cannot_be_used_is_named_with_its_number_and_the_rest_counts(bad: str, tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text(f"{GOOD}\n# nothing\n{bad}\n{GOOD}")
    found = read(path, dim=10)
    assert found.left_out.count == 1
    (said,) = found.left_out.sentences
    assert said.startswith(f"{path}, line 5: {BAD[bad]}")
    assert said.endswith("it is left out")
    assert found.examples.count == 4
    assert rows_of(found) == {((1, 0.5), (3, float(np.float32(0.01)))), ((2, -0.25), (7, 3.0))}
    path.write_text(bad)
    with pytest.raises(ConfigError, match="holds no example that counts") as told:
        read(path, dim=10)
    assert f"line 1: {BAD[bad]}" in told.value.detail


def test_many_bad_lines_are_counted_by_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text(GOOD + "1 3:nan\n" * 400 + "x 1:1\n")
    said = read(path).left_out.sentences
    assert len(said) == NAMED + 2
    assert said[-1].startswith(f"{400 - NAMED} more examples left out: a value is NaN")
    assert any("line 403: its label" in one for one in said)


def test_the_last_line_of_a_file_that_was_cut_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text(f"{GOOD}1 4:1 5:0.1")
    found = read(path)
    assert found.examples.count == 3
    assert found.left_out.sentences == [
        f"{path}, line 3: the file ends without an end of line: this line may be cut; it counts"
    ]
    path.write_text(f"{GOOD}1 4:1 5:")
    found = read(path)
    assert found.examples.count == 2
    assert [one.partition(": ")[0] for one in found.left_out.sentences] == [f"{path}, line 3"]


PACK: dict[str, Any] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": partial(zstd.compress, options={zstd.CompressionParameter.checksum_flag: 1}),
}


@pytest.mark.parametrize("packed", PACK)
def test_packed_files_are_read_a_cut_one_to_its_cut_and_a_damaged_one_is_refused(packed: str, tmp_path: Path) -> None:
    """A byte that changed changes what comes behind it, until a checksum says so: no line before it is sure."""
    path = tmp_path / "a.svm"
    text = write(path, like_rcv1(600, 200, 10)).read_bytes()
    good, whole = rows_of(read(path)), PACK[packed](text)
    path.write_bytes(whole + PACK[packed](text))
    assert read(path).examples.count == 1200, "one behind the other"
    path.write_bytes(whole)
    assert rows_of(read(path)) == good
    path.write_bytes(whole[:-3])
    found = read(path)
    assert found.examples.count <= 600
    assert f"the {packed} data is cut off here; it is left out" in found.left_out.sentences[-1]
    assert ", line " in found.left_out.sentences[-1]
    assert rows_of(found) <= good
    path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 0x10]) + whole[len(whole) // 2 + 1 :])
    with pytest.raises(FormatError, match=f"{path} is damaged") as told:
        read(path)
    assert f"the {packed} data is damaged at line " in told.value.detail


def test_a_mark_of_utf_8_before_the_first_line_is_no_part_of_its_label(tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    for content in (GOOD.encode("utf-8-sig"), gzip.compress(GOOD.encode("utf-8-sig"))):
        path.write_bytes(content)
        found = read(path)
        assert found.left_out.sentences == []
        assert found.examples.count == 2


def test_what_is_refused_is_refused_with_what_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text("1 1:1\n1 2:1\n-1 x\n")
    for act in (lambda: read(path), lambda: synchronous.look(_here(path), pieces.plan(str(path), 1, None, 0), "a", 0)):
        with pytest.raises(ConfigError, match="has one class only") as told:
            act()
        assert "all examples have the label 1" in told.value.detail
        assert f"{path}, line 3: it has something that is no index:value; it is left out" in told.value.detail
    matrix = tmp_path / "a.npz"
    np.savez(matrix, features=[[1.0], [np.nan]], labels=[0, 1])
    with pytest.raises(ConfigError, match="has one class only") as told:
        read(matrix)
    assert "row 2: a value is NaN" in told.value.detail


def _here(path: Path) -> synchronous.Here:
    return synchronous.Here(pieces.plan(str(path), 1, None, 0), path.parent / "shards")


@pytest.mark.parametrize("piece", [3, 7, 64])
def test_a_compressed_file_is_read_to_its_end_wherever_its_pieces_are_cut(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the header of a second member, cut in two, there is no text yet: that is no end."""
    examples = like_rcv1(60, 100, 8)
    text = write(tmp_path / "a.svm", examples).read_bytes()
    path = tmp_path / "a.svm.gz"
    path.write_bytes(b"".join(gzip.compress(one + b"\n") + bytes(90) for one in text.splitlines()))
    monkeypatch.setattr(packed, "PIECE", piece)
    found = read(path)
    assert found.left_out.sentences == []
    assert rows_of(found) == rows_of(read(tmp_path / "a.svm"))
    assert found.examples.count == 60


def test_what_only_begins_as_a_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.svm.gz"
    for content in (b"\x1f\x8b", b"\x1f\x8bjunk", b"\x1f\x8b" + bytes(range(64)), gzip.compress(b"1 1:1\n")[:9]):
        path.write_bytes(content)
        with pytest.raises(PipelineError, match=r"holds no example that counts|is damaged") as told:
            read(path)
        assert "the gzip data is" in told.value.detail


def test_lines_longer_than_a_chunk_and_chunks_of_many_lines_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = like_rcv1(300, 400, 20)
    path = write(tmp_path / "a.svm", examples)
    whole = rows_of(read(path))
    assert len(whole) == 300
    monkeypatch.setattr(libsvm, "CHUNK", 50)
    assert rows_of(read(path)) == whole
    path.write_text(path.read_text() + "x\n")
    assert "line 301: " in read(path).left_out.sentences[0]


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(["r", ".9g", "e", ".20f"]))
def test_values_are_those_that_numpy_reads(value: float, form: str) -> None:
    text = repr(value) if form == "r" else format(value, form)
    found = libsvm.parse(np.frombuffer(f"1 1:{text}\n".encode(), np.uint8), -1)
    assert len(found.bad) == 0
    assert found.value[0] == pytest.approx(float(np.float32(float(text))), rel=1.2e-7, abs=1e-44)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_lines_that_count_or_that_are_named(text: bytes) -> None:
    found = libsvm.parse(np.frombuffer(text, np.uint8), 50)
    lines = text.split(b"\n")[: found.lines]
    used = [one for one in lines if one.partition(b"#")[0].strip(b" \t\r")]
    assert len(found.lengths) + len(found.bad) == len(used)
    assert found.lengths.sum() == len(found.columns) == len(found.value)
    assert found.label_lengths.sum() == len(found.label)
    assert np.isfinite(found.value).all()
    assert (found.columns < 50).all()


def test_several_labels_a_line_are_so_many_classes_and_none_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text("".join(f"{label} 1:{at % 7} 2:{at % 3} 3:1\n" for at, label in
                            enumerate(["1,4", "4", "", "9,1", "1,4,9"] * 20)))  # fmt: skip
    found = read(path)
    assert found.left_out.count == 0
    assert found.examples.labels.classes == (1, 4, 9)
    assert found.examples.labels.many
    trained = train(found.examples, Wanted(Loss.LOGISTIC, 1e-3))
    assert trained.weights.shape == (3, 4)
    assert 0.5 < trained.right <= 1.0


def test_rows_that_are_sorted_by_their_label_are_learned_as_well_as_mixed_ones(tmp_path: Path) -> None:
    examples = like_rcv1(3000, 400, 20)
    path = write(tmp_path / "a.svm", examples)
    mixed = train(read(path).examples, Wanted(Loss.HINGE, 1e-3)).objective
    path.write_text("".join(sorted(path.read_text().splitlines(keepends=True))))
    assert train(read(path).examples, Wanted(Loss.HINGE, 1e-3)).objective <= 1.003 * mixed


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_with_lists_is_read_and_each_bad_row_is_named(tmp_path: Path) -> None:
    good = ([1, 4], [0.5, 2.0])
    rows = [
        (1, *good), (0, *good), (None, *good), (0.5, *good), (1, None, None), (1, [], []), (1, [1], [1.0, 2.0]),
        (1, [1, 1], [1.0, 2.0]), (1, [4, 1], [1.0, 2.0]), (1, [-1, 1], [1.0, 2.0]), (1, [1, 2**31], [1.0, 2.0]),
        (1, [1, 2], [1.0, float("nan")]), (1, [1, 2], [1.0, None]), (1, [1, None], [1.0, 2.0]),
        (1, [1, 2], [1.0, 1e39]),
        (1, [1, 99], [1.0, 2.0]), (1, *good),
    ]  # fmt: skip
    label, indices, values = (list(column) for column in zip(*rows, strict=True))
    path = table(tmp_path / "a.parquet", label=pa.array(label, pa.float64()),
                 indices=pa.array(indices, pa.list_(pa.int64())),
                 values=pa.array(values, pa.list_(pa.float64())))  # fmt: skip
    found = read(path, dim=50)
    assert found.examples.count == 3
    assert rows_of(found) == {((1, 0.5), (4, 2.0))}
    said = found.left_out.sentences
    assert {int(one.partition(", row ")[2].partition(":")[0]) for one in said} == set(range(3, 17))
    for row, why in ((3, "label"), (6, "no coordinate"), (7, "index:value"), (8, "twice"), (9, "rise"), (11, "whole"),
                     (12, "NaN"), (16, "beyond")):  # fmt: skip
        assert any(f", row {row}: " in one and why in one for one in said), (row, said)


def test_lists_of_labels_in_parquet_are_classes_and_a_label_that_is_missing_is_named(tmp_path: Path) -> None:
    labels: list[Any] = [[1, 4], [4], [], None, [1, None], [2**40], [9]]
    path = table(tmp_path / "a.parquet", label=pa.array(labels, pa.list_(pa.int64())),
                 indices=[[at] for at in range(7)], values=[[1.0]] * 7)  # fmt: skip
    found = read(path)
    assert [one.partition(":")[0].rpartition(" ")[2] for one in found.left_out.sentences] == ["4", "5", "6"]
    assert found.examples.labels.classes == (1, 4, 9)
    rows = found.examples.rows  # type: ignore[attr-defined]
    named = {
        int(rows.columns[at]): [found.examples.labels.classes[one] for one in rows.label[first:last].tolist()]
        for at, (first, last) in enumerate(zip(rows.label_start[:-1], rows.label_start[1:], strict=True))
    }
    assert named == {0: [1, 4], 1: [4], 2: [], 6: [9]}


def test_parquet_of_other_columns_is_refused_by_what_it_has(tmp_path: Path) -> None:
    for columns, says in (
        ({"x": [1]}, "it has the columns x"),
        ({"label": ["spam"], "indices": [[1]], "values": [[1.0]]}, "the column label is string"),
        ({"label": [1], "indices": [1], "values": [[1.0]]}, "the column indices is int64, not lists"),
        ({"label": [1], "indices": [[1.5]], "values": [[1.0]]}, "not whole numbers"),
        ({"label": [1], "features": [["a"]]}, "the column features holds"),
    ):
        path = table(tmp_path / "a.parquet", **columns)
        with pytest.raises(FormatError) as told:
            read(path)
        assert says in str(told.value)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(FormatError, match="cannot be read"):
        read(tmp_path / "a.parquet")


def test_dense_rows_that_cannot_be_used_leave_no_trace_in_the_others(tmp_path: Path) -> None:
    """The place of each row in the file is drawn before it is known how many there will be."""
    values, labels = clouds(400, 6, 3)
    listed: list[Any] = [list(map(float, one)) for one in values]
    marks: list[Any] = list(labels)
    listed[7], listed[31], listed[200], marks[100] = [1.0] * 5, None, [float("inf")] * 6, None
    path = table(
        tmp_path / "a.parquet", label=pa.array(marks, pa.int64()), features=pa.array(listed, pa.list_(pa.float32()))
    )
    with data.opened(Source(path, tmp_path), Own()) as found:
        examples = found.examples
        assert isinstance(examples, Dense)
        rows, names = [], []
        for block in examples.blocks(np.arange(7)):
            rows += [tuple(one) for one in block.rows.tolist()]
            names += block.label[block.label_start[block.first] :][: len(block.rows)].tolist()
        good = [at for at in range(400) if at not in (7, 31, 100, 200)]
        assert sorted(zip(rows, names, strict=True)) == sorted((tuple(listed[at]), labels[at]) for at in good)
        assert rows != [tuple(listed[at]) for at in good], "in random order"
        assert {one.partition(":")[0].rpartition(" ")[2] for one in found.left_out.sentences} == {
            "8",
            "32",
            "101",
            "201",
        }


def test_numpy_files_are_read_and_what_they_hold_is_checked(tmp_path: Path) -> None:
    values, labels = clouds(90, 5, 2)
    values[4, 2] = np.nan
    np.savez(tmp_path / "a.npz", X=values, y=np.array(labels))
    np.savez_compressed(tmp_path / "packed.npz", features=values, labels=np.array(labels))
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "y.npy", np.array(labels))
    for name, more in (("a.npz", {}), ("packed.npz", {}), ("a.npy", {"labels": tmp_path / "y.npy"})):
        found = read(tmp_path / name, **more)
        assert (found.examples.count, found.examples.dim) == (89, 5)
        assert found.left_out.sentences[0].startswith(f"{tmp_path / name}, row 5: a value is NaN")
    with pytest.raises(ConfigError, match="holds no labels") as told:
        read(tmp_path / "a.npy")
    assert "--labels" in told.value.hint
    for arrays, says in (
        ({"X": values}, "no array 'labels'"), ({"X": values[0], "y": labels}, "shape (5,)"),
        ({"X": values, "y": labels[:3]}, "shape (3,)"), ({"X": values.astype("U3"), "y": labels}, "<U3"),
        ({"X": values, "y": np.zeros(90)}, "all examples have the label 0"),
        ({"X": np.array([object()]), "y": [1]}, "cannot be read"),
    ):  # fmt: skip
        np.savez(tmp_path / "b.npz", **arrays)
        with pytest.raises(PipelineError) as bad:
            read(tmp_path / "b.npz")
        assert says in str(bad.value)


def test_a_header_of_numpy_that_promises_more_than_there_is_asks_for_no_memory(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 4)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("X.npy", head.getvalue() + bytes(64))
        file.writestr("y.npy", head.getvalue() + bytes(64))
    (tmp_path / "a.npy").write_bytes(head.getvalue() + bytes(64))
    for name, labels in (("a.npz", None), ("a.npy", tmp_path / "a.npy")):
        with pytest.raises(FormatError, match="cannot be read"):
            read(tmp_path / name, labels=labels)


def test_a_folder_of_files_is_one_set_and_mixed_kinds_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("b.svm", "a.svm"):
        (folder / name).write_text(GOOD)
    (folder / "_SUCCESS").write_text("")
    assert read(folder).examples.count == 4
    np.save(folder / "c.npy", np.zeros(3))
    with pytest.raises(ConfigError, match="several kinds"):
        read(folder)
    with pytest.raises(ConfigError, match="is not there"):
        read(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no file"):
        read(tmp_path / "empty")


def test_the_features_of_a_dataset_are_read_from_its_train_side(tmp_path: Path) -> None:
    values, labels = clouds(60, 5, 3)
    folder = made(tmp_path / "set", {"train": (values[:40], labels[:40]), "test": (values[40:], labels[40:])})
    found = read(folder)
    assert found.manifest is not None
    assert (found.examples.count, found.examples.dim, found.examples.labels.classes) == (40, 5, (0, 1, 2))


def test_examples_that_do_not_fit_in_memory_are_refused_with_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(2000, 300, 20))
    monkeypatch.setattr(gathering, "free", lambda: 100_000)
    with pytest.raises(ConfigError, match="does not fit in memory") as told:
        read(path)
    assert "100 kB of memory were free" in told.value.detail


def test_weights_that_do_not_fit_in_memory_are_refused_with_the_figure(tmp_path: Path, monkeypatch: Any) -> None:
    from pipeline.training.descent import descent

    path = tmp_path / "a.svm"
    path.write_text(GOOD + "1 2000000000:1\n")
    monkeypatch.setattr(descent, "free", lambda: 10**9)
    with pytest.raises(ConfigError, match=r"the weights do not fit in memory: 96\.0 GB") as told:
        train(read(path).examples, Wanted(Loss.HINGE, 1e-3, rate=1.0))
    assert "--dim" in told.value.hint


def test_labels_that_are_measurements_are_no_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.svm"
    path.write_text("".join(f"{at} 1:1\n" for at in range(3000)))
    with pytest.raises(ConfigError, match="are no classes") as told:
        read(path)
    assert "3,000 different labels" in told.value.detail


def test_what_is_left_out_says_so_once_for_each_reason() -> None:
    left_out = LeftOut()
    for at in range(NAMED + 1):
        left_out.put(At("a.svm", "row", at), "it is red")
    assert left_out.sentences[-1] == "1 more example left out: it is red"
