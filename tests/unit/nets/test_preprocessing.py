"""Preprocessing: presets beside NumPy and Pillow, what an owner says of a model, pooling, and what is told of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import hathi
from pipeline.errors import ConfigError, NetError
from pipeline.images import Preparation
from pipeline.nets import preprocessing
from pipeline.nets.expected import expected
from pipeline.nets.features import FeatureNet
from pipeline.nets.pooling import Pooling
from pipeline.settings import PRESETS, FeatureSet, Preprocess, Settings, load, travelling
from tests.unit.images.pictures import encoded, photo
from tests.unit.nets import test_features

GOLDEN = Path(__file__).parents[2] / "golden"
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
Floats = NDArray[np.float32]


def spatial(path: Path, size: int | str = "side", channels: int = 3, **metadata: str) -> Path:
    """A convolution and a ReLU: `map` (batch, 5, h, w), the one output."""
    weights = np.random.default_rng(1).normal(size=(5, channels, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["conv"]), helper.make_node("Relu", ["conv"], ["map"])],
        "spatial",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, size, size])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, ["n", 5, None, None])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {f"Image.{name}": value for name, value in metadata.items()})
    onnx.save(model, path)
    return path


def feature_set(net: Path, **more: object) -> FeatureSet:
    return FeatureSet.model_validate({"net": str(net), "blob": "map", "root": "r", "batch_size": 2, **more})


def cut(image: Image.Image, short: int, side: int, how: Image.Resampling) -> Image.Image:
    """As torchvision's Resize and CenterCrop: the whole picture first, then the middle."""
    wide, high = image.size
    size = (short, int(short * high / wide)) if wide <= high else (int(short * wide / high), short)
    whole = image.resize(size, how)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return whole.crop((left, top, left + side, top + side))


def scaled(image: Image.Image, mean: list[float], std: list[float]) -> NDArray[np.float64]:
    pixels = np.asarray(image, np.float64) / 255
    return ((pixels - mean) / std).transpose(2, 0, 1)


WANTED: dict[str, Callable[[Image.Image], NDArray[np.float64]]] = {
    "imagenet": lambda image: scaled(cut(image, 256, 224, Image.Resampling.BILINEAR), *IMAGENET),
    "clip": lambda image: scaled(cut(image, 224, 224, Image.Resampling.BICUBIC), *CLIP),
    "dinov2": lambda image: scaled(cut(image, 256, 224, Image.Resampling.BICUBIC), *IMAGENET),
    "unit": lambda image: scaled(image.resize((224, 224), Image.Resampling.BILINEAR), [0] * 3, [1] * 3),
    "none": lambda image: scaled(image.resize((224, 224), Image.Resampling.BILINEAR), [0] * 3, [1 / 255] * 3),
}


@pytest.mark.parametrize("size", [(640, 427), (333, 500), (1999, 301), (225, 257), (90, 61), (224, 224), (31, 2000)])
@pytest.mark.parametrize("name", WANTED)
def test_a_preset_gives_the_numbers_that_pillow_and_numpy_give(name: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.asarray(photo(*size))[..., :3]).convert("RGB")
    held = io.BytesIO()
    image.save(held, "PNG")
    how = Preprocess.model_validate({"preset": name})
    got = Preparation(how, how.size or (224, 224))(held.getvalue())
    assert isinstance(got, np.ndarray)
    step = 1 / 255 / min(how.std) if how.raw_scale == 1 else 1.0
    far = np.abs(got - WANTED[name](image))
    assert far.max() <= 1.001 * step, "a place between two pixels may be rounded to the other one"
    assert (far > step / 2).mean() < 5e-3


def test_caffe_is_the_default_in_every_value_and_gives_caffes_numbers() -> None:
    assert Preprocess(preset="caffe").model_dump(exclude={"preset"}) == Preprocess().model_dump(exclude={"preset"})
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    got = Preparation(Preprocess(preset="caffe"), (20, 30)).prepare(pixels)
    np.testing.assert_array_equal(got, (pixels.astype(np.float32) - [104, 117, 123]).transpose(2, 0, 1))


def test_a_preset_grows_with_the_net_and_gives_way_to_what_stands_beside_it() -> None:
    of = Preprocess.model_validate
    assert of({"preset": "imagenet"}).short_side((384, 384)) == 439
    assert of({"preset": "clip"}).short_side((336, 336)) == 336
    assert of({"preset": "imagenet", "resize_to": 232}).short_side((224, 224)) == 232
    assert of({"preset": "clip", "mean": 0.5, "std": [0.5]}).model_dump()["mean"] == [0.5]
    assert of({"channel_order": "rgb"}).preset == "caffe", "a value says that somebody thought of it"
    assert of({"max_pixels": 5}).preset is None, "which says nothing of how the net was trained"


def test_a_preset_of_the_configuration_is_filled_and_travels_to_other_processes() -> None:
    values = {
        "bucket.url": "b",
        "preprocess.mine": {"preset": "clip", "resize_to": 300, "mean": [0.1, 0.2, 0.3]},
        "sets.a": {"net": "n", "blob": "b", "root": "r", "preprocess": {"preset": "mine", "std": 2}},
    }
    how = load(None, {}, values).sets["a"].preprocess
    assert (how.preset, how.mean, how.std, how.interpolation) == ("mine", [0.1, 0.2, 0.3], [2.0], "bicubic")
    assert how.short_side((224, 224)) == 300
    settings = load(None, {}, values)
    assert Settings.model_validate_json(travelling(settings)) == settings
    with pytest.raises(ConfigError) as caught:
        load(None, {}, {**values, "sets.a.preprocess.preset": "clop"})
    assert all(name in caught.value.detail for name in [*PRESETS, "mine"])
    with pytest.raises(ConfigError, match=r"preprocess\.clip") as caught:
        load(None, {}, {**values, "preprocess.clip": {}})
    assert "built in" in caught.value.detail


def test_existing_configurations_keep_their_fingerprints() -> None:
    """As they were before there were presets."""
    alex = test_features.feature_set
    crop = {"resize": "crop", "resize_to": 64, "channel_order": "rgb", "raw_scale": 1.0, "std": [0.5]}
    models = GOLDEN / "onnx"
    half = {"mean": [127.5], "std": [127.5], "reduced_decode": False}
    sets = {
        "be99c3b52403b6c0e301c67594de2d64bf2b7317d0590228b5c5f52f5a45e014": alex(),
        "1384e97b953d90be80d1594ee6ff9af377873361f6376a16ef9e2e68d5ee2648": alex(preprocess=crop),
        "e3bd9ddbe3687e9cc7010ca69fd65226e3e619e33401f606773b8329422cb77c": alex(
            blob="pool1", normalise="none", dependent_rows="alone"
        ),
        "5558ae8199f092403e751b8ac80536feffde7b15317dec9e269dea50f5f30e5b": alex(Path("hog"), None, "hog"),
        "af58168eb59241c1015a3e686006853d92677bb543235bb75879ec71734ceba0": alex(
            models / "resnet_opset11.onnx", None, "feature"
        ),
        "3e8c15f0d47d69b05389524ace2ef55e8054eba5dd01848267c83a6519fd91f9": alex(
            models / "clip_opset18.onnx", None, "feature", preprocess=half
        ),
    }
    for fingerprint, one in sets.items():
        assert FeatureNet(one).fingerprint == expected(one) == fingerprint


def test_every_value_that_changes_features_changes_the_fingerprint(tmp_path: Path) -> None:
    path = spatial(tmp_path / "m.onnx")
    changes: list[dict[str, Any]] = [{"preprocess": {"preset": name}, "input_size": 32} for name in PRESETS]
    changes += [{"preprocess": {"preset": "clip"}}]
    clip = {"preset": "clip", "size": [32, 32]}
    for more in ({}, {"crop_pct": 0.5}, {"interpolation": "lanczos"}, {"size": [40, 32]}, {"resize_to": 50}):
        changes.append({"preprocess": {**clip, "std": [3], **more}})
    changes += [{"preprocess": {**clip, "std": [3]}, "pool": pool} for pool in ("mean", "max")]
    of = [expected(feature_set(path, **one)) for one in changes]
    assert len(set(of)) == len(changes)
    for one, fingerprint in zip(changes[-3:], of[-3:], strict=True):
        assert FeatureNet(feature_set(path, **one)).fingerprint == fingerprint
    same = expected(feature_set(path, input_size=32, preprocess={**clip, "std": [3], "resize_to": 32}))
    assert same == of[len(PRESETS) + 1], "the name and the spelling decide nothing"


CLIP_FILE = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": CLIP[0], "image_std": CLIP[1], "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224},
}  # fmt: skip
VIT_FILE = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 384, "width": 384},
}  # fmt: skip
SAID: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "CLIP's": (CLIP_FILE, {**PRESETS["clip"]}),
    "CLIP's of old": ({**CLIP_FILE, "size": 224, "crop_size": 224}, {**PRESETS["clip"]}),
    "DINOv2's": (
        {**CLIP_FILE, "size": {"shortest_edge": 256}, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]},
        {**PRESETS["dinov2"]},
    ),
    "ViT's": (VIT_FILE, {"resize": "direct", "size": (384, 384), "interpolation": "bilinear", "mean": [0.5] * 3}),
    "ViT's of old": ({**VIT_FILE, "size": 224}, {"resize": "direct", "size": (224, 224), "raw_scale": 1.0}),
    "plain pixels": (
        {**VIT_FILE, "do_rescale": False, "do_normalize": False, "do_flip_channel_order": True},
        {"raw_scale": 255.0, "mean": [0.0], "std": [1.0], "channel_order": "bgr"},
    ),
    "ConvNeXt's": (
        {**VIT_FILE, "size": {"shortest_edge": 224}, "crop_pct": 0.875},
        {"resize": "crop", "size": (224, 224), "crop_pct": 0.875},
    ),
    "ConvNeXt's of 384": (
        {**VIT_FILE, "size": {"shortest_edge": 384}, "crop_pct": 0.875},
        {"resize": "direct", "size": (384, 384)},
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_lies_beside_a_model_is_read(name: str, tmp_path: Path) -> None:
    told, wanted = SAID[name]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    one = feature_set(spatial(tmp_path / "m.onnx"))
    how = preprocessing.stated(one)
    assert how.preset == "preprocessor_config.json"
    values = how.model_dump()
    wanted = {key: tuple(value) if key == "size" else value for key, value in wanted.items()}
    assert {key: values[key] for key in wanted} == wanted
    net = FeatureNet(one)
    assert net.input_size == how.size
    assert net.preprocessing.startswith("preprocessor_config.json: ")
    assert expected(one) == net.fingerprint
    named = feature_set(Path(one.net), preprocess={"preset": "unit"}, input_size=20)
    assert preprocessing.stated(named).preset == "unit", "the set's own word comes first"
    again = preprocessing.with_stated(FeatureSet.model_validate_json(preprocessing.with_stated(one).model_dump_json()))
    assert again.preprocess == how, "as it travels to another process"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"do_resize": False}, "do_resize"),
        ({"do_pad": True}, "do_pad"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"do_center_crop": False}, "crops nothing"),
        ({"size": {"longest_edge": 800}}, "longest_edge"),
        ({"size": None}, "no size"),
        ({"size": {"shortest_edge": 100}}, "of a short side of 100"),
        ({"size": {"height": 256, "width": 256}}, "crops after that"),
        ({"resample": 9}, "resample is 9"),
        ({"resample": "bicubic"}, "resample"),
        ({"image_std": None}, "no image_std"),
        ({"image_mean": "mean.npy"}, "image_mean"),
        ({"image_mean": {"r": 1}}, "write one number"),
        ({"size": {"shortest_edge": "224"}}, "short side"),
        ({"crop_size": {"height": "a", "width": 2}}, ""),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
    ],
)
def test_what_a_file_asks_for_and_is_not_done_here_is_refused_by_name(
    more: dict[str, Any], why: str, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**CLIP_FILE, **more}))
    with pytest.raises(ConfigError, match="says what is not done here") as caught:
        preprocessing.stated(feature_set(spatial(tmp_path / "m.onnx")))
    assert why in caught.value.detail
    assert "--preprocess caffe|imagenet|clip|dinov2|unit|none" in caught.value.hint


def test_a_file_that_is_damaged_is_named_and_a_caffe_net_does_not_look_at_one(tmp_path: Path) -> None:
    path = spatial(tmp_path / "m.onnx")
    for content in (b"{", b"\xff\xfe\xff", b"[1]", b"null"):
        (tmp_path / "preprocessor_config.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"preprocessor_config\.json"):
            preprocessing.stated(feature_set(path))
    assert preprocessing.stated(feature_set(tmp_path / "deploy.prototxt")).preset == "caffe"


@pytest.mark.parametrize(
    ("pixels", "scale", "wanted"),
    [
        ("Rgb8", "Normalized_0_1", {"channel_order": "rgb", "raw_scale": 1.0, "mean": [0.0], "std": [1.0]}),
        ("BGR8", "NominalRange_0_255", {"channel_order": "bgr", "raw_scale": 255.0, "mean": [0.0]}),
        ("rgb8", "Normalized_1_1", {"raw_scale": 1.0, "mean": [0.5], "std": [0.5]}),
    ],
)
def test_what_a_models_metadata_say_is_read(pixels: str, scale: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    path = spatial(tmp_path / "m.onnx", 32, BitmapPixelFormat=pixels, NominalPixelRange=scale)
    how = preprocessing.stated(feature_set(path))
    assert {key: how.model_dump()[key] for key in wanted} == wanted
    assert how.preset == "metadata of the model"
    assert FeatureNet(feature_set(path)).preprocessing.startswith("metadata of the model: resized to 32 x 32")


def test_metadata_that_say_too_little_or_another_thing_are_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing says how images are prepared"):
        preprocessing.stated(feature_set(spatial(tmp_path / "m.onnx", BitmapPixelFormat="Rgb8")))
    for pixels, scale in (("Gray8", "Normalized_0_1"), ("Rgb8", "NominalRange_16_235")):
        path = spatial(tmp_path / "m.onnx", BitmapPixelFormat=pixels, NominalPixelRange=scale)
        with pytest.raises(ConfigError, match="metadata ask for what is not done here"):
            preprocessing.stated(feature_set(path))


def test_an_onnx_net_without_any_is_refused_with_the_presets_named_unless_it_is_said_to_be_caffes(
    tmp_path: Path,
) -> None:
    path = spatial(tmp_path / "m.onnx", 32)
    for ask in (FeatureNet, expected):
        with pytest.raises(ConfigError, match="nothing says how images are prepared") as caught:
            ask(feature_set(path))
        assert caught.value.exit_code == 2
        assert all(name in caught.value.hint for name in PRESETS)
    assert FeatureNet(feature_set(path, preprocess={"preset": "caffe"})).preprocess.channel_order == "bgr"


def test_a_spatial_blob_is_pooled_as_numpy_does_it_and_the_choice_is_told(tmp_path: Path) -> None:
    path = spatial(tmp_path / "m.onnx", 12)
    how = {"preprocess": {"preset": "none"}, "normalise": "none"}
    flat, mean, top = (FeatureNet(feature_set(path, pool=pool, **how)) for pool in ("flatten", "mean", "max"))
    images = np.random.default_rng(0).uniform(0, 255, (3, 3, 12, 12)).astype(np.float32)
    values = flat.forward(images).reshape(3, 5, 10, 10)
    assert (flat.dim, mean.dim, top.dim) == (500, 5, 5)
    np.testing.assert_allclose(mean.forward(images), values.mean((2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(top.forward(images), values.max((2, 3)))
    assert "pool flatten: 5 x 10 x 10 becomes 500 values (--pool mean or max: 5, one for each channel)" in str(
        flat.preprocessing
    )
    assert mean.preprocessing.endswith("pool mean over the 10 x 10 places of 5 channels; normalise none")
    with pytest.raises(NetError, match="no height and width that could be pooled"):
        FeatureNet(test_features.feature_set(pool="max"))


@pytest.mark.parametrize(
    ("shape", "last", "dim"),
    [((7, 7, 64), True, 64), ((64, 7, 7), True, 64), ((64, 7, 7), False, 64), ((6, 5, 9), False, 6)],
)
def test_channels_are_found_in_either_layout(shape: tuple[int, int, int], last: bool, dim: int) -> None:
    assert Pooling("max", "b", shape, (224, 224), last=last).dim == dim


def test_a_net_of_free_axes_is_fed_in_the_layout_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    free = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list("nabc")) for name in ("x", "map")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["map"])], "free", free[:1], free[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    how = {"preset": "unit", "size": [4, 6]}
    first, other = (FeatureNet(feature_set(path, preprocess={**how, "layout": name})) for name in ("auto", "nhwc"))
    images = np.random.default_rng(0).uniform(0, 1, (1, 3, 4, 6)).astype(np.float32)
    assert "NHWC" in other.preprocessing
    np.testing.assert_allclose(
        other.forward(images).reshape(4, 6, 3).transpose(2, 0, 1), first.forward(images).reshape(3, 4, 6), rtol=1e-6
    )
    assert first.fingerprint != other.fingerprint


def test_the_library_takes_presets_and_prepares_images(tmp_path: Path) -> None:
    path, picture = spatial(tmp_path / "m.onnx"), encoded(photo(300, 200), "PNG")
    found = hathi.features([picture], net=path, preprocess="clip", pool="mean", normalise="none")
    assert found.preprocessing.startswith("clip: short side to 224 (bicubic), centre 224 x 224")
    (one,) = found
    net = hathi.load_net(path, preprocess="clip")
    image = net.prepare(picture)
    assert isinstance(image, np.ndarray)
    assert image.shape == (3, 224, 224)
    assert one.vector is not None
    np.testing.assert_allclose(net.forward({"image": image[None]})["map"].mean((2, 3))[0], one.vector, rtol=1e-4)
    assert isinstance(net.prepare(b"no image"), hathi.Failure)
    with pytest.raises(hathi.Error, match="nothing says how images are prepared"):
        hathi.load_net(path).prepare(picture)
    with pytest.raises(hathi.Error, match="nothing says how images are prepared"):
        hathi.features([picture], net=path)
    with pytest.raises(hathi.Error, match="clop"):
        hathi.load_net(path, preprocess="clop")
    last = hathi.load_net(GOLDEN / "onnx" / "resnet_bytes_last_opset13.onnx", preprocess="none")
    prepared = last.prepare(picture)
    assert isinstance(prepared, np.ndarray)
    assert prepared.shape == (32, 32, 3)
