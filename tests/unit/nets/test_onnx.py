"""ONNX models as nets, and Caffe nets written as ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets.caffe_net import CaffeNet
from pipeline.nets.features import FeatureNet
from pipeline.nets.onnx.file import model_of
from tests.unit.nets.test_features import feature_set
from tests.unit.nets.test_golden import case, distance

ENGINES = ("openvino", "onnxruntime")
RNG = np.random.default_rng(3)
W = RNG.normal(size=(5, 3, 3, 3)).astype(np.float32)
M = RNG.normal(size=(5, 7)).astype(np.float32)


def write(
    path: Path, batch: int | str, size: int | str = 16, last: bool = False, kind: int = TensorProto.FLOAT
) -> Path:
    """Convolution, ReLU, mean over places, product: `feature` (batch, 7)."""
    shape = [batch, size, size, 3] if last else [batch, 3, size, size]
    half = kind == TensorProto.FLOAT16
    dtype = np.float16 if half else np.float32
    source, nodes = "image", []
    if last:
        nodes.append(helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
        source = "planes"
    nodes += [
        helper.make_node("Conv", [source, "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["feature"]),
    ]
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("feature", kind, [batch, 7])],
        [numpy_helper.from_array(W.astype(dtype), "w"), numpy_helper.from_array(M.astype(dtype), "m")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def want(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3)).astype(np.float64)
    conv = np.einsum("nchwij,ocij->nohw", windows, W)
    return np.maximum(conv, 0).mean((2, 3)) @ M


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_a_model_of_fixed_or_free_batch_takes_any_number_of_images(
    batch: int | str, engine: str, tmp_path: Path
) -> None:
    net = nets.load(write(tmp_path / "m.onnx", batch), engine=engine)
    for count in (1, 3, 6):
        x = RNG.normal(size=(count, 3, 16, 16)).astype(np.float32)
        got = net.forward({"image": x})["feature"]
        np.testing.assert_allclose(got, want(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_inner_value_can_be_the_feature(engine: str, tmp_path: Path) -> None:
    net = nets.load(write(tmp_path / "m.onnx", "n"), engine=engine, blobs=["relu"])
    x = RNG.normal(size=(2, 3, 16, 16)).astype(np.float32)
    got = net.forward({"image": x}, ["relu", "feature"])
    assert got["relu"].shape == (2, 5, 14, 14)
    np.testing.assert_allclose(got["feature"], want(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_features_of_a_model_in_either_layout(last: bool, tmp_path: Path) -> None:
    net = FeatureNet(feature_set(write(tmp_path / "m.onnx", "n", last=last), None, "feature", normalise="none"))
    assert (net.input_size, net.dim) == ((16, 16), 7)
    x = RNG.normal(size=(3, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(net.forward(x), want(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_half_precision_model_is_fed_and_answers_in_float32(engine: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", "n", kind=TensorProto.FLOAT16)
    x = RNG.normal(size=(2, 3, 16, 16)).astype(np.float32)
    got = nets.load(path, engine=engine).forward({"image": x})["feature"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want(x), rtol=2e-2, atol=2e-2)


def test_a_model_of_free_size_needs_one_in_the_settings(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", "n", size="side")
    with pytest.raises(NetError, match="images of any size"):
        FeatureNet(feature_set(path, None, "feature"))
    assert FeatureNet(feature_set(path, None, "feature", input_size=[20, 18])).dim == 7


def test_a_bad_model_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", "n")
    with pytest.raises(NetError, match="no blob 'featur'"):
        nets.load(path, blobs=["featur"])
    with pytest.raises(NetError, match="takes no weights"):
        nets.load(path, tmp_path / "w")
    with pytest.raises(NetError, match="cannot be read"):
        nets.load(tmp_path / "absent.onnx")
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(NetError, match="truncated, or is not ONNX"):
        nets.load(path)


def test_the_fingerprint_of_a_model_is_of_what_it_computes(tmp_path: Path) -> None:
    def of(path: Path, blob: str = "feature") -> str:
        return FeatureNet(feature_set(path, None, blob)).fingerprint

    path = write(tmp_path / "m.onnx", "n")
    first = of(path)
    model = onnx.load(path)
    model.producer_name, model.graph.name, model.doc_string = "x", "y", "z"
    for node in model.graph.node:
        node.name = "renamed" + node.output[0]
    onnx.save(model, tmp_path / "same.onnx")
    assert of(tmp_path / "same.onnx") == first
    outside = tmp_path / "outside.onnx"
    onnx.save(onnx.load(path), outside, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert of(outside) == first
    assert of(path, "flat") != first
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(M + 1, "m"))
    onnx.save(model, tmp_path / "other.onnx")
    assert of(tmp_path / "other.onnx") != first


@pytest.mark.parametrize("name", ["mini_resnet", "mini_googlenet", "mini_fcn", "recurrent", "spp"])
def test_a_caffe_net_written_as_onnx_computes_the_same(name: str, tmp_path: Path) -> None:
    prototxt, weights, feeds, blobs = case(name)
    net = nets.load(prototxt, weights)
    assert isinstance(net, CaffeNet)
    model = model_of(net.lower(list(blobs)))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "m.onnx")
    got = nets.load(tmp_path / "m.onnx", engine="onnxruntime")
    values = got.forward({f"in:{key}": value for key, value in feeds.items()}, [f"out:{blob}" for blob in blobs])
    assert max(distance(values[f"out:{blob}"], blobs[blob]) for blob in blobs) <= 1e-5
