"""Learned blobs as values of a graph: named, apart from constants, and open to other numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets.engines import choose
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.binding import bound
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.folding import folded
from pipeline.nets.graph.lowered import Slot
from pipeline.nets.graph.saving import save
from tests.unit.nets.test_golden import case

Values = dict[Slot, NDArray[np.float32]]


def graph_of(name: str, phase: str = "TEST") -> CaffeGraph:
    prototxt, weights, _, _ = case(name)
    return caffe_graph.read(prototxt, weights, rules.state_of(phase, 0, []), None, lambda says: None)


def values_of(graph: CaffeGraph) -> Values:
    return graph.parameters.values(range(len(graph.plan.steps)), graph.plan)


def test_a_learned_blob_has_its_layers_name_its_number_and_its_shape() -> None:
    graph = graph_of("innerproduct")
    lowered = graph.lower()
    found = {(blob.layer, blob.slot.blob): blob.shape for blob in lowered.learned.values()}
    assert found == {
        (graph.plan.steps[slot.step].layer.name, slot.blob): shape for slot, shape in graph.parameters.shapes.items()
    }
    for name, blob in lowered.learned.items():
        assert name == f"learned:{blob.layer}/{blob.slot.blob}"
        assert any(name in one.inputs for one in (*lowered.preparations, *lowered.operations))


def test_lowering_reads_no_weights_and_has_none_of_them_as_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of("mini_resnet")
    monkeypatch.setattr(type(graph.parameters), "values", None)
    lowered = graph.lower()
    assert max(array.size for array in lowered.constants.values()) < 8, "shapes, and numbers of the text"
    assert {one.slot for one in lowered.learned.values()} == set(graph.parameters.owners.values())


@pytest.mark.parametrize("name", ["conv_multi", "mini_siamese"])
def test_layers_that_share_a_blob_read_one_value(name: str) -> None:
    graph = graph_of(name)
    assert len(set(graph.parameters.owners.values())) < len(graph.parameters.shapes)
    assert {one.slot for one in graph.lower().learned.values()} == set(graph.parameters.owners.values())


def test_a_blob_that_is_shared_in_another_shape_is_reshaped_and_stays_one_value(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 6] } } }'
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }'
        ' inner_product_param { num_output: 4 bias_term: false weight_filler { type: "xavier" } } }'
        'layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" share_mode: PERMISSIVE }'
        " inner_product_param { num_output: 6 bias_term: false } }"
    )
    graph = caffe_graph.read(path, None, rules.state_of("TEST", 0, []), None, lambda says: None)
    lowered = graph.lower()
    assert [(blob.layer, blob.shape) for blob in lowered.learned.values()] == [("a", (4, 6))]
    assert [one.kind for one in lowered.preparations] == ["Reshape"]
    w = np.arange(24, dtype=np.float32).reshape(4, 6)
    x = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    run = choose("onnxruntime").compile(folded(bound(lowered, {Slot(1, 0): w})))
    np.testing.assert_allclose(run({"in:x": x})["b"], x @ w.T @ w.reshape(6, 4).T, rtol=1e-5)


def test_two_layers_of_one_name_have_blobs_of_their_own(tmp_path: Path) -> None:
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 2] } } }'
    for bottom, top in (("x", "y"), ("y", "z")):
        text += (f'layer {{ name: "same" type: "InnerProduct" bottom: "{bottom}" top: "{top}" '
                 'inner_product_param { num_output: 2 } }')  # fmt: skip
    (tmp_path / "net.prototxt").write_text(text)
    graph = caffe_graph.read(tmp_path / "net.prototxt", None, rules.state_of("TEST", 0, []), None, lambda says: None)
    assert [one.slot for one in graph.lower().learned.values()] == [Slot(1, 0), Slot(1, 1), Slot(2, 0), Slot(2, 1)]


def test_folding_is_what_inference_asks_for() -> None:
    graph = graph_of("mini_resnet")
    kinds = [one.kind for one in bound(graph.lower(), values_of(graph)).operations]
    short = [one.kind for one in folded(bound(graph.lower(), values_of(graph))).operations]
    assert kinds.count("Conv") == short.count("Conv")
    assert kinds.count("Mul") > 0
    assert short.count("Mul") == 0


def test_stored_statistics_stay_a_function_of_their_blobs_in_training_too(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3, 4, 4] } } }'
        'layer { name: "n" type: "BatchNorm" bottom: "x" top: "n" batch_norm_param { use_global_stats: true } }'
    )
    state = rules.state_of("TRAIN", 0, [])
    lowered = caffe_graph.read(tmp_path / "net.prototxt", None, state, None, lambda says: None).lower()
    read = {name for one in lowered.preparations for name in one.inputs if name in lowered.learned}
    assert {lowered.learned[name].slot.blob for name in read} == {0, 1, 2}
    assert [one.kind for one in lowered.operations] == ["Add", "Mul"]


LEARNED = ["conv", "conv_group", "conv_multi", "conv_nd", "deconv", "innerproduct", "embed", "prelu", "scale_bias",
           "batchnorm", "recurrent", "index", "mini_resnet", "mini_siamese", "mini_mobilenet_densenet"]  # fmt: skip


@pytest.mark.parametrize("name", LEARNED)
def test_a_graph_with_other_values_computes_what_a_net_loaded_with_them_does(name: str, tmp_path: Path) -> None:
    prototxt, _, feeds, blobs = case(name)
    graph, engine = graph_of(name), choose("openvino")
    wanted = [blob for blob in blobs if not _chosen(graph, blob)]
    before = nets.load(prototxt, case(name)[1], blobs=wanted, engine="openvino").forward(feeds)
    random = np.random.default_rng(3)
    owners = list(values_of(graph))
    for replaced in (owners[:1], owners):
        values = values_of(graph)
        for slot in replaced:
            old = values[slot]
            values[slot] = (old * random.uniform(1.25, 2.0, old.shape) + 0.125).astype(np.float32)
        run = engine.compile(folded(bound(graph.lower(wanted), values)))
        got = run({f"in:{blob}": array for blob, array in feeds.items()})
        save(tmp_path / "other.caffemodel", graph, values.__getitem__)
        want = nets.load(prototxt, tmp_path / "other.caffemodel", blobs=wanted, engine="openvino").forward(feeds)
        for blob in wanted:
            np.testing.assert_array_equal(got[blob], want[blob])
        assert any(not np.array_equal(want[blob], before[blob]) for blob in wanted), replaced


def _chosen(graph: CaffeGraph, blob: str) -> bool:
    """Whether how many items it has depends on what is fed: the net asks for that first."""
    steps = graph.plan.needed([graph.plan.read(blob)])
    return any(graph.plan.steps[step].layer.spec.type == "Filter" for step in steps)


def test_values_that_are_missing_or_of_another_shape_are_refused_and_the_blob_is_named() -> None:
    graph = graph_of("mini_alexnet")
    values = values_of(graph)
    slot = next(iter(values))
    name = graph.plan.steps[slot.step].layer.name
    with pytest.raises(NetError, match=f"blob 0 of layer '{name}' has no values"):
        bound(graph.lower(), {one: array for one, array in values.items() if one != slot})
    for bad in (values[slot][:-1], values[slot].astype(np.float64)):
        with pytest.raises(NetError, match=f"blob 0 of layer '{name}' takes other values"):
            bound(graph.lower(), {**values, slot: bad})
