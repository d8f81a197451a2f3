"""Caffe's Transformer, step by step, and images of odd shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError
from pipeline.images import Preparation, decode, prepare
from pipeline.images.resizing import resize
from pipeline.records import Failure
from pipeline.settings import Preprocess
from tests.unit.images.pictures import bgr, encoded, photo, psnr

IMAGE = bgr(photo(227, 227))


def test_the_default_is_caffes_bgr_minus_the_mean_of_each_channel() -> None:
    got = prepare(IMAGE, Preprocess(), (227, 227))
    want = IMAGE.astype(np.float32).transpose(2, 0, 1) - np.array([104, 117, 123], np.float32)[:, None, None]
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous


def test_rgb_raw_scale_mean_std_and_input_scale_come_in_transformers_order() -> None:
    how = Preprocess(channel_order="rgb", raw_scale=1.0, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225],
                     input_scale=0.5)  # fmt: skip
    got = prepare(IMAGE, how, (227, 227))
    rgb = IMAGE[:, :, ::-1].astype(np.float64).transpose(2, 0, 1) / 255
    want = (rgb - np.array(how.mean)[:, None, None]) / np.array(how.std)[:, None, None] * 0.5
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_centre_crop_takes_the_middle_of_the_image_whose_short_side_is_resized() -> None:
    image = bgr(photo(400, 256))
    how = Preprocess(resize="crop", resize_to=256, mean=[0.0])
    got = prepare(image, how, (224, 224)).transpose(1, 2, 0)
    np.testing.assert_array_equal(got, image[16:240, 88:312])
    wide = prepare(bgr(photo(800, 512)), how, (224, 224)).transpose(1, 2, 0)
    half = np.asarray(photo(800, 512).resize((400, 256), Image.Resampling.BICUBIC))[:, :, ::-1]
    assert psnr(wide, half[16:240, 88:312]) >= 40


@pytest.mark.parametrize("kind", ["npy", "binaryproto", "old binaryproto", "doubles"])
def test_a_mean_image_is_taken_from_a_file(kind: str, tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(90, 130, (3, 227, 227)).astype(np.float32)
    path = tmp_path / f"mean.{'npy' if kind == 'npy' else 'binaryproto'}"
    if kind == "npy":
        np.save(path, mean)
    elif kind == "doubles":
        blob = caffe_pb2.BlobProto(double_data=mean.ravel(), shape=caffe_pb2.BlobShape(dim=mean.shape))
        path.write_bytes(blob.SerializeToString())
    elif kind == "binaryproto":
        blob = caffe_pb2.BlobProto(data=mean.ravel(), shape=caffe_pb2.BlobShape(dim=mean.shape))
        path.write_bytes(blob.SerializeToString())
    else:
        path.write_bytes(caffe_pb2.BlobProto(num=1, channels=3, height=227, width=227, data=mean.ravel())
                         .SerializeToString())  # fmt: skip
    got = prepare(IMAGE, Preprocess(mean=str(path)), (227, 227))
    np.testing.assert_allclose(got, IMAGE.transpose(2, 0, 1) - mean, atol=1e-4)


def test_a_mean_image_of_the_resized_size_is_cropped_with_it(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).uniform(90, 130, (3, 256, 256)).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean)
    image = bgr(photo(256, 256))
    got = prepare(image, Preprocess(resize="crop", mean=str(tmp_path / "mean.npy")), (224, 224))
    want = (image.transpose(2, 0, 1) - mean)[:, 16:240, 16:240]
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize(
    ("how", "says"),
    [({"mean": [1.0, 2.0]}, "mean"), ({"std": [1.0, 0.0, 1.0]}, "std"), ({"mean": "absent.npy"}, "absent.npy")],
)
def test_a_mean_or_std_that_does_not_fit_is_refused(how: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Preparation(Preprocess.model_validate(how), (227, 227))


NO_SUCH_TYPE = b"\x93NUMPY\1\0\x3a\0{'descr': '<f1', 'fortran_order': False, 'shape': (3,), }\nabc"


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage" * 40, b"\x93NUMPY garbage", NO_SUCH_TYPE, b"\x08\xff\xff\xff", b"\x2a\x04abcd"],
)
def test_a_file_that_is_no_mean_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mean").write_bytes(content)
    with pytest.raises(ConfigError):
        Preparation(Preprocess(mean=str(tmp_path / "mean")), (227, 227))


def test_a_mean_image_of_another_size_is_refused_with_both(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.zeros((3, 100, 100), np.float32))
    with pytest.raises(ConfigError, match=r"3 x 100 x 100.*3 x 227 x 227"):
        Preparation(Preprocess(mean=str(tmp_path / "mean.npy")), (227, 227))


@pytest.mark.parametrize("how", ["direct", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3), (40_000, 2), (227, 227), (500, 226)])
def test_images_of_any_shape_are_prepared(size: tuple[int, int], how: str) -> None:
    preparation = Preparation(Preprocess.model_validate({"resize": how, "mean": [0.0]}), (227, 227))
    image = Image.new("RGB", size, (10, 20, 30))
    got = preparation(encoded(image, "PNG"))
    assert not isinstance(got, Failure)
    assert got.shape == (3, 227, 227)
    np.testing.assert_allclose(got[:, 100, 100], (30, 20, 10), atol=1)


def test_a_corrupt_image_comes_back_as_its_failure() -> None:
    got = Preparation(Preprocess(), (227, 227))(encoded(photo(64, 64), "JPEG")[:200])
    assert isinstance(got, Failure)


def test_every_detail_is_decoded_when_the_settings_say_so() -> None:
    content = encoded(photo(800, 600), "JPEG", quality=92)
    full = Preparation(Preprocess(reduced_decode=False), (227, 227))
    reduced = Preparation(Preprocess(), (227, 227))
    assert full.reduce_to is None
    assert reduced.reduce_to == (227, 227)
    image = decode(content)
    assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(full(content), full.prepare(image))
    one, other = reduced(content), full(content)
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    assert psnr(one, other) >= 40


@pytest.mark.parametrize("size", [(600, 450), (1600, 1200), (3000, 2000), (450, 600), (240, 235), (229, 1500),
                                  (306, 306), (380, 360), (600, 600), (700, 690)])  # fmt: skip
def test_resizing_does_not_alias(size: tuple[int, int]) -> None:
    image = photo(*size, seed=5)
    want = bgr(image.resize((227, 227), Image.Resampling.BICUBIC))
    assert psnr(resize(bgr(image), (227, 227)), want) >= 39


def test_a_stripe_pattern_becomes_grey_not_stripes() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), 908)[None, :, None].repeat(908, 0).repeat(3, 2)
    got = resize(np.ascontiguousarray(stripes), (227, 227))
    assert np.abs(got.astype(int) - 127).max() <= 2


def test_what_was_prepared_stays_though_the_same_thread_prepares_others() -> None:
    preparation = Preparation(Preprocess(mean=[0.0]), (64, 64))
    pictures = [encoded(photo(64, 64, seed), "JPEG") for seed in range(4)]
    many = [preparation(content) for content in pictures]
    for content, held in zip(pictures, many, strict=True):
        image = decode(content)
        assert isinstance(image, np.ndarray)
        np.testing.assert_array_equal(held, image.transpose(2, 0, 1))
    one, other = decode(pictures[0]), decode(pictures[1])
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    assert not np.shares_memory(one, other)
