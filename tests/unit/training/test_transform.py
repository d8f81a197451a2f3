"""transform_param to the letter: crop, mirror, mean and scale against loops written from the definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.codec import caffe_pb2
from pipeline.errors import PipelineError, SolverError
from pipeline.training.data.transform import Transform, Unfit, transform_of

f32 = np.float32


def spec(text: dict[str, Any]) -> caffe_pb2.LayerParameter:
    return caffe_pb2.LayerParameter(name="data", type="Data", transform_param=text)


def mean_file(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(2).uniform(0, 255, shape).astype(f32)
    blob = caffe_pb2.BlobProto(channels=shape[0], height=shape[1], width=shape[2], num=1, data=values.ravel().tolist())
    (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())
    return values


def naive(image: np.ndarray, words: list[int], given: dict[str, Any], train: bool, mean: Any) -> np.ndarray:
    """DataTransformer::Transform, value by value."""
    channels, height, width = image.shape
    words, size = list(words), given.get("crop_size", 0)
    mirror = given.get("mirror", False) and words.pop(0) % 2
    out_height, out_width, top, left = size or height, size or width, 0, 0
    if size:
        top, left = (height - size) // 2, (width - size) // 2
        if train:
            top, left = words.pop(0) % (height - size + 1), words.pop(0) % (width - size + 1)
    out = np.empty((channels, out_height, out_width), f32)
    for c in range(channels):
        for y in range(out_height):
            for x in range(out_width):
                value = f32(image[c, top + y, left + x])
                if mean is not None:
                    value = f32(value - mean[c, top + y, left + x])
                elif "mean_value" in given:
                    values = given["mean_value"]
                    value = f32(value - f32(values[c % len(values)]))
                out[c, y, out_width - 1 - x if mirror else x] = value * f32(given.get("scale", 1))
    assert not words
    return out


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("crop", [0, 5, 9])
@pytest.mark.parametrize("mean", ["file", "value", "values", "none"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_each_value_is_caffes(train: bool, mirror: bool, crop: int, mean: str, kind: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(crop + train)
    given: dict[str, Any] = {"mirror": mirror, "scale": 0.017}
    if crop:
        given["crop_size"] = crop
    values = mean_file(tmp_path, (3, 9, 11))
    if mean == "file":
        given["mean_file"] = "mean.binaryproto"
    elif mean != "none":
        given["mean_value"] = [104.3] if mean == "value" else [104.3, 117.1, 123.7]
    transform = transform_of(spec(given), train, tmp_path)
    assert transform.words == int(mirror) + (2 if train and crop else 0)
    images = random.integers(0, 256, (8, 3, 9, 11)).astype(kind)
    words = random.integers(0, 2**32, (8, transform.words), np.uint32)
    all_of_them = np.full((8, *transform.shape(images.shape[1:])), np.nan, f32)
    transform.apply_to_all(images, words, all_of_them)
    for image, drawn, one_of_all in zip(images, words, all_of_them, strict=True):
        out = np.empty(transform.shape(image.shape), f32)
        transform.apply(image, drawn, out)
        expected = naive(image, drawn.tolist(), given, train, values if mean == "file" else None)
        assert np.array_equal(out, expected)
        assert np.array_equal(one_of_all, expected)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mean_file": "mean.binaryproto", "mean_value": [1]}, "mean_file and mean_value"),
        ({"force_color": True, "force_gray": True}, "force_color and force_gray"),
        ({"resize_param": {}}, "resize_param"),
        ({"mean_file": "nowhere.binaryproto"}, "cannot be read"),
    ],
)
def test_what_caffe_refuses_is_refused(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=says):
        transform_of(spec(given), True, tmp_path)


def test_a_mean_that_is_no_image_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.array([1.0, 2, 3], f32))
    with pytest.raises(SolverError, match="holds no image"):
        transform_of(spec({"mean_file": "mean.npy"}), True, tmp_path)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((3, 6, 20), "smaller than crop_size 7"),
        ((3, 20, 6), "smaller than crop_size 7"),
        ((2, 20, 20), "2 channels, and there are 3 mean_value"),
        ((0, 20, 20), "its shape is 0 x 20 x 20"),
    ],
)
def test_an_image_that_does_not_fit_says_why(shape: tuple[int, int, int], says: str) -> None:
    mean = np.array([1, 2, 3], f32).reshape(3, 1, 1)
    with pytest.raises(Unfit, match=says):
        Transform(7, False, f32(1), mean, True, None).shape(shape)


def test_a_mean_image_is_as_big_as_the_image_before_its_crop() -> None:
    transform = Transform(7, False, f32(1), np.zeros((3, 7, 7), f32), True, None)
    with pytest.raises(Unfit, match="it is 3 x 9 x 9, the mean image 3 x 7 x 7"):
        transform.shape((3, 9, 9))
    assert transform.shape((3, 7, 7)) == (3, 7, 7)
