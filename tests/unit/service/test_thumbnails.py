"""The small pictures of a dataset: of each label the first, never too many, and none of what is no picture."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.codec import caffe_pb2
from pipeline.service.work import thumbnails
from pipeline.training.dataset import shards


def record(number: int, label: int, shape: tuple[int, int, int], *, encoded: bool = False) -> shards.Record:
    pixels = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    datum = caffe_pb2.Datum(label=label, encoded=encoded)
    if encoded:
        datum.data = cv2.imencode(".png", pixels.transpose(1, 2, 0))[1].tobytes()
    else:
        datum.channels, datum.height, datum.width = shape
        datum.data = pixels.tobytes()
    return b"%08d" % number, datum


def made(folder: Path, records: list[shards.Record]) -> Path:
    folder.mkdir()
    shards.write(folder, records, "a test")
    return folder


def seen(content: str) -> tuple[int, ...]:
    return tuple(cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED).shape)


def test_each_label_has_four_small_ones_of_whatever_form(tmp_path: Path) -> None:
    records = [record(at, at % 3, (3, 30, 60), encoded=at % 2 == 0) for at in range(30)]
    records += [record(100, 3, (1, 8, 8)), record(101, 4, (3, 1, 900))]
    names = {0: "a", 1: "b", 2: "<script>", 3: "grey", 4: "line"}
    found = thumbnails.thumbnails(made(tmp_path / "made", records), names)
    assert {label: len(some) for label, some in found.items()} == {"a": 4, "b": 4, "<script>": 4, "grey": 1, "line": 0}
    assert {seen(one) for label in ("a", "b", "<script>") for one in found[label]} == {(20, 40, 3)}
    assert seen(found["grey"][0])[:2] == (8, 8)


def test_of_very_many_labels_the_first_have_some_and_all_together_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "PICTURE_BYTES", 20_000)
    records = [record(at, at, (3, 40, 40)) for at in range(300)]
    found = thumbnails.thumbnails(made(tmp_path / "made", records), {at: str(at) for at in range(300)})
    assert len(found) == thumbnails.LABELS

    def sizes() -> Iterator[int]:
        yield from (len(base64.b64decode(one)) for some in found.values() for one in some)

    assert 15_000 < sum(sizes()) <= 20_000
