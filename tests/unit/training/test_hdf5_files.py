"""The HDF5Data layer: rows of files that batches cross, the C library's shuffles, and what is wrong named."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import FormatError, SolverError
from pipeline.training.data.checking import check
from pipeline.training.data.make import make
from pipeline.training.data.source import Labels, Source
from pipeline.training.draws.draws import CaffesDraws, Draws, OurDraws
from tests.unit.training.databases import demand_readers, layer

demand_readers()
import h5py  # noqa: E402

f32 = np.float32


def files_of(tmp_path: Path, lengths: tuple[int, ...] = (7, 4, 9)) -> list[np.ndarray]:
    """`data` of each file: (rows, 2, 3), float64; `label`: its row of the whole, int64."""
    made, first = [], 0
    for number, rows in enumerate(lengths):
        values = np.random.default_rng(number).normal(size=(rows, 2, 3))
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["data"], file["label"] = values, np.arange(first, first + rows)
        made.append(values.astype(f32))
        first += rows
    (tmp_path / "list.txt").write_text("\n".join(f"{number}.h5" for number in range(len(lengths))))
    return made


def source_of(tmp_path: Path, draws: Draws | None = None, batch: int = 6, **more: Any) -> Source:
    fields = {"source": "list.txt", "batch_size": batch, **more}
    return make(layer("HDF5Data", hdf5_data_param=fields), True, draws or CaffesDraws(1), tmp_path)


def test_batches_cross_files_and_begin_again(tmp_path: Path) -> None:
    values = np.concatenate(files_of(tmp_path))
    source = source_of(tmp_path)
    assert (source.shapes, source.count) == ({"data": (6, 2, 3), "label": (6,)}, 20)
    for number in (7, 0, 1, 3, 2):
        rows = [at % 20 for at in range(number * 6, number * 6 + 6)]
        batch = source.batch(number)
        assert np.array_equal(batch["data"], values[rows])
        assert batch["label"].tolist() == rows
    assert source.keys(1)[:2] == [f"{tmp_path}/0.h5[6]", f"{tmp_path}/1.h5[0]"]
    source.close()


class Glibc:
    """rand() of the C library after no srand(): an additive feedback over 31 numbers."""

    def __init__(self) -> None:
        self.state = [1]
        for _ in range(30):
            self.state.append(16807 * self.state[-1] % 2147483647)
        self.state += self.state[:3]
        for _ in range(310):
            self.rand()

    def rand(self) -> int:
        self.state.append((self.state[-3] + self.state[-31]) % 2**32)
        return self.state[-1] >> 1

    def shuffle(self, values: list[int]) -> None:
        for at in range(1, len(values)):
            other = self.rand() % (at + 1)
            values[at], values[other] = values[other], values[at]


def naive_rows(lengths: tuple[int, ...], count: int) -> list[tuple[int, int]]:
    """HDF5DataLayer's LayerSetUp, Next and LoadHDF5FileData with shuffle, row by row."""
    glibc, files, at, row, found = Glibc(), list(range(len(lengths))), 0, 0, []
    glibc.shuffle(files)
    rows = list(range(lengths[files[at]]))
    glibc.shuffle(rows)
    while len(found) < count:
        found.append((files[at], rows[row]))
        row += 1
        if row == len(rows):
            if len(lengths) > 1:
                at += 1
                if at == len(files):
                    at = 0
                    glibc.shuffle(files)
                rows = list(range(lengths[files[at]]))
                glibc.shuffle(rows)
            row = 0
            glibc.shuffle(rows)
    return found


@pytest.mark.parametrize("lengths", [(7, 4, 9), (11,), (1, 1), (3, 8)])
def test_shuffled_rows_are_those_of_caffe(lengths: tuple[int, ...], tmp_path: Path) -> None:
    files = files_of(tmp_path, lengths)
    expected = naive_rows(lengths, 60 * 6)
    source = source_of(tmp_path, shuffle=True)
    order = [*range(60), 3, 0, 59, 30, 7]
    for number in order:
        picked = expected[number * 6 : number * 6 + 6]
        assert np.array_equal(source.batch(number)["data"], np.array([files[file][row] for file, row in picked]))
        assert source.keys(number) == [f"{tmp_path}/{file}.h5[{row}]" for file, row in picked]


@pytest.mark.parametrize("draws", [CaffesDraws, OurDraws])
def test_shuffled_batches_are_the_same_on_any_number_of_threads(draws: Any, tmp_path: Path) -> None:
    files_of(tmp_path)
    alone = source_of(tmp_path, draws(3), shuffle=True)
    expected = [alone.batch(number)["label"].tolist() for number in range(50)]
    together = source_of(tmp_path, draws(3), shuffle=True)
    order = np.random.default_rng(1).permutation(50).tolist()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: together.batch(number)["label"].tolist(), order))
    assert found == [expected[number] for number in order]
    rows = sorted(row for batch in expected[:10] for row in batch)
    assert rows == sorted([*range(20)] * 3), "a turn leaves rows out or shows them twice"
    assert len({tuple(batch) for batch in expected}) > 10


def replaced(tmp_path: Path, **datasets: Any) -> None:
    with h5py.File(tmp_path / "1.h5", "w") as file:
        for name, values in datasets.items():
            file[name] = values


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: replaced(path, data=np.zeros((4, 2, 3))), "1.h5 has no dataset 'label' . it holds data"),
        (lambda path: replaced(path, data=np.zeros((4, 2, 3)), label=np.zeros(5)), "lengths.*data 4, label 5"),
        (lambda path: replaced(path, data=np.zeros((0, 2, 3)), label=np.zeros(0)), "1.h5 holds no rows"),
        (lambda path: replaced(path, data=np.zeros((4, 2, 4)), label=np.zeros(4)), "another shape"),
        (lambda path: replaced(path, data=np.zeros((4, 2, 3)), label=np.array([b"cat"] * 4)), "no rows of numbers"),
        (lambda path: replaced(path, data=np.float32(1), label=np.zeros(4)), "no rows of numbers"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_named(damage: Any, says: str, tmp_path: Path) -> None:
    files_of(tmp_path)
    damage(tmp_path)
    with pytest.raises((FormatError, SolverError), match=says):
        source_of(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message", "detail"),
    [
        (lambda path: (path / "1.h5").write_bytes(b"2.h5\n3.h5\n"), "1.h5 cannot be read as HDF5",
         "it is a text, which begins with '2.h5'"),
        (lambda path: (path / "1.h5").write_bytes(bytes(range(99))), "1.h5 cannot be read as HDF5",
         "its first bytes are not those of HDF5"),
        (lambda path: (path / "1.h5").write_bytes(b"\xff\xd8\xff\xe0 a picture"), "1.h5 cannot be read as HDF5",
         "its first bytes are not those of HDF5"),
        (lambda path: (path / "1.h5").write_bytes(b""), "1.h5 cannot be read as HDF5", "it is empty"),
        (lambda path: (path / "1.h5").unlink(), "1.h5 cannot be read as HDF5", "No such file or directory"),
        (lambda path: ((path / "1.h5").unlink(), (path / "1.h5").mkdir()), "1.h5 cannot be read as HDF5",
         "it is a folder"),
        (lambda path: os.truncate(path / "1.h5", 900), "1.h5 cannot be read as HDF5", "it is cut or damaged"),
        (lambda path: (path / "list.txt").write_text(".\n"), "cannot be read as HDF5", "it is a folder"),
        (lambda path: (path / "list.txt").write_text("list.txt\n"), "list.txt cannot be read as HDF5",
         "it is a text, which begins with 'list.txt'"),
    ],
)  # fmt: skip
def test_a_listed_path_that_is_no_hdf5_file_is_told_in_words(
    damage: Any, message: str, detail: str, tmp_path: Path
) -> None:
    files_of(tmp_path)
    damage(tmp_path)
    with pytest.raises(FormatError) as raised:
        source_of(tmp_path)
    assert message in raised.value.message
    assert raised.value.detail.startswith(detail)
    wanted = "is to list files of HDF5 that are whole: no folders, no other lists"
    assert raised.value.hint == f"{tmp_path / 'list.txt'} {wanted}"


@pytest.mark.parametrize(
    ("source", "says"),
    [("1.h5", "1.h5 lists no HDF5 file . it is an HDF5 file itself"), (".", "lists no HDF5 file . it is a folder"),
     ("empty.txt", "lists no HDF5 file . it is empty"), ("bytes", "lists no HDF5 file . its bytes are no text"),
     ("none.txt", "cannot be read . No such file")],
)  # fmt: skip
def test_a_source_that_is_no_list_is_told_in_words(source: str, says: str, tmp_path: Path) -> None:
    files_of(tmp_path)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "bytes").write_bytes(b"0.h5 \0\1\2")
    with pytest.raises(
        SolverError, match=rf"layer 'data': hdf5_data_param.source: .*{says}.*the path of an HDF5 file a"
    ):
        source_of(tmp_path, source=source)


@pytest.mark.parametrize(
    ("given", "says"),
    [({"hdf5_data_param": {"source": "list.txt"}}, "batch_size is 0"),
     ({"hdf5_data_param": {"source": "list.txt", "batch_size": 1}, "transform_param": {"scale": 2}},
      "transforms nothing")],
)  # fmt: skip
def test_what_caffe_refuses_is_refused(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    files_of(tmp_path)
    with pytest.raises(SolverError, match=says):
        make(layer("HDF5Data", **given), True, CaffesDraws(1), tmp_path)


def test_labels_that_the_net_does_not_take_are_named_by_file_and_row(tmp_path: Path) -> None:
    files_of(tmp_path)
    replaced(tmp_path, data=np.full((4, 2, 3), np.nan), label=np.array([0, 1.5, 2, 3]))
    source = source_of(tmp_path)
    with pytest.raises(FormatError, match=r"8 of 20 examples.*1.h5\[0\]: its 'data' holds numbers that are NaN"):
        check([source], {"label": Labels(16)})
    found = [one for one in source.examine({"label": Labels(16)}, range(8, 9)) if "label" in one.says]
    assert [one.says for one in found] == ["its label is 1.5; the net has 16 classes, 0 to 15"]
