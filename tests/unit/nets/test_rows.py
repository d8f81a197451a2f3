"""Nets whose rows are their images' own, and nets whose rows are not: told by the graph, or by a probe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets.features import FeatureNet
from pipeline.nets.onnx.source import OnnxSource
from pipeline.settings import FeatureSet

Node = tuple[str, str, str, dict[str, Any]]
GOLDEN = Path(__file__).parents[2] / "golden"
RANDOM = np.random.default_rng(3)
WEIGHTS: dict[str, np.ndarray[Any, Any]] = {
    "w": RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32),
    "m": RANDOM.normal(size=(192, 5)).astype(np.float32),
    "k": RANDOM.normal(size=(8, 8)).astype(np.float32),
    "one": np.ones(3, np.float32),
    "none": np.zeros(3, np.float32),
    "nil": np.zeros(3, np.float32),
    "two": np.full(3, 2, np.float32),
    "scale": np.float32(0.1),
    "rows": np.array([-1, 192], np.int64),
    "kept": np.array([0, -1], np.int64),
    "heads": np.array([0, 3, 2, 4, 8], np.int64),
    "joined": np.array([-1, 2, 4, 8], np.int64),
    "back": np.array([-1, 3, 8, 8], np.int64),
    "whole": np.array([1, -1], np.int64),
    "batch": np.array([0], np.int64),
    "places": np.array([2, 3], np.int64),
    "begin": np.array([0], np.int64),
    "end": np.array([2**62], np.int64),
    "first": np.array([1], np.int64),
    "minus": np.array([-1], np.int64),
    "step": np.array([1], np.int64),
    "zero": np.array(0, np.int64),
    "yes": np.array(True),
    "ratio": np.float32(0.5),
    "axis1": np.array([1], np.int64),
    "token": RANDOM.normal(size=(1, 1, 64)).astype(np.float32),
    "three": np.array([0, 3, 64], np.int64),
    "ones3": np.ones(3, np.int64),
}
BN = "x one none nil two"
OWN: dict[str, Sequence[Node]] = {
    "convolution and pooling": [("Conv", "x w", "a", {}), ("GlobalAveragePool", "a", "b", {}),
                                ("Flatten", "b", "y", {})],
    "normalisation by what is stored": [("BatchNormalization", BN, "a", {}), ("Flatten", "a", "y", {})],
    "a product with weights": [("Reshape", "x rows", "a", {}), ("MatMul", "a m", "y", {})],
    "normalisation of each item": [("LayerNormalization", "x k", "a", {"axis": -1}), ("Flatten", "a", "y", {})],
    "a softmax over channels": [("Softmax", "x", "a", {"axis": 1}), ("Flatten", "a", "y", {})],
    "statistics of places": [("ReduceMean", "x places", "a", {"keepdims": 1}), ("Sub", "x a", "b", {}),
                             ("Flatten", "b", "y", {})],
    "heads beside the batch": [("Reshape", "x heads", "a", {}), ("Reshape", "a joined", "b", {}),
                               ("Transpose", "b", "t", {"perm": [0, 1, 3, 2]}), ("MatMul", "b t", "c", {}),
                               ("Softmax", "c", "d", {"axis": -1}), ("MatMul", "d b", "e", {}),
                               ("Reshape", "e back", "f", {}), ("Flatten", "f", "y", {})],
    "words before the batch": [("Reshape", "x three", "a", {}), ("Transpose", "a", "b", {"perm": [1, 0, 2]}),
                               ("Shape", "b", "s", {}), ("Reshape", "b wide", "c", {}), ("MatMul", "c wk", "d", {}),
                               ("Reshape", "d s", "e", {}), ("Transpose", "e", "f", {"perm": [1, 0, 2]}),
                               ("Flatten", "f", "y", {})],
    "a token beside each": [("Reshape", "x three", "a", {}), ("Shape", "a", "s", {}),
                            ("Gather", "s begin", "n", {}), ("Concat", "n first first", "e", {"axis": 0}),
                            ("Expand", "token e", "t", {}), ("Concat", "t a", "c", {"axis": 1}),
                            ("Gather", "c zero", "y", {"axis": 1})],
    "an attention by letters": [("Reshape", "x three", "a", {}),
                                ("Einsum", "a a", "b", {"equation": "bnd,bmd->bnm"}), ("Flatten", "b", "y", {})],
    "dropout as in use": [("Dropout", "x ratio", "a", {}), ("Flatten", "a", "y", {})],
    "dropout by a constant of others": [("Identity", "no", "t", {}), ("Dropout", "x ratio t", "a", {}),
                                        ("Flatten", "a", "y", {})],
    "as many as all values": [("Size", "x", "s", {}), ("Cast", "s", "c", {"to": 1}), ("Div", "x c", "a", {}),
                              ("Flatten", "a", "y", {})],
    "a larger picture": [("Resize", "x  larger", "a", {"mode": "linear"}), ("GlobalAveragePool", "a", "b", {}),
                         ("Flatten", "b", "y", {})],
    "a slice of all of the batch": [("Slice", "x begin end batch step", "a", {}), ("Flatten", "a", "y", {})],
}  # fmt: skip
MIXED: dict[str, Sequence[Node]] = {
    "normalisation as in training": [("BatchNormalization", BN, "a u v", {"training_mode": 1}),
                                     ("Flatten", "a", "y", {})],
    "a mean over the batch": [("ReduceMean", "x batch", "a", {}), ("Sub", "x a", "b", {}), ("Flatten", "b", "y", {})],
    "the largest of all": [("ReduceMax", "x", "a", {}), ("Div", "x a", "b", {}), ("Flatten", "b", "y", {})],
    "a softmax over the batch": [("Softmax", "x", "a", {"axis": 0}), ("Flatten", "a", "y", {})],
    "normalisation with ONNX's own axes": [("MeanVarianceNormalization", "x", "a", {}), ("Flatten", "a", "y", {})],
    "the batch turned into channels": [("Transpose", "x", "a", {"perm": [1, 0, 2, 3]}), ("Reshape", "a rows", "y", {})],
    "products of rows": [("Flatten", "x", "a", {}), ("Transpose", "a", "t", {}), ("MatMul", "a t", "b", {}),
                         ("MatMul", "b a", "y", {})],
    "the first item taken from all": [("Gather", "x zero", "a", {"axis": 0}), ("Sub", "x a", "b", {}),
                                      ("Flatten", "b", "y", {})],
    "running sums": [("Flatten", "x", "a", {}), ("CumSum", "a zero", "y", {})],
    "attention across the batch": [("Flatten", "x", "a", {}), ("Unsqueeze", "a batch", "b", {}),
                                   ("Transpose", "b", "t", {"perm": [0, 2, 1]}), ("MatMul", "b t", "c", {}),
                                   ("Softmax", "c", "d", {"axis": -1}), ("MatMul", "d b", "e", {}),
                                   ("Squeeze", "e batch", "y", {})],
    "a scale of the whole batch": [("DynamicQuantizeLinear", "x", "q s z", {}), ("DequantizeLinear", "q s z", "a", {}),
                                   ("Flatten", "a", "y", {})],
    "the batch turned round": [("Slice", "x minus low batch minus", "a", {}), ("Flatten", "a", "y", {})],
    "the batch as steps in time": [("Reshape", "x three", "a", {}),
                                   ("LSTM", "a lw lr", "l", {"hidden_size": 4}), ("Flatten", "l", "y", {})],
    "a sum by letters": [("Flatten", "x", "a", {}), ("Einsum", "a a", "b", {"equation": "bi,bj->ij"}),
                         ("MatMul", "a b", "y", {})],
    "its place in the batch": [("Shape", "x", "s", {}), ("Gather", "s zero", "n", {}),
                               ("Range", "zero n onei", "r", {}),
                               ("Cast", "r", "f", {"to": 1}), ("Unsqueeze", "f axis1", "g", {}),
                               ("Flatten", "x", "a", {}), ("Add", "a g", "y", {})],
    "sorting the batch": [("Flatten", "x", "a", {}), ("Shape", "a", "s", {}), ("Slice", "s begin axis1 batch", "n", {}),
                          ("TopK", "a n", "y i", {"axis": 0})],
    "how many values are large": [("Greater", "x scale", "g", {}), ("NonZero", "g", "n", {}), ("Shape", "n", "s", {}),
                                  ("Cast", "s", "c", {"to": 1}), ("ReduceSum", "c", "r", {"keepdims": 0}),
                                  ("Mul", "x r", "a", {}), ("Flatten", "a", "y", {})],
    "how many values there are of each kind": [("Greater", "x scale", "g", {}), ("NonZero", "g", "n", {}),
                                               ("Size", "n", "s", {}), ("Cast", "s", "c", {"to": 1}),
                                               ("Mul", "x c", "a", {}), ("Flatten", "a", "y", {})],
    "one item in another's place": [("Split", "x", "a b", {"axis": 0, "num_outputs": 2}),
                                    ("Concat", "b a", "c", {"axis": 0}),
                                    ("Flatten", "c", "y", {})],
}  # fmt: skip
CHANCE: dict[str, Sequence[Node]] = {
    "noise": [("RandomNormalLike", "x", "a", {}), ("Add", "x a", "b", {}), ("Flatten", "b", "y", {})],
    "noise of its own shape": [("RandomUniform", "", "a", {"shape": [1, 3, 8, 8]}), ("Add", "x a", "b", {}),
                               ("Flatten", "b", "y", {})],
    "dropout as in training": [("Dropout", "x ratio yes", "a", {}), ("Flatten", "a", "y", {})],
    "a coin for each value": [("Sigmoid", "x", "p", {}), ("Bernoulli", "p", "a", {}), ("Flatten", "a", "y", {})],
    "noise behind a seed": [("RandomNormalLike", "x", "a", {"seed": 1.0}), ("Mul", "x a", "b", {}),
                            ("Flatten", "b", "y", {})],
}  # fmt: skip
UNTOLD_OWN: dict[str, Sequence[Node]] = {
    "the same numbers by another way": [("Flatten", "x", "a", {}), ("ScatterND", "a si su", "y", {})],
}  # fmt: skip
PROBED_OWN: dict[str, Sequence[Node]] = {
    "of each picture the line that it chooses": [
        ("Reshape", "x three", "a", {}), ("ReduceMax", "a minus", "h", {"keepdims": 0}),
        ("ArgMax", "h", "i", {"axis": 1, "keepdims": 0}), ("Shape", "a", "s", {}), ("Gather", "s zero", "n", {}),
        ("Range", "zero n onei", "r", {}), ("Unsqueeze", "r minus", "u", {}), ("Unsqueeze", "i minus", "v", {}),
        ("Concat", "u v", "c", {"axis": 1}), ("GatherND", "a c", "y", {})],
    "some of the channels": [("Compress", "x odd", "a", {"axis": 1}), ("GlobalMaxPool", "a", "b", {}),
                             ("Flatten", "b", "y", {})],
    "each picture and its mirror image": [("Slice", "x minus low side minus", "f", {}),
                                          ("Concat", "x f", "c", {"axis": 0}), ("Flatten", "c", "d", {}),
                                          ("MatMul", "d m", "e", {}),
                                          ("Split", "e", "p q", {"axis": 0, "num_outputs": 2}),
                                          ("Add", "p q", "y", {})],
    "each picture twice, and one of them": [("Tile", "x twice", "a", {}),
                                            ("Split", "a", "b c", {"axis": 0, "num_outputs": 2}),
                                            ("Flatten", "b", "y", {})],
}  # fmt: skip
PROBED_MIXED: dict[str, tuple[str, int, Sequence[Node]]] = {  # engine, opset
    "columns that differ from place to place": ("onnxruntime", 18, [
        ("Flatten", "x", "a", {}), ("GatherElements", "a columns", "y", {"axis": 1})]),
    "a batch that is scaled by less than one item": ("onnxruntime", 18, [
        ("Resize", "x  nearly", "a", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
                                      "nearest_mode": "floor"}), ("Flatten", "a", "y", {})]),
    "scales of blocks within each row": ("onnxruntime", 21, [
        ("Flatten", "x", "a", {}), ("QuantizeLinear", "a blocks", "q", {"axis": 1, "block_size": 96}),
        ("DequantizeLinear", "q blocks", "y", {"axis": 1, "block_size": 96})]),
    "a zero point for each row": ("openvino", 18, [
        ("Cast", "x", "u", {"to": 2}), ("Flatten", "u", "a", {}), ("MatMulInteger", "a bytes zeros", "b", {}),
        ("Cast", "b", "y", {"to": 1})]),
    "numbers beside the batch, as before opset 7": ("openvino", 6, [
        ("Flatten", "x", "a", {}), ("Add", "a six", "y", {"broadcast": 1, "axis": 0})]),
}  # fmt: skip
MORE: dict[str, np.ndarray[Any, Any]] = {
    "wide": np.array([-1, 64], np.int64), "wk": RANDOM.normal(size=(64, 64)).astype(np.float32),
    "low": np.array([-(2**62)], np.int64), "lw": RANDOM.normal(size=(1, 16, 64)).astype(np.float32),
    "lr": RANDOM.normal(size=(1, 16, 4)).astype(np.float32), "onei": np.array(1, np.int64),
    "no": np.array(False), "odd": np.array([True, False, True]), "larger": np.array([1, 1, 2, 2], np.float32),
    "nearly": np.array([1.1, 1, 2, 2], np.float32), "side": np.array([3], np.int64),
    "columns": np.arange(24).reshape(6, 4),
    "twice": np.array([2, 1, 1, 1], np.int64), "blocks": RANDOM.uniform(0.1, 1, (6, 2)).astype(np.float32),
    "bytes": np.ones((192, 4), np.uint8), "zeros": np.arange(6, dtype=np.uint8), "six": np.arange(6, dtype=np.float32),
    "si": np.array([[0]], np.int64), "su": np.zeros((1, 192), np.float32),
}  # fmt: skip


def write(path: Path, nodes: Sequence[Node], batch: int | str = "n", opset: int = 18) -> Path:
    made = [helper.make_node(kind, reads.split(" ") if reads else [], gives.split(), name=f"{kind}_{at}", **how)
            for at, (kind, reads, gives, how) in enumerate(nodes)]  # fmt: skip
    read = {name for node in made for name in node.input}
    weights = [numpy_helper.from_array(value, name) for name, value in {**WEIGHTS, **MORE}.items() if name in read]
    graph = helper.make_graph(
        made, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [onnx.ValueInfoProto(name="y")], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8 if opset < 21 else 10
    path.write_bytes(model.SerializeToString())
    return path


def feature_set(net: Path, engine: str = "onnxruntime", **more: Any) -> FeatureSet:
    return FeatureSet.model_validate(
        {"net": str(net), "blob": "y", "root": "r", "engine": engine, "batch_size": 6, "normalise": "none",
         "preprocess": {"preset": "caffe"}, **more}
    )  # fmt: skip


def verdict(path: Path, batch: int = 6) -> Any:
    return nets.load(path, engine="onnxruntime").rows("y", {"x": (batch, 3, 8, 8)})


@pytest.mark.parametrize("name", OWN)
def test_rows_that_are_their_images_own_are_told_by_the_graph_alone(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", OWN[name])
    assert verdict(path).kind == "own", verdict(path)
    net = FeatureNet(feature_set(path))
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(net.forward(images[3:4])[0], net.forward(images)[3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_depend_on_their_neighbours_are_refused_and_the_node_is_named(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MIXED[name])
    with pytest.raises(NetError, match=r"when other images are in its batch .*blob 'y'.*dependent_rows") as caught:
        FeatureNet(feature_set(path))
    assert "node '" in caught.value.detail
    # A batch of one has no neighbours, but the fingerprint of every other.
    with pytest.raises(NetError, match=r"when other images are in its batch|does not compute a batch of 1"):
        FeatureNet(feature_set(path, batch_size=1))


@pytest.mark.parametrize("name", sorted(set(MIXED) - {"one item in another's place"}))  # one image is not two
def test_a_row_that_is_computed_alone_is_the_same_whoever_else_is_there(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MIXED[name])
    engine = "openvino" if name == "normalisation as in training" else "onnxruntime"  # see the next test
    net = FeatureNet(feature_set(path, engine, dependent_rows="alone"))
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    by_itself = nets.load(path, engine=engine).forward({"x": images[3:4]}, ["y"])["y"].reshape(-1)
    np.testing.assert_array_equal(net.forward(images)[3], by_itself)
    np.testing.assert_array_equal(net.forward(images[3:4])[0], by_itself)


def test_a_net_that_keeps_something_for_the_next_pass_is_refused_always(tmp_path: Path) -> None:
    """ONNX Runtime writes the new statistics over the old ones, which here are the scale as well."""
    path = write(tmp_path / "m.onnx", [("BatchNormalization", "x one none none one", "a u v", {"training_mode": 1}),
                                       ("Flatten", "a", "y", {})])  # fmt: skip
    with pytest.raises(NetError, match="in each pass"):
        FeatureNet(feature_set(path, dependent_rows="alone"))
    assert FeatureNet(feature_set(path, "openvino", dependent_rows="alone")).dim == 192


@pytest.mark.parametrize("rows", ["refuse", "alone"])
@pytest.mark.parametrize("name", CHANCE)
def test_a_net_that_draws_random_numbers_is_refused_always(name: str, rows: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", CHANCE[name])
    with pytest.raises(NetError, match=r"in each pass .*node '.*draws random numbers"):
        FeatureNet(feature_set(path, dependent_rows=rows))


def test_chance_within_the_graphs_of_a_node_is_found(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("RandomNormalLike", ["x"], ["r"], name="dice")], "then", [], [onnx.ValueInfoProto(name="r")]
    )
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["s"])], "else", [], [onnx.ValueInfoProto(name="s")])
    path = write(tmp_path / "m.onnx", [("If", "yes", "a", {"then_branch": inner, "else_branch": other}),
                                       ("Flatten", "a", "y", {})])  # fmt: skip
    assert (verdict(path).kind, "'dice'" in verdict(path).why) == ("random", True)


@pytest.mark.parametrize("batch", [1, 6])
def test_what_the_graph_does_not_tell_a_probe_does(batch: int, tmp_path: Path) -> None:
    """A scatter over the first item makes it another; an If that hands on what it is given is harmless."""
    path = write(tmp_path / "mixed.onnx", UNTOLD_OWN["the same numbers by another way"])
    assert verdict(path).kind == "unknown"
    with pytest.raises(NetError, match=r"another feature at place .*ScatterND"):
        FeatureNet(feature_set(path, batch_size=batch))
    same = helper.make_graph([helper.make_node("Identity", ["x"], ["t"])], "a", [], [onnx.ValueInfoProto(name="t")])
    path = write(tmp_path / "own.onnx", [("If", "yes", "a", {"then_branch": same, "else_branch": same}),
                                         ("Flatten", "a", "y", {})])  # fmt: skip
    assert verdict(path).kind == "unknown"
    assert FeatureNet(feature_set(path, batch_size=batch)).dim == 192


@pytest.mark.parametrize("name", PROBED_OWN)
def test_batches_that_are_put_together_and_parted_again_are_probed_and_taken(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", PROBED_OWN[name])
    assert verdict(path).kind == "unknown"
    net = FeatureNet(feature_set(path))
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(net.forward(images[3:4])[0], net.forward(images)[3], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PROBED_MIXED)
def test_what_lies_along_the_batch_by_rarer_ways_is_probed_and_refused(name: str, tmp_path: Path) -> None:
    engine, opset, nodes = PROBED_MIXED[name]
    path = write(tmp_path / "m.onnx", nodes, opset=opset)
    assert verdict(path).kind == "unknown"
    with pytest.raises(NetError, match="another feature at place"):
        FeatureNet(feature_set(path, engine))


def test_a_model_of_one_image_has_no_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MIXED["a mean over the batch"], batch=1)
    net = FeatureNet(feature_set(path))
    images = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(net.forward(images), np.zeros((3, 192)))


def test_a_model_of_a_fixed_batch_cannot_compute_one_image_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", MIXED["a mean over the batch"], batch=4)
    with pytest.raises(NetError, match="exported for batches of 4"):
        FeatureNet(feature_set(path, dependent_rows="alone"))


@pytest.mark.parametrize("model", sorted((GOLDEN / "onnx").glob("*.onnx"), key=str), ids=lambda path: path.stem)
def test_every_backbone_is_told_by_its_graph(model: Path) -> None:
    source = OnnxSource(model)
    net = nets.load(model, engine="onnxruntime")
    (name,) = net.inputs
    shape = tuple(size if size > 0 else 32 for size in net.inputs[name])
    assert net.rows(source.graph().graph.output[0].name, {name: shape}).kind == "own"


CAFFE = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n'
POOL = ' layer { name: "p" type: "Pooling" bottom: "b" top: "y" pooling_param { pool: MAX global_pooling: true } }'
CAFFE_MIXED = {
    "BatchNorm": 'type: "BatchNorm" bottom: "data" top: "b" batch_norm_param { use_global_stats: false } }' + POOL,
    "BatchNorm in a phase of its own": 'type: "BatchNorm" phase: TRAIN bottom: "data" top: "b" }' + POOL,
    "Softmax": 'type: "Softmax" bottom: "data" top: "y" softmax_param { axis: 0 } }',
    "Reduction": 'type: "Reduction" bottom: "data" top: "r" reduction_param { axis: 0 } } layer { name: "u" type: '
    '"Scale" bottom: "data" bottom: "r" top: "y" }',
    "Slice": 'type: "Slice" bottom: "data" top: "s" top: "t" slice_param { axis: 0 } } layer { name: "c" type: '
    '"Concat" bottom: "t" bottom: "s" top: "y" concat_param { axis: 0 } }',
    "LRN over the batch": 'type: "Reshape" bottom: "data" top: "r" reshape_param { shape { dim: 1 dim: -1 dim: 8 '
    'dim: 8 } } } layer { name: "n" type: "LRN" bottom: "r" top: "m" } layer { name: "s" type: "Reshape" bottom: "m" '
    'top: "y" reshape_param { shape { dim: -1 dim: 3 dim: 8 dim: 8 } } }',
    "LSTM": 'type: "DummyData" top: "c" dummy_data_param { shape { dim: 6 dim: 3 } data_filler { value: 1 } } } '
    'layer { name: "l" type: "LSTM" bottom: "data" bottom: "c" top: "y" recurrent_param { num_output: 4 weight_filler '
    '{ type: "constant" value: 0.1 } } }',
    "DummyData of each place": 'type: "DummyData" top: "n" dummy_data_param { shape { dim: 6 dim: 3 dim: 8 dim: 8 } '
    'data_filler { type: "gaussian" std: 1 } } } layer { name: "e" type: "Eltwise" bottom: "data" bottom: "n" '
    'top: "y" }',
    "BatchReindex": 'type: "DummyData" top: "n" dummy_data_param { shape { dim: 6 } data_filler { value: 0 } } } '
    'layer { name: "e" type: "BatchReindex" bottom: "data" bottom: "n" top: "y" }',
}
CAFFE_OWN = {
    "MVN": 'type: "MVN" bottom: "data" top: "y" mvn_param { across_channels: true } }',
    "a Reshape there and back": 'type: "Reshape" bottom: "data" top: "r" reshape_param { shape { dim: -1 dim: 1 dim: 8 '
    'dim: 8 } } } layer { name: "s" type: "Reshape" bottom: "r" top: "y" reshape_param { shape { dim: -1 dim: 3 dim: 8 '
    "dim: 8 } } }",
    "DummyData the same for all": 'type: "DummyData" top: "n" dummy_data_param { shape { dim: 6 dim: 3 dim: 8 dim: 8 } '
    'data_filler { value: 2 } } } layer { name: "e" type: "Eltwise" bottom: "data" bottom: "n" top: "y" }',
    "LSTM over words": 'type: "Reshape" bottom: "data" top: "r" reshape_param { shape { dim: 1 dim: -1 dim: 192 } } } '
    'layer { name: "d" type: "DummyData" top: "c" dummy_data_param { shape { dim: 1 dim: 6 } data_filler { value: 0 } '
    '} } layer { name: "l" type: "LSTM" bottom: "r" bottom: "c" top: "o" recurrent_param { num_output: 4 weight_filler '
    '{ type: "constant" value: 0.1 } } } layer { name: "s" type: "Reshape" bottom: "o" top: "y" reshape_param { shape '
    "{ dim: -1 dim: 4 } } }",
}


@pytest.mark.parametrize("name", CAFFE_MIXED)
def test_layers_that_mix_the_items_of_a_batch_are_refused_and_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(CAFFE.replace("dim: 1", "dim: 6", 1) + 'layer { name: "z" ' + CAFFE_MIXED[name])
    with pytest.raises(NetError, match=r"when other images are in its batch .*layer '\w+' \(\w+\)"):
        FeatureNet(feature_set(path))


@pytest.mark.parametrize("name", CAFFE_OWN)
def test_layers_that_only_seem_to_mix_them_are_taken(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(CAFFE.replace("dim: 1", "dim: 6", 1) + 'layer { name: "z" ' + CAFFE_OWN[name])
    net = FeatureNet(feature_set(path))
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(net.forward(images[3:4])[0], net.forward(images)[3], rtol=1e-6, atol=1e-6)


def test_alone_is_part_of_the_fingerprint_and_the_default_leaves_it_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", OWN["convolution and pooling"])
    plain, alone = (FeatureNet(feature_set(path, dependent_rows=rows)).fingerprint for rows in ("refuse", "alone"))
    assert plain != alone
