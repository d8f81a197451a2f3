"""Backbones of today, exported by torch in many forms (tests/golden/onnx/make.py), against what torch gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline import nets
from pipeline.nets.features import FeatureNet
from pipeline.nets.onnx import inspection as onnx_inspection
from pipeline.nets.onnx.net import OnnxNet
from tests.unit.nets.test_features import feature_set
from tests.unit.nets.test_golden import distance
from tests.unit.nets.test_net_command import run

FOLDER = Path(__file__).parents[2] / "golden" / "onnx"
NAMES = sorted(path.stem for path in FOLDER.glob("*.onnx"))
ENGINES = ("openvino", "onnxruntime")


def golden(name: str) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    with np.load(FOLDER / f"{name}.npz") as file:
        return file["image"], file["feature"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_gives_what_torch_gives(name: str, engine: str) -> None:
    image, want = golden(name)
    net = nets.load(FOLDER / f"{name}.onnx", engine=engine)
    assert net.outputs == ("feature",)
    assert distance(net.forward({"image": image})["feature"], want) < 1e-5
    assert distance(net.forward({"image": image[:3]})["feature"], want[:3]) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_backbones_features_need_no_more_than_its_name(name: str) -> None:
    image, want = golden(name)
    net = FeatureNet(feature_set(FOLDER / f"{name}.onnx", None, "feature", normalise="none", batch_size=3))
    assert (net.input_size, net.dim) == ((32, 32), want.shape[1])
    planes = image.transpose(0, 3, 1, 2) if image.shape[-1] == 3 else image
    rows = net.forward(planes)
    assert distance(rows, want) < 1e-5
    np.testing.assert_array_equal(net.forward(planes[1:2])[0], rows[1])
    assert len(net.fingerprint) == 64


def test_whole_numbers_are_rounded_and_held_to_their_range() -> None:
    net = nets.load(FOLDER / "resnet_bytes_last_opset13.onnx", engine="onnxruntime")
    image = golden("resnet_bytes_last_opset13")[0]
    exact = net.forward({"image": image})["feature"]
    near = image.astype(np.float32) + np.float32(0.4) * np.where(image == 0, -1000, 1).astype(np.float32)
    np.testing.assert_array_equal(net.forward({"image": near})["feature"], exact)


@pytest.mark.parametrize("name", ["vit_opset14_of_4", "vit_opset18_outside"])
def test_multiply_adds_are_those_of_one_image_whatever_the_batch(name: str) -> None:
    """17 places (one is the class), 32 wide, 2 blocks of 4 heads; 16 patches of 3 x 8 x 8."""
    net = nets.load(FOLDER / f"{name}.onnx")
    assert isinstance(net, OnnxNet)
    rows = onnx_inspection.layers(net, ["feature"])
    block = 17 * 12 * 32 * 32 + 2 * 17 * 17 * 32
    assert sum(row.multiply_adds or 0 for row in rows) == 2 * block + 16 * 32 * 3 * 8 * 8


def test_a_cost_that_cannot_be_known_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    path = FOLDER / "dinov2_opset17_half.onnx"  # it resizes its places to the image's size
    net = nets.load(path)
    assert isinstance(net, OnnxNet)
    assert None in {row.multiply_adds for row in onnx_inspection.layers(net, ["feature"])}
    assert run("show", path) == 0
    assert "at least" in capsys.readouterr().out


def test_what_a_branch_takes_from_around_it_is_needed_too(tmp_path: Path) -> None:
    """An If's inputs are only its condition; what its graphs read of the net is no input of it."""

    def branch(kind: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(kind, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(kind, ["image"], [kind])], kind, [], [out])

    nodes = [
        helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0),
        helper.make_node("Greater", ["limit", "top"], ["low"]),
        helper.make_node("If", ["low"], ["feature"], then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    graph = helper.make_graph(
        nodes, "branching", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor("limit", TensorProto.FLOAT, [], [0.5])],
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    net = nets.load(path, engine="onnxruntime")
    assert net.inputs_of("feature") == ["image"]
    x = np.full((2, 3, 4, 4), 0.25, np.float32)
    np.testing.assert_array_equal(net.forward({"image": -x})["feature"], 0 * x)
    np.testing.assert_array_equal(net.forward({"image": 4 * x})["feature"], -4 * x)
    first = net.fingerprint("feature", {})
    model = onnx.load(path)
    model.graph.initializer[0].float_data[0] = 0.75
    onnx.save(model, tmp_path / "o.onnx")
    assert nets.load(tmp_path / "o.onnx", engine="onnxruntime").fingerprint("feature", {}) != first
