"""A fingerprint that was read once is known, until a file of it is another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.settings import FeatureSet
from pipeline.stages.known_fingerprints import FOLDER, MOST, fingerprint_of

LATER = 3600.0


class Reader:
    """Reads files, and counts how often."""

    def __init__(self, folder: Path) -> None:
        self.state, self.weights, self.reads = folder / "state", folder / "w.caffemodel", 0
        self.net = folder / "n.prototxt"
        self.net.write_text("net")
        self.weights.write_text("one")

    def __call__(self, now: float | None = None, **changes: object) -> str:
        one = FeatureSet.model_validate(
            {"net": str(self.net), "weights": str(self.weights), "blob": "b", "root": "r", **changes}
        )
        asked = time.time() + LATER if now is None else now
        return fingerprint_of(self.state, one, [str(self.net), str(self.weights)], self._read, asked)

    def _read(self) -> str:
        self.reads += 1
        return f"{self.reads:064x}"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def replaced(reader: Reader) -> None:
    """Another file of the same name, size and time."""
    stat = reader.weights.stat()
    other = reader.weights.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(reader.weights)


def written_in_place(reader: Reader) -> None:
    """The same file, size and time, and other bytes."""
    stat = reader.weights.stat()
    reader.weights.write_text("two")
    os.utime(reader.weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def longer(reader: Reader) -> None:
    reader.weights.write_text("three")


def another_net(reader: Reader) -> None:
    reader.net.write_text("ten")


def damaged(reader: Reader) -> None:
    for path in (reader.state / FOLDER).iterdir():
        path.write_text("x")


def test_files_are_read_once(reader: Reader) -> None:
    assert {reader() for _ in range(3)} == {f"{1:064x}"}
    assert reader.reads == 1
    assert reader(root="elsewhere") == f"{1:064x}", "the root decides nothing"
    assert reader(normalise="none") == f"{2:064x}"


@pytest.mark.parametrize("change", [replaced, written_in_place, longer, another_net, damaged])
def test_what_is_another_file_is_read(reader: Reader, change: Callable[[Reader], None]) -> None:
    reader()
    time.sleep(0.02)  # a clock of file times may tick that slowly
    change(reader)
    assert reader() == f"{2:064x}"
    assert (reader(), reader.reads) == (f"{2:064x}", 2)


def test_a_file_that_was_just_written_is_not_remembered(reader: Reader) -> None:
    now = time.time()
    assert [reader(now), reader(now)] == [f"{1:064x}", f"{2:064x}"]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reader._read

    def read() -> str:
        longer(reader)
        return real()

    monkeypatch.setattr(reader, "_read", read)
    reader()
    assert not (reader.state / FOLDER).exists()


def test_a_file_that_is_not_there_and_a_disk_that_refuses_cost_a_read(reader: Reader) -> None:
    reader.state.write_text("no folder")
    assert [reader(), reader()] == [f"{1:064x}", f"{2:064x}"]
    reader.weights.unlink()
    assert reader() == f"{3:064x}"


def test_the_oldest_go(reader: Reader) -> None:
    for number in range(MOST + 5):
        reader(blob=f"b{number}")
    assert len(list((reader.state / FOLDER).iterdir())) == MOST
