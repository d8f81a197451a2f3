"""A net that takes one channel is fed grey images, as a training with force_gray reads the same files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import hathi
from pipeline.cli.main import main
from pipeline.errors import ConfigError, NetError
from pipeline.images import Preparation
from pipeline.nets.expected import expected
from pipeline.nets.features import FeatureNet
from pipeline.settings import FeatureSet, Preprocess
from pipeline.training.data.pixels import decode
from sample.random_features import uniform

PLAIN = Preprocess(preset="none", mean=[0.0], interpolation="bilinear")
NET = """name: "flat"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: {channels} dim: 28 dim: 28 }} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool"
  pooling_param {{ pool: AVE kernel_size: 4 stride: 4 }} }}
"""


def pictures() -> dict[str, np.ndarray]:
    noise = (uniform(1, 28 * 28 * 3) * 256).astype(np.uint8).reshape(28, 28, 3)
    smooth = cv2.resize(noise[:6, :6], (28, 28), interpolation=cv2.INTER_CUBIC)
    return {"noise": noise, "smooth": smooth, "grey": np.ascontiguousarray(smooth[:, :, 1])}


@pytest.mark.parametrize(
    ("form", "most"), [(".jpg", 0), (".png", 0), (".webp", 0), (".bmp", 1), (".tiff", 1)], ids=lambda one: str(one)
)
def test_a_grey_picture_is_what_training_reads_of_the_same_file(form: str, most: int) -> None:
    prepare = Preparation(PLAIN, (28, 28), channels=1)
    for name, pixels in pictures().items():
        content = cv2.imencode(form, pixels)[1].tobytes()
        ours = prepare(content)
        assert isinstance(ours, np.ndarray), name
        assert ours.shape == (1, 28, 28)
        assert np.abs(ours - decode(content, colour=False)).max() <= (0 if name == "grey" else most), name


def test_a_grey_picture_that_shrinks_is_near_to_the_one_that_training_shrinks() -> None:
    pixels = cv2.resize(pictures()["smooth"], (60, 90), interpolation=cv2.INTER_CUBIC)
    content = cv2.imencode(".png", pixels)[1].tobytes()
    ours = Preparation(PLAIN, (28, 28), channels=1)(content)
    theirs = decode(content, colour=False, size=(28, 28))
    assert isinstance(ours, np.ndarray)
    assert np.abs(ours - theirs).mean() < 4, "another filter of the same grey picture"


def net(tmp_path: Path, channels: int) -> Path:
    path = tmp_path / f"net-{channels}.prototxt"
    path.write_text(NET.format(channels=channels))
    return path


def test_features_of_a_net_of_one_channel_are_those_of_the_grey_pixels(tmp_path: Path) -> None:
    contents = [cv2.imencode(".jpg", pixels)[1].tobytes() for pixels in pictures().values()]
    found = list(hathi.features(contents, net=net(tmp_path, 1), blob="pool", preprocess="unit", normalise="none"))
    for one, content in zip(found, contents, strict=True):
        grey = decode(content, colour=False)[0].astype(float) / 255
        assert one.vector is not None, one.failure
        assert np.allclose(one.vector, grey.reshape(7, 4, 7, 4).mean((1, 3)).ravel(), atol=1e-6)


def test_the_fingerprint_of_a_grey_net_is_its_own_and_is_known_without_an_engine(tmp_path: Path) -> None:
    grey, colour = (
        FeatureSet.model_validate(
            {"net": str(net(tmp_path, channels)), "blob": "pool", "root": "x", "preprocess": {"preset": "unit"}}
        )
        for channels in (1, 3)
    )
    assert FeatureNet(grey).fingerprint == expected(grey)
    assert FeatureNet(grey).channels == 1
    assert expected(grey) != expected(colour)


def test_net_check_says_that_images_are_grey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net", "check", str(net(tmp_path, 1)), "--blob", "pool", "--preprocess", "unit"]) == 0
    assert "resized to 28 x 28 (bilinear), grey 0 to 1, mean 0, std 1, NCHW" in capsys.readouterr().out


def test_net_features_reads_colour_as_grey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "noise.jpg"
    path.write_bytes(cv2.imencode(".jpg", pictures()["noise"])[1].tobytes())
    words = ["--blob", "pool", "--preprocess", "unit", "--set", "normalise=none", "--json"]
    assert main(["net", "features", str(net(tmp_path, 1)), str(path), *words]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[0])
    grey = decode(path.read_bytes(), colour=False)[0].astype(float) / 255
    values = next(value for value in told.values() if isinstance(value, list))
    assert np.allclose(values, grey.reshape(7, 4, 7, 4).mean((1, 3)).ravel(), atol=1e-5)


@pytest.mark.parametrize("given", [{"mean": [104.0, 117.0, 123.0]}, {"mean": [0.0], "std": [1.0, 2.0, 3.0]}])
def test_three_numbers_for_one_channel_are_refused_with_what_to_give(given: dict[str, list[float]]) -> None:
    with pytest.raises(ConfigError, match=r"preprocess\.(mean|std) does not fit") as refused:
        Preparation(Preprocess(preset="none", **given), (28, 28), channels=1)  # type: ignore[arg-type]
    assert "grey" in refused.value.detail
    assert "=" in refused.value.hint


def test_two_channels_are_no_image(tmp_path: Path) -> None:
    chosen = {"net": str(net(tmp_path, 2)), "blob": "pool", "root": "x", "preprocess": {"preset": "unit"}}
    with pytest.raises(NetError, match="takes no images"):
        FeatureNet(FeatureSet.model_validate(chosen))


def test_a_model_that_takes_one_channel_last_is_seen() -> None:
    from pipeline.nets.features import comes_last

    shapes = {(1, 28, 28, 1): True, (1, 1, 28, 28): False, (1, 3, 28, 28): False, (1, 28, 28, 3): True}
    assert {shape: comes_last(shape) for shape in shapes} == shapes
