"""A set that is not refused makes of a job's pictures the very numbers that the service's own classifier makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.codec.mean_image import read_mean
from pipeline.images import Preparation
from pipeline.service.classifying import facts_of
from pipeline.service.preparation import differences
from pipeline.service.serving.nets import Loaded
from pipeline.service.serving.placing import GIVEN
from pipeline.settings import FeatureSet, Preprocess
from pipeline.training.dataset.mean import as_binaryproto
from tests.servers.promoting import NET, served

GREY = NET.replace("dim: 3", "dim: 1")
IMAGE = np.random.default_rng(3).uniform(80, 140, (3, 6, 6)).astype(np.float32)
PLAIN = IMAGE[:, :4, :4]


def asked(**how: Any) -> FeatureSet:
    more = {name: how.pop(name) for name in ("input_size",) if name in how}
    return FeatureSet(net="", blob="prob", root="r", preprocess=Preprocess(**how), **more)


def facts(**pictures: Any) -> dict[str, Any]:
    return facts_of(served(1, **pictures)["serving.json"])


def colours(*values: float) -> Any:
    return np.array(values, np.float32).reshape(-1, 1, 1)


ALIKE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"mean": 0}, {}),
    ({"mean": [90, 100, 110], "input_scale": 0.02}, {"mean": colours(90, 100, 110), "scale": 0.02}),
    ({"mean": 0.5, "raw_scale": 1.0}, {"mean": colours(127.5), "scale": 1 / 255}),
    ({"mean": 127, "std": 50}, {"mean": colours(127), "scale": 0.02}),
    ({"mean": 7, "resize": "crop", "resize_to": 6}, {"size": [6, 6], "crop": 4, "mean": colours(7)}),
    ({"mean": 7, "resize": "crop", "resize_to": 6}, {"size": [6, 9], "crop": 4, "mean": colours(7)}),
    ({"resize": "crop", "resize_to": 6}, {"size": [6, 6], "crop": 4, "mean": IMAGE}),
    ({}, {"mean": PLAIN}),
]


@pytest.mark.parametrize(("how", "pictures"), ALIKE, ids=range(len(ALIKE)))
def test_what_is_not_refused_gives_the_same_numbers(
    how: dict[str, Any], pictures: dict[str, Any], tmp_path: Path
) -> None:
    one = asked(**how)
    assert differences("b", one, facts(**pictures)) == []
    for name, content in served(1, **pictures).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / GIVEN).write_text("{}")
    loaded = Loaded(tmp_path, 1)
    mean, preprocess = None, one.preprocess
    if pictures.get("mean", colours(0)).shape[1:] != (1, 1):  # it goes with the promotion
        file = tmp_path / "mean.binaryproto"
        file.write_bytes(as_binaryproto(pictures["mean"]))
        preprocess, mean = preprocess.model_copy(update={"mean": str(file)}), read_mean(file)
    of_the_set = Preparation(preprocess, (4, 4), mean)
    for seed in range(3):
        high, wide = pictures.get("size", [4, 4])
        pixels = np.random.default_rng(seed).integers(0, 256, (high, wide, 3), np.uint8)
        content = cv2.imencode(".png", pixels)[1].tobytes()
        mine, theirs = of_the_set(content), loaded._prepared(content)
        assert isinstance(mine, np.ndarray)
        assert isinstance(theirs, np.ndarray)
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


UNLIKE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "preprocess.mean is [104, 117, 123] in set b, and [0] "),
    ({"mean": "mean.npy"}, {}, "preprocess.mean is a file in set b, and [0] "),
    ({"mean": 0, "resize": "crop"}, {}, "preprocess.resize is crop in set b, and direct "),
    ({"mean": 0}, {"size": [6, 6], "crop": 4}, "preprocess.resize is direct in set b, and crop "),
    ({"mean": 0, "resize": "crop"}, {"size": [6, 6], "crop": 4}, "preprocess.resize_to is 256 in set b, and 6 "),
    ({"resize": "crop", "resize_to": 6}, {"size": [6, 9], "crop": 4, "mean": np.zeros((3, 6, 9), np.float32)},
     "the size of a mean image is 6x6 in set b, and 6x9 "),
    ({"mean": 0, "input_size": 8}, {}, "input_size is 8x8 in set b, and 4x4 "),
    ({"mean": 0, "channel_order": "rgb"}, {}, "preprocess.channel_order is rgb in set b, and bgr "),
    ({"mean": 0, "interpolation": "bilinear"}, {}, "preprocess.interpolation is bilinear in set b, and fast "),
    ({"mean": 0, "std": [1, 2, 1]}, {}, "is [1, 0.5, 1] in set b, and [1] "),
    ({"raw_scale": 1.0}, {"mean": PLAIN}, "preprocess.raw_scale is 1 in set b, and 255 "),
    ({"mean": 0, "raw_scale": 0.0}, {}, "is [0] in set b, and [1] "),
]  # fmt: skip


@pytest.mark.parametrize(("how", "pictures", "says"), UNLIKE, ids=range(len(UNLIKE)))
def test_what_differs_is_named_with_both_values(how: dict[str, Any], pictures: dict[str, Any], says: str) -> None:
    found = differences("b", asked(**how), facts(**pictures))
    assert any(says in one for one in found), found


def test_a_grey_net_has_one_mean_and_no_order_of_colours() -> None:
    said = json.loads(served(1, channels=1)["serving.json"]) | {"net": GREY, "shape": [1, 4, 4]}
    of = facts_of(json.dumps(said).encode())
    assert differences("b", asked(mean=0, channel_order="rgb"), of) == []
    assert differences("b", asked(mean=[1, 2, 3]), of) == [
        "preprocess.mean is [1, 2, 3] in set b, and [0] as the job's test prepared pictures"
    ]


def test_a_net_that_learned_from_numbers_has_no_pictures() -> None:
    said = json.loads(served(1)["serving.json"]) | {"pictures": None}
    assert "learned from numbers" in differences("b", asked(), facts_of(json.dumps(said).encode()))[0]
