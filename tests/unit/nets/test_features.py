"""Features: rows that do not depend on their neighbours, and fingerprints that change when features do."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline import nets
from pipeline.clock import Clock
from pipeline.errors import ConfigError, NetError
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.images import Preparation
from pipeline.nets.expected import expected
from pipeline.nets.features import FeatureNet, finite, normalised
from pipeline.nets.fingerprint import deciding
from pipeline.settings import FeatureSet, Preprocess, Settings
from tests.golden import bignets

TINY = Path(__file__).parents[2] / "golden" / "tiny"
ALEX, ALEX_WEIGHTS = TINY / "mini_alexnet.prototxt", TINY / "mini_alexnet.caffemodel"


def feature_set(net: Path = ALEX, weights: Path | None = ALEX_WEIGHTS, blob: str = "fc6", **more: object) -> FeatureSet:
    values = {"net": str(net), "weights": str(weights) if weights else None, "blob": blob, "root": "r", "batch_size": 4}
    if str(net).endswith(".onnx"):
        values["preprocess"] = {"preset": "caffe"}
    return FeatureSet.model_validate({**values, **more})


def images(count: int, net: FeatureNet, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(scale=50, size=(count, 3, *net.input_size)).astype(np.float32)


def test_rows_are_the_blob_normalised() -> None:
    net = FeatureNet(feature_set())
    x = images(4, net)
    blob = nets.load(ALEX, ALEX_WEIGHTS).forward({"data": x}, ["fc6"])["fc6"]
    got = net.forward(x)
    assert got.shape == (4, net.dim)
    np.testing.assert_allclose(got, blob / np.linalg.norm(blob, axis=1, keepdims=True), rtol=1e-5, atol=1e-7)
    plain = FeatureNet(feature_set(normalise="none"))
    np.testing.assert_array_equal(plain.forward(x), blob)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 9])
def test_any_number_of_images_gives_as_many_rows(count: int) -> None:
    net = FeatureNet(feature_set())
    assert net.forward(images(count, net)).shape == (count, net.dim)


@pytest.mark.parametrize("name", ["caffenet", "googlenet", "resnet50"])
def test_a_rows_bits_do_not_depend_on_its_neighbours_or_its_place(name: str) -> None:
    blob = {"caffenet": "fc7", "googlenet": "pool5/7x7_s1", "resnet50": "pool5"}[name]
    net = FeatureNet(feature_set(bignets.prototxt(name), bignets.weights(name), blob, batch_size=8))
    x = bignets.images(name)
    whole = net.forward(x)
    np.testing.assert_array_equal(net.forward(x[2:3])[0], whole[2])
    np.testing.assert_array_equal(
        net.forward(np.concatenate([x[::-1], x]))[[3, 2, 1, 0, 4, 5, 6, 7]], np.tile(whole, (2, 1))
    )


def test_bytes_and_floats_give_the_same_row() -> None:
    net = FeatureNet(feature_set())
    x = np.random.default_rng(0).integers(0, 256, (2, 3, *net.input_size), np.uint8)
    np.testing.assert_array_equal(net.forward(x), net.forward(x.astype(np.float32)))


def test_a_row_that_is_not_finite_is_found_and_spares_the_others() -> None:
    net = FeatureNet(feature_set(TINY / "innerproduct.prototxt", TINY / "innerproduct.caffemodel", "a1"))
    x = images(3, net)
    good = net.forward(x)
    x[1, 0, 3, 3] = np.inf
    got = net.forward(x)
    assert finite(got).tolist() == [True, False, True]
    np.testing.assert_array_equal(got[[0, 2]], good[[0, 2]])


def test_a_zero_row_stays_zero_and_large_ones_do_not_overflow() -> None:
    rows = np.array([[0, 0], [3e38, 3e38], [1e-30, 0]], np.float32)
    np.testing.assert_allclose(normalised(rows), [[0, 0], [0.5**0.5, 0.5**0.5], [1, 0]], rtol=1e-6)


def test_an_image_of_another_size_is_refused() -> None:
    net = FeatureNet(feature_set())
    with pytest.raises(NetError, match="images have the shape"):
        net.forward(np.zeros((1, 3, 7, 7), np.float32))


@pytest.mark.parametrize(
    ("net", "blob", "says"),
    [("mini_alexnet", "fc66", "no blob 'fc66'"), ("tile_reduce", "rs", "no row for each image"),
     ("eltwise", "sum", "depends on 2 inputs")],
)  # fmt: skip
def test_a_blob_that_is_no_feature_is_refused(net: str, blob: str, says: str) -> None:
    weights = TINY / f"{net}.caffemodel"
    with pytest.raises(NetError, match=says):
        FeatureNet(feature_set(TINY / f"{net}.prototxt", weights if weights.exists() else None, blob))


def test_a_net_is_fed_another_size_when_the_settings_say_so() -> None:
    net = FeatureNet(feature_set(blob="pool1", input_size=[51, 43]))
    assert net.input_size == (51, 43)
    assert net.forward(images(1, net)).shape == (1, net.dim)
    with pytest.raises(NetError, match="fc6"):
        FeatureNet(feature_set(blob="fc6", input_size=[67, 67]))


# ---- fingerprints


def fingerprint(**more: object) -> str:
    return FeatureNet(feature_set(**more)).fingerprint  # type: ignore[arg-type]


def test_a_fingerprint_is_64_hex_digits_and_the_same_in_each_run() -> None:
    first = fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert fingerprint() == first
    assert fingerprint(batch_size=7, root="other", formats=["text"], engine="onnxruntime") == first


def test_names_comments_and_layers_that_do_not_matter_leave_it_as_it_is(tmp_path: Path) -> None:
    first = fingerprint()
    text = ALEX.read_text()
    same = {
        "comments": "# hello\n" + text.replace("\n", "  # there\n"),
        "net's name": text.replace('name: "mini_alexnet"', 'name: "other"'),
        "defaults written out": text.replace("relu_param", "relu_param").replace(
            'type: "ReLU"', 'type: "ReLU" relu_param { negative_slope: 0 engine: CAFFE }'
        ),
        "tail cut off": text[: text.index('layer { name: "fc7"')] if '"fc7"' in text else text,
        "another head": text + 'layer { name: "more" type: "TanH" bottom: "conv1" top: "more" }\n',
        "dropout ratio": text.replace("dropout_ratio: 0.5", "dropout_ratio: 0.1"),
        "batch": text.replace("dim: 2 dim: 3", "dim: 9 dim: 3"),
    }
    same.pop("another head")  # a second reader of conv1 would not be allowed beside the in-place ReLU
    for what, changed in same.items():
        path = tmp_path / f"{what}.prototxt"
        path.write_text(changed)
        copied = tmp_path / "renamed.caffemodel"
        copied.write_bytes(ALEX_WEIGHTS.read_bytes())
        assert fingerprint(net=path, weights=copied) == first, what


@pytest.mark.parametrize(("name", "blob"), [("v1_layers", "fc"), ("v0_layers", "fc"), ("legacy_input_dim", "c")])
def test_an_old_form_and_the_same_net_in_todays_have_one_fingerprint(name: str, blob: str, tmp_path: Path) -> None:
    from google.protobuf import text_format

    from pipeline.nets.caffe import prototxt, upgrade

    old, weights = TINY / f"{name}.prototxt", TINY / f"{name}.caffemodel"
    new = tmp_path / "new.prototxt"
    new.write_text(text_format.MessageToString(upgrade.upgrade(prototxt.read(old), print)))
    assert fingerprint(net=old, weights=weights, blob=blob) == fingerprint(net=new, weights=weights, blob=blob)


def test_the_order_of_layers_and_blob_names_leave_it_as_they_are(tmp_path: Path) -> None:
    head = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }\n'
    a = 'layer { name: "a" type: "TanH" bottom: "data" top: "%s" }\n'
    b = 'layer { name: "b" type: "Sigmoid" bottom: "data" top: "b" }\n'
    end = 'layer { name: "e" type: "Eltwise" bottom: "%s" bottom: "b" top: "%s" }\n'
    one, two = tmp_path / "one.prototxt", tmp_path / "two.prototxt"
    one.write_text(head + a % "a" + b + end % ("a", "e"))
    two.write_text(head + b + a % "x" + end % ("x", "y"))
    assert fingerprint(net=one, weights=None, blob="e") == fingerprint(net=two, weights=None, blob="y")


def test_whatever_decides_the_feature_changes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {"first": fingerprint(), "blob": fingerprint(blob="pool1"), "l2": fingerprint(normalise="none")}
    for name, value in (("resize", "crop"), ("channel_order", "rgb"), ("raw_scale", 1.0), ("mean", [104, 117, 124]),
                        ("std", [1, 1, 2]), ("input_scale", 0.5), ("reduced_decode", False)):  # fmt: skip
        seen[name] = fingerprint(preprocess={name: value})
    seen["resize_to"] = fingerprint(preprocess={"resize": "crop", "resize_to": 300})
    changed = bytearray(ALEX_WEIGHTS.read_bytes())
    changed[changed.find(b"\x2a") + 40] ^= 1
    (tmp_path / "w.caffemodel").write_bytes(changed)
    seen["weights"] = fingerprint(weights=tmp_path / "w.caffemodel")
    text = ALEX.read_text()
    for old, new in (("negative", "negative"), ("pool: MAX", "pool: AVE"), ("local_size: 5", "local_size: 3")):
        if old != new and old in text:
            (tmp_path / "n.prototxt").write_text(text.replace(old, new))
            seen[new] = fingerprint(net=tmp_path / "n.prototxt")
    monkeypatch.setattr("pipeline.nets.fingerprint.DECODE_POLICY", "another")
    seen["policy"] = fingerprint()
    assert len(set(seen.values())) == len(seen), seen


def test_resize_to_counts_only_where_it_is_used() -> None:
    assert fingerprint(preprocess={"resize_to": 300}) == fingerprint()
    assert fingerprint(preprocess={"std": [1.0]}) == fingerprint()


def test_a_mean_in_a_file_counts_by_its_values(tmp_path: Path) -> None:
    np.save(tmp_path / "mean.npy", np.array([104, 117, 123], np.float32))
    assert fingerprint(preprocess={"mean": str(tmp_path / "mean.npy")}) == fingerprint()


# ---- HOG


def test_hog_is_opencvs() -> None:
    with np.load(Path(__file__).parents[2] / "golden" / "hog.npz") as file:
        golden = {key: file[key] for key in file.files}
    for case in range(3):
        image, want = golden[f"image{case}"], golden[f"hog{case}"]
        chosen = feature_set(Path("/somewhere/hog"), None, "hog", input_size=list(image.shape[:2]), normalise="none")
        net = FeatureNet(chosen)
        got = net.forward(Preparation(net.preprocess, net.input_size).prepare(image)[None])[0]
        np.testing.assert_allclose(got, want, atol=5e-4)
    assert FeatureNet(feature_set(Path("hog"), None, "hog")).dim == 3780


@pytest.mark.parametrize(
    "how",
    [
        {"mean": [0.0]},
        {"std": [58.0, 57.0, 59.0], "input_scale": 0.017},
        {"channel_order": "rgb", "raw_scale": 1.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ],
)
def test_hog_is_prepared_as_pixels_whatever_a_set_says_of_means_and_scales(how: dict[str, object]) -> None:
    chosen = feature_set(Path("hog"), None, "hog", normalise="none", preprocess={**how, "resize": "crop"})
    net = FeatureNet(chosen)
    image = np.random.default_rng(5).integers(0, 256, (300, 211, 3), np.uint8)
    prepared = Preparation(net.preprocess, net.input_size).prepare(image)
    pixels = Preparation(Preprocess(resize="crop", mean=[0.0]), net.input_size).prepare(image)
    np.testing.assert_array_equal(prepared, pixels)
    assert net.preprocess.resize == "crop"
    alone = nets.load("hog").forward({"data": pixels[None]})["hog"]
    assert net.forward(prepared[None]).tobytes() == alone.tobytes()
    content = cv2.imencode(".png", image)[1].tobytes()
    settings = Settings.model_validate({"bucket": {"url": "file:///x"}, "sets": {"demo": chosen}})
    np.testing.assert_array_equal(FeatureMaker(settings, "demo", Clock()).prepare(content), pixels)


def test_a_net_takes_images_as_its_set_says_where_it_wants_nothing_else() -> None:
    chosen = feature_set(preprocess={"channel_order": "rgb", "mean": [1.0, 2.0, 3.0]})
    assert FeatureNet(chosen).preprocess == chosen.preprocess


def test_hog_needs_sides_that_are_multiples_of_a_cell_and_no_mean_image() -> None:
    with pytest.raises(NetError, match="HOG takes no images of 100 x 64"):
        FeatureNet(feature_set(Path("hog"), None, "hog", input_size=[100, 64]))
    with pytest.raises(ConfigError, match="no mean image"):
        FeatureNet(feature_set(Path("hog"), None, "hog", preprocess={"mean": "mean.npy"}))


def test_a_host_without_an_engine_knows_the_fingerprint_that_a_box_will_have(tmp_path: Path) -> None:
    """Of a prototxt, an ONNX model in either layout, HOG; with a mean in a file, with another size."""
    np.save(tmp_path / "mean.npy", np.arange(3 * 4, dtype=np.float32).reshape(3, 2, 2))
    models = TINY.parent / "onnx"
    sets = [
        feature_set(),
        feature_set(blob="pool1", input_size=[51, 43]),
        feature_set(preprocess={"mean": str(tmp_path / "mean.npy"), "channel_order": "rgb"}, normalise="none"),
        feature_set("hog", None, "hog"),  # type: ignore[arg-type]
        feature_set(dependent_rows="alone"),
        feature_set(models / "resnet_opset11.onnx", None, "feature"),
        feature_set(models / "resnet_bytes_last_opset13.onnx", None, "feature"),
    ]
    assert [expected(one) for one in sets] == [FeatureNet(one).fingerprint for one in sets]
    assert len({expected(one) for one in sets}) == len(sets)


def test_a_host_without_the_files_knows_no_fingerprint(tmp_path: Path) -> None:
    for broken in (
        feature_set(net=tmp_path / "none.prototxt"),
        feature_set(weights=None),
        feature_set(blob="no_such"),
        feature_set(preprocess={"mean": str(tmp_path / "none.npy")}),
    ):
        with pytest.raises((NetError, ConfigError)):
            expected(broken)


def test_settings_that_mean_the_same_are_spelt_in_one_way() -> None:
    one = deciding(feature_set(preprocess={"mean": [128], "std": [2], "resize_to": 300}, engine="torch", batch_size=3))
    other = deciding(feature_set(preprocess={"mean": [128, 128, 128], "std": [2, 2, 2]}, root="elsewhere"))
    assert one == other
    assert one != deciding(feature_set(preprocess={"mean": [128], "std": [2], "channel_order": "rgb"}))
