"""The sample of a training: no digit on both sides, the same whatever the table's order, whole or not at all."""

from __future__ import annotations

import gzip
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main as command_line
from pipeline.errors import FormatError, SolverError
from pipeline.nets.caffe import prototxt
from pipeline.training.dataset import digits, examples
from pipeline.training.dataset.digits import Digits
from tests.unit.training.databases import demand_readers

demand_readers()

EACH = 12


def drawn(seed: int = 1) -> Digits:
    """Some of each digit, and each of the first thirty twice."""
    pictures = np.random.default_rng(seed).integers(0, 256, (10 * EACH, 28, 28), np.uint8)
    labels = np.arange(10 * EACH) % 10
    return Digits(np.concatenate([pictures, pictures[:30]]), np.concatenate([labels, labels[:30]]))


def written(path: Path, of: Digits) -> Path:
    rows = np.column_stack([of.pictures.reshape(len(of), -1), of.labels])
    path.write_bytes(gzip.compress("\n".join(",".join(map(str, row)) for row in rows.tolist()).encode()))
    return path


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the sample is made of a small table."""
    path = written(tmp_path / "digits.csv.gz", drawn())
    monkeypatch.setattr(digits, "table", lambda: path)
    monkeypatch.setattr(digits, "HELD_OUT", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seen(of: Digits) -> set[bytes]:
    return {picture.tobytes() for picture in of.pictures}


def test_equal_pictures_stand_on_one_side_once() -> None:
    whole = drawn()
    train, test = digits.split(whole, 4)
    assert seen(train) & seen(test) == set()
    assert seen(train) | seen(test) == seen(whole)
    assert (len(train), len(test)) == (10 * EACH - 40, 40)
    assert np.bincount(test.labels).tolist() == [4] * 10


def test_the_order_of_the_table_changes_nothing_and_is_not_that_of_the_examples() -> None:
    whole = drawn()
    shuffled = whole.of(np.random.default_rng(2).permutation(len(whole)).tolist())
    for one, other in zip(digits.split(whole, 4), digits.split(shuffled, 4), strict=True):
        assert (one.pictures == other.pictures).all()
        assert (one.labels == other.labels).all()
    train, _ = digits.split(Digits(whole.pictures, np.sort(whole.labels)), 4)
    assert (np.diff(train.labels) < 0).any(), "a batch holds all kinds of digits"


def test_the_sample_holds_what_its_texts_name(small: Path) -> None:
    assert command_line.main(["sample", "digits"]) == 0
    folder = small / "digits"
    assert sorted(path.name for path in folder.iterdir()) == [
        "deploy.prototxt", "held_out.parquet", "pictures", "solver.prototxt", "test_lmdb", "train_lmdb",
        "train_test.prototxt",
    ]  # fmt: skip
    for layer in prototxt.read(folder / "train_test.prototxt").layer[:2]:
        assert (folder / layer.data_param.source / "data.mdb").is_file()
    train, test = digits.split(drawn(), 4)
    for name, side, margin in (("train_lmdb", train, 2), ("test_lmdb", test, 0)):
        found = list(examples.read(folder / name))
        assert [one.datum.label for one in found] == side.labels.tolist()
        for one, picture in zip(found, side.pictures, strict=True):
            assert (one.image() == np.pad(picture, margin)).all()
    listed = pq.read_table(folder / "held_out.parquet")
    assert listed["digit"].to_pylist() == test.labels.tolist()
    for name, picture in zip(listed["external_id"].to_pylist(), test.pictures, strict=True):
        assert (cv2.imread(str(folder / "pictures" / f"{name}.png"), cv2.IMREAD_GRAYSCALE) == picture).all()


def test_a_sample_that_is_there_stays_and_another_folder_is_refused(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["sample", "digits", "my digits"]) == 0
    (small / "my digits/solver.prototxt").write_text("my own")
    assert command_line.main(["sample", "digits", "my digits"]) == 0
    assert (small / "my digits/solver.prototxt").read_text() == "my own"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "my digits: 80 digits to learn from, and 40 others for the test"
    assert said[2] == "my digits: the sample is there already, and stays as it is"
    assert said[1] == said[3] == "next: cd 'my digits' && hathi train solver.prototxt"
    (small / "mine").mkdir()
    for words in (["sample", "digits", "mine"], ["sample", "digits", "a", "b"], ["sample", "a", "b"]):
        assert command_line.main(words) == 2
    assert list((small / "mine").iterdir()) == []


def test_a_failure_leaves_no_half_sample(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*about: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(digits, "_show", full)
    with pytest.raises(OSError, match="No space"):
        digits.make(small / "digits")
    assert sorted(path.name for path in small.iterdir()) == ["digits.csv.gz"]


@pytest.mark.parametrize("row", ["1,2,3", ",".join(["0"] * 784 + ["10"]), ",".join(["256"] * 784 + ["1"]),
                                 ",".join(["0.5"] * 784 + ["1"]), ",".join(["x"] * 785), ""])  # fmt: skip
def test_another_table_is_refused(row: str, tmp_path: Path) -> None:
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(gzip.compress(f"{row}\n".encode()))
    with pytest.raises(FormatError, match="no table of digits"):
        digits.read(path)
    path.write_bytes(b"\x1f\x8b torn")
    with pytest.raises(FormatError, match="no table of digits"):
        digits.read(path)


def test_a_missing_package_names_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_PACKAGE", "no_such_package")
    with pytest.raises(SolverError) as refused:
        digits.table()
    assert refused.value.hint == "scripts/training.sh"
    assert "no_such_package is not installed" in refused.value.detail
    monkeypatch.setattr(digits, "_PACKAGE", "hathi")
    with pytest.raises(SolverError, match="has no data"):
        digits.table()
