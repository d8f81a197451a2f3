"""What Caffe refuses is refused, with the layer and the reason; what it accepts and computes wrongly too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import nets
from pipeline.errors import NetError

GOLDEN = Path(__file__).parents[2] / "golden"
REFUSED = json.loads((GOLDEN / "refused.json").read_text())

# What a message must hold: the layer (or place) and what is wrong.
SAYS = {
    "unknown_type": ("'u'", "Upsample", "known types: AbsVal"),
    "unknown_bottom": ("'nope'", "layer 'r'", "bottom index 0"),
    "dup_top": ("'x'", "multiple sources", "layer 'b'"),
    "pool_pad_ge_kernel": ("'p'", "pad 2", "kernel 2"),
    "pool_kernel_too_big": ("'p'", "20 x 20", "16 x 16"),
    "pool_no_kernel": ("'p'", "kernel_size OR kernel_h and kernel_w; not both"),
    "lrn_even": ("'n'", "odd", "4"),
    "conv_group_indivisible": ("'c'", "3 channels", "2 groups"),
    "conv_num_output_0": ("'c'", "num_output"),
    "conv_kernel_too_big": ("'c'", "19", "16"),
    "concat_mismatch": ("'c'", "1 3 4 4 (48)", "1 3 5 4 (60)"),
    "eltwise_mismatch": ("'c'", "bottom[0]: 1 3 4 4 (48), bottom[1]: 1 2 4 4 (32)"),
    "eltwise_coeff_count": ("'c'", "one coefficient per bottom blob"),
    "eltwise_prod_coeff": ("'c'", "only takes coefficients for summation"),
    "slice_indivisible": ("'s'", "2 tops", "(3)"),
    "reshape_bad": ("'r'", "14", "1536"),
    "crop_too_small": ("'c'", "dimension 2", "size 5", "offset 0"),
    "unknown_field": ("2:56", "LayerParameter", "relu6_param", "relu_param"),
    "legacy_and_new": ("3 input_dim", "1 inputs"),
    "syntax": ("1:25", "xpected string"),
    "pool_inplace": ("'p'", "in place", "'data'"),
    "conv_inplace": ("'c'", "in place", "'data'"),
}


def refusal(prototxt: str, folder: Path, weights: Path | None = None) -> str:
    path = folder / "net.prototxt"
    path.write_text(prototxt)
    with pytest.raises(NetError) as caught:
        nets.load(path, weights)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(name for name, case in REFUSED.items() if case["prototxt"]))
def test_a_net_that_caffe_refuses_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    says = refusal(REFUSED[name]["prototxt"], tmp_path)
    for part in SAYS[name]:
        assert part in says


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path: Path) -> None:
    text = (GOLDEN / "tiny" / "double_blobs.prototxt").read_text().replace("num_output: 4", "num_output: 5")
    says = refusal(text, tmp_path, GOLDEN / "tiny" / "double_blobs.caffemodel")
    assert "'c'" in says
    assert "4 3 3 3 (108)" in says
    assert "5 3 3 3 (135)" in says


def test_weights_with_another_number_of_blobs_are_refused(tmp_path: Path) -> None:
    text = (
        (GOLDEN / "tiny" / "double_blobs.prototxt")
        .read_text()
        .replace("num_output: 4", "num_output: 4 bias_term: false")
    )
    says = refusal(text, tmp_path, GOLDEN / "tiny" / "double_blobs.caffemodel")
    assert "'c'" in says
    assert "the weights hold 2, the net has 1" in says


DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }\n'


def layer(kind: str, top: str, body: str = "", bottom: str = "data", more: str = "") -> str:
    return f'layer {{ name: "{top}_{kind}" type: "{kind}" bottom: "{bottom}" {more} top: "{top}" {body} }}\n'


@pytest.mark.parametrize(
    "text",
    [
        layer("Eltwise", "data", "eltwise_param { operation: SUM }", more='bottom: "b"'),
        layer("Eltwise", "data", "eltwise_param { operation: MAX }", more='bottom: "b"'),
        layer("LRN", "data"),
        layer("Tile", "data", "tile_param { tiles: 1 }"),
        layer("InnerProduct", "data", "inner_product_param { num_output: 8 axis: -1 }"),
        layer("Flatten", "data"),
        layer("Reshape", "data", "reshape_param { shape { dim: 0 } num_axes: 1 }"),
    ],
)
def test_a_layer_that_caffe_computes_wrongly_in_place_is_refused(text: str, tmp_path: Path) -> None:
    says = refusal(DATA + DATA.replace('"data"', '"b"') + text, tmp_path)
    assert "in place" in says
    assert "'data'" in says


def test_layers_that_caffe_computes_rightly_in_place_run(tmp_path: Path) -> None:
    text = DATA + DATA.replace('"data"', '"b"')
    text += layer("Eltwise", "data", "eltwise_param { operation: PROD }", more='bottom: "b"')
    text += layer("LRN", "data", "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 }")
    text += layer("Softmax", "data") + layer("MVN", "data") + layer("Power", "data", "power_param { scale: 2 }")
    (tmp_path / "net.prototxt").write_text(text)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    got = nets.load(tmp_path / "net.prototxt").forward({"data": x, "b": x})["data"]
    y = x * x
    within = np.stack([np.pad(y * y, ((0, 0), (0, 0), (1, 1), (1, 1)))[:, :, i : i + 8, j : j + 8]
                       for i in range(3) for j in range(3)]).mean(0)  # fmt: skip
    y = y * (1 + within) ** -0.75
    y = np.exp(y - y.max(1, keepdims=True))
    y /= y.sum(1, keepdims=True)
    y = y - y.mean((2, 3), keepdims=True)
    y = 2 * y / (y.std((2, 3), keepdims=True) + 1e-9)
    np.testing.assert_allclose(got, y, atol=1e-4)


def test_a_reader_of_what_an_in_place_layer_overwrites_is_refused_as_caffes_splits_do(tmp_path: Path) -> None:
    text = DATA + layer("Convolution", "x", "convolution_param { num_output: 2 kernel_size: 3 }")
    says = refusal(text + layer("Sigmoid", "early", bottom="x") + layer("ReLU", "x", bottom="x"), tmp_path)
    assert "'x' is produced by multiple sources" in says
    assert "layer 'x_ReLU'" in says


def test_an_in_place_layer_on_a_view_changes_the_blob_that_it_shares(tmp_path: Path) -> None:
    """Flatten shares its bottom's memory in Caffe: a ReLU in place on the flat blob shows in the other too."""
    text = DATA + layer("Power", "x", "power_param { scale: -1 }") + layer("Flatten", "f", bottom="x")
    text += layer("ReLU", "f", bottom="f")
    (tmp_path / "net.prototxt").write_text(text)
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    got = nets.load(tmp_path / "net.prototxt").forward({"data": x}, ["x", "f"])
    np.testing.assert_array_equal(got["x"], np.maximum(-x, 0))
    np.testing.assert_array_equal(got["f"], np.maximum(-x, 0).reshape(2, -1))


def test_a_blob_that_the_net_does_not_have_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NetError) as caught:
        nets.load(GOLDEN / "tiny" / "mini_alexnet.prototxt", blobs=["fc66"])
    assert "no blob 'fc66'" in caught.value.message
    assert "it has: data, conv1" in caught.value.detail
    assert "near names: fc6" in caught.value.hint


@pytest.mark.parametrize("shape", [(2, 3, 16), (2, 4, 31, 31), (0, 3, 31, 31)])
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    net = nets.load(GOLDEN / "tiny" / "mini_alexnet.prototxt", GOLDEN / "tiny" / "mini_alexnet.caffemodel")
    with pytest.raises(NetError):
        net.forward({"data": np.zeros(shape, np.float32)})


def test_a_batch_of_none_is_said_to_hold_nothing() -> None:
    net = nets.load(GOLDEN / "tiny" / "mini_alexnet.prototxt", GOLDEN / "tiny" / "mini_alexnet.caffemodel")
    with pytest.raises(NetError, match="input 'data' holds no values"):
        net.forward({"data": np.zeros((0, 3, 35, 35), np.float32)})


def test_a_missing_and_an_unknown_feed_are_named() -> None:
    net = nets.load(GOLDEN / "tiny" / "mini_siamese.prototxt", GOLDEN / "tiny" / "mini_siamese.caffemodel")
    x = np.zeros((2, 1, 14, 14), np.float32)
    with pytest.raises(NetError, match="input 'b' is not fed"):
        net.forward({"a": x})
    with pytest.raises(NetError, match="no input 'c'"):
        net.forward({"a": x, "b": x, "c": x})
    assert set(net.forward({"a": x}, ["feat"])) == {"feat"}  # what feat_p needs is not asked for


@pytest.mark.parametrize("missing", ["net", "weights"])
def test_a_missing_file_is_named(missing: str, tmp_path: Path) -> None:
    good = GOLDEN / "tiny" / "mini_alexnet.prototxt"
    paths = (tmp_path / "no.prototxt", None) if missing == "net" else (good, tmp_path / "no.caffemodel")
    with pytest.raises(NetError) as caught:
        nets.load(*paths)
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", [
    'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 60000 dim: 60000 } } }',
    DATA + layer("Convolution", "c", "convolution_param { num_output: 4000000000 kernel_size: 8 }"),
    DATA + layer("Tile", "c", "tile_param { tiles: 2000000000 }"),
    DATA + layer("InnerProduct", "c", "inner_product_param { num_output: 4000000000 }"),
    DATA + layer("DummyData", "c", "", bottom="data").replace(' bottom: "data"', "").replace(
        "}", "dummy_data_param { shape { dim: 4000000000 } } }"),
])  # fmt: skip
def test_a_blob_beyond_what_caffe_holds_is_refused_before_it_is_allocated(text: str, tmp_path: Path) -> None:
    assert "INT_MAX" in refusal(text, tmp_path)


@pytest.mark.parametrize("text", [
    DATA + layer("Pooling", "c", "pooling_param { kernel_size: 2147483648 pad: 1073741824 }"),
    DATA + layer("Convolution", "c", "convolution_param { num_output: 1 kernel_size: 1 pad: 2147483648 }"),
])  # fmt: skip
def test_padding_that_no_machine_holds_is_refused_before_an_engine_tries(text: str, tmp_path: Path) -> None:
    assert "INT_MAX" in refusal(text, tmp_path)


@pytest.mark.parametrize(
    "filler", ["type: 'gaussian' std: -1", "type: 'gaussian' std: 0", "type: 'uniform' min: 2 max: 1"]
)
def test_a_filler_whose_numbers_fit_no_distribution_is_refused_when_it_is_needed(filler: str, tmp_path: Path) -> None:
    text = DATA + layer(
        "Convolution", "c", f"convolution_param {{ num_output: 1 kernel_size: 1 weight_filler {{ {filler} }} }}"
    )
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    net = nets.load(path)
    with pytest.raises(NetError, match="filler of c_Convolution/0"):
        net.forward({name: np.zeros(shape, np.float32) for name, shape in net.inputs.items()})
