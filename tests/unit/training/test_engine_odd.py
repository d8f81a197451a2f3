"""Gradients that are Caffe's own: where calculus has another answer or none, and where a blob was overwritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import SolverError
from pipeline.training.engine.backward import OVERWRITTEN
from pipeline.training.engine.building import CPU, Wanted, build
from pipeline.training.engine.memory import HAS_CAFFES
from pipeline.training.engine.net import TorchNetwork
from tests.unit.training.trained import EXACT, Array, graph_of, inputs, layer

NAN = float("nan")
Doubles = NDArray[Any]


def learned(*shape: int, name: str = "x") -> str:
    return layer("Parameter", "", name, f"parameter_param {{ shape {{ dim: {list(shape)} }} }}")


def given(net: TorchNetwork, name: str, values: object) -> None:
    (one,) = [one for one in net.learned if one.layer == name]
    net.load(one.slot, np.array(values, np.float32).reshape(one.shape))


def gradient(net: TorchNetwork, name: str) -> Array:
    (one,) = [one for one in net.learned if one.layer == name]
    return net.gradient(one.slot)


SUM = layer("Reduction", "y", "loss", "loss_weight: 1")


@pytest.mark.parametrize(
    ("kind", "body", "x", "want"),
    [
        ("BNLL", "", [-1, 0, 1, 60], [0.26894143, 0.5, 0.7310586, 1]),
        ("Clip", "clip_param { min: 0 max: 6 }", [-1, 0, 3, 6, 7], [0, 1, 1, 1, 0]),
        ("Power", "power_param { power: 0.5 }", [0, 1, 4], [NAN, 0.5, 0.25]),
        ("Power", "power_param { power: 3 }", [0, 2], [NAN, 12]),
        ("Power", "power_param { power: 2 }", [0, 2], [0, 4]),
        ("AbsVal", "", [0, -1, 2], [0, -1, 1]),
        ("ReLU", "", [0, -2, 1], [0, 0, 1]),
        ("ReLU", "relu_param { negative_slope: 0.1 }", [0, -2, 1], [0.1, 0.1, 1]),
        ("MVN", "", [2, 2, 2], [0, 0, 0]),
    ],
)
def test_a_point_without_a_derivative_has_caffes(kind: str, body: str, x: list[float], want: list[float]) -> None:
    net = build(graph_of(learned(1, 1, 1, len(x)) + layer(kind, "x", "y", body) + SUM))
    given(net, "x", x)
    net.backward({})
    np.testing.assert_allclose(gradient(net, "x").reshape(-1), want, rtol=1e-6)


def test_a_constant_channel_of_mvn_has_a_finite_gradient() -> None:
    text = learned(1, 1, 1, 3) + inputs(w=(1, 1, 1, 3)) + layer("MVN", "x", "n")
    net = build(graph_of(text + layer("Eltwise", "n w", "y", "eltwise_param { operation: PROD }") + SUM))
    given(net, "x", [2, 2, 2])
    net.backward({"w": np.array([1, 0, 0], np.float32).reshape(1, 1, 1, 3)})
    np.testing.assert_allclose(gradient(net, "x").reshape(-1), np.array([2 / 3, -1 / 3, -1 / 3]) / 1e-9, rtol=1e-6)


def test_prelu_at_zero_takes_the_slope() -> None:
    net = build(graph_of(learned(1, 3, 1, 1) + layer("PReLU", "x", "y", name="p") + SUM))
    given(net, "x", [-1, 0, 1])
    net.backward({})
    np.testing.assert_array_equal(gradient(net, "x").reshape(-1), np.array([0.25, 0.25, 1], np.float32))
    np.testing.assert_array_equal(gradient(net, "p"), np.array([-1, 0, 0], np.float32))


def test_of_equal_values_the_second_of_two_bottoms_learns_and_of_more_the_earlier_one() -> None:
    text = learned(3, name="a") + learned(3, name="b") + learned(3, name="c")
    net = build(graph_of(text + layer("Eltwise", "a b c", "y", "eltwise_param { operation: MAX }") + SUM))
    for name, values in (("a", [1, 1, 2]), ("b", [1, 0, 2]), ("c", [1, 1, 3])):
        given(net, name, values)
    net.backward({})
    found = [gradient(net, name).tolist() for name in "abc"]
    assert found == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_a_product_with_a_zero_has_the_stable_gradient() -> None:
    text = learned(2, name="a") + learned(2, name="b")
    body = "eltwise_param { operation: PROD stable_prod_grad: false }"
    net = build(graph_of(text + layer("Eltwise", "a b", "y", body) + SUM))
    given(net, "a", [0, 2])
    given(net, "b", [3, 3])
    net.backward({})
    assert gradient(net, "a").tolist() == [3, 3]


def test_a_max_window_of_equals_gives_its_gradient_to_the_first() -> None:
    body = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    net = build(graph_of(learned(1, 1, 2, 2) + layer("Pooling", "x", "y", body) + SUM))
    given(net, "x", [1, 1, 1, 0])
    net.backward({})
    assert gradient(net, "x").reshape(-1).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "x", "label", "want"),
    [
        ("SoftmaxWithLoss", [[0, 100]], [0], [[-1, 1]]),
        ("SoftmaxWithLoss", [[0, 90], [0, 0]], [0, 1], [[-0.5, 0.5], [0.25, -0.25]]),
        ("SigmoidCrossEntropyLoss", [[0, 1]], [[1, 1]], [[-0.5, -0.26894143]]),
        ("SigmoidCrossEntropyLoss", [[0, 0]], [[0, 0.25]], [[0.5, 0.25]]),
        ("MultinomialLogisticLoss", [[1e-30, 0.5]], [0], [[-1e20, 0]]),
        ("HingeLoss", [[1, -1]], [0], [[0, 0]]),
    ],
)
def test_a_loss_far_from_its_labels_still_teaches(kind: str, x: Any, label: Any, want: Any) -> None:
    labels = np.array(label, np.float32)
    net = build(graph_of(learned(*np.shape(x)) + inputs(label=labels.shape) + layer(kind, "x label", "loss")))
    given(net, "x", x)
    net.backward({"label": labels})
    np.testing.assert_allclose(gradient(net, "x"), want, rtol=1e-6)


def test_an_infogain_loss_teaches_where_the_softmax_is_zero() -> None:
    text = learned(1, 2) + inputs(label=(1,), h=(1, 1, 2, 2)) + layer("InfogainLoss", "x label h", "loss")
    net = build(graph_of(text))
    given(net, "x", [0, 200])
    net.backward({"label": np.zeros(1, np.float32), "h": np.array([[[[1, 0], [0, 1]]]], np.float32)})
    assert gradient(net, "x").tolist() == [[-1, 1]]


def test_unlike_pairs_are_pushed_apart_as_caffe_does_and_not_at_all_at_distance_zero() -> None:
    text = learned(2, 2, name="a") + learned(2, 2, name="b") + inputs(same=(2,))
    net = build(graph_of(text + layer("ContrastiveLoss", "a b same", "loss")))
    given(net, "a", [[0.1, 0], [3, 4]])
    given(net, "b", [[0, 0], [3, 4]])
    net.backward({"same": np.zeros(2, np.float32)})
    np.testing.assert_allclose(gradient(net, "a"), np.array([[-0.9 / (0.1 + 1e-4) * 0.1 / 2, 0], [0, 0]]), rtol=1e-5)
    np.testing.assert_array_equal(gradient(net, "b"), -gradient(net, "a"))


def test_the_softmax_beside_a_loss_gives_no_gradient() -> None:
    body = "loss_weight: 1 loss_weight: 0"
    text = learned(1, 2) + inputs(label=(1,)) + layer("SoftmaxWithLoss", "x label", "loss prob", body)
    more = layer("Power", "prob", "p2", "power_param { power: 2 }") + layer("Reduction", "p2", "r", "loss_weight: 5")
    plain, both = build(graph_of(text)), build(graph_of(text + more))
    for net in (plain, both):
        given(net, "x", [0.5, -0.25])
        net.backward({"label": np.zeros(1, np.float32)})
    np.testing.assert_array_equal(gradient(plain, "x"), gradient(both, "x"))


OVERWRITERS = [
    ("TanH", "", "Dropout", ""), ("Sigmoid", "", "Dropout", ""), ("ELU", "", "Dropout", ""),
    ("Exp", "", "Scale", "scale_param { filler { value: 2 } }"), ("Softmax", "", "ReLU", ""),
    ("Power", "power_param { power: 2 }", "", ""), ("BNLL", "", "", ""), ("Log", "", "", ""),
    ("Clip", "clip_param { min: 0.2 max: 0.5 }", "", ""), ("ReLU", "relu_param { negative_slope: -1 }", "", ""),
    ("ReLU", "", "Power", "power_param { shift: -1 }"), ("Swish", "", "Dropout", ""), ("MVN", "", "Dropout", ""),
    ("LRN", "", "Dropout", ""),
]  # fmt: skip


def overwritten(kind: str, body: str, other: str, more: str) -> str:
    """The layer onto its bottom, or onto a blob that another layer then overwrites."""
    text = learned(1, 2, 2, 3, name="p") + layer("Power", "p", "x", "power_param { shift: 0.1 }")
    if kind == "LRN":
        text += layer(kind, "x", "n", body, name="first") + layer(other, "n", "n", more, name="second")
        return text + layer("Reduction", "n", "loss", "loss_weight: 1")
    text += layer(kind, "x", "x", body, name="first")
    text += layer(other, "x", "x", more, name="second") if other else ""
    return text + layer("Reduction", "x", "loss", "loss_weight: 1")


@pytest.mark.parametrize(("kind", "body", "other", "more"), OVERWRITERS)
def test_a_gradient_that_reads_what_was_overwritten_is_refused_by_name(
    kind: str, body: str, other: str, more: str
) -> None:
    last = "second" if other else "first"
    with pytest.raises(SolverError, match=rf"layer 'first' \({kind}\)") as refused:
        build(graph_of(overwritten(kind, body, other, more)))
    assert f"'{last}'" in f"{refused.value.message} {refused.value.hint}"
    assert "a name of its own, or choose as_caffe" in refused.value.hint


def test_where_as_caffe_has_no_formula_it_is_not_offered() -> None:
    text = learned(4, name="a") + learned(4, name="b") + layer("Power", "a", "x")
    text += layer("Eltwise", "x b", "x", "eltwise_param { operation: PROD }", name="times")
    for as_caffe in (False, True):
        with pytest.raises(SolverError, match=r"layer 'times' \(Eltwise\) reads the blob 'x'") as refused:
            build(graph_of(text + layer("Reduction", "x", "l", "loss_weight: 1")), wanted=Wanted(as_caffe=as_caffe))
        assert refused.value.hint == "give the top of layer 'times' a name of its own"


@pytest.mark.parametrize(("kind", "body", "other", "more"), OVERWRITERS)
def test_as_caffe_takes_the_gradient_from_what_was_overwritten(kind: str, body: str, other: str, more: str) -> None:
    """By Backward_cpu's formula, with the blob as the last layer has left it."""
    net = build(graph_of(overwritten(kind, body, other, more)), wanted=Wanted(as_caffe=True))
    x = np.linspace(0.15, 1.9, 12, dtype=np.float32).reshape(1, 2, 2, 3)
    given(net, "p", x - np.float32(0.1))
    kept = (np.arange(12) % 3 != 0).astype(np.float32).reshape(x.shape) * 2
    net.backward({mask.feed: kept for mask in net.masks})
    how: dict[str, Callable[[Doubles], Doubles]] = {
        "TanH": np.tanh, "Sigmoid": lambda v: 1 / (1 + np.exp(-v)), "ELU": lambda v: v, "Exp": np.exp,
        "Softmax": lambda v: np.exp(v) / np.exp(v).sum(1, keepdims=True), "Power": lambda v: v * v if not other else v,
        "BNLL": lambda v: np.log(1 + np.exp(v)), "Log": np.log, "Clip": lambda v: np.clip(v, 0.2, 0.5),
        "ReLU": lambda v: v, "Swish": lambda v: v / (1 + np.exp(-v)), "MVN": lambda v: _normal(v),
        "LRN": lambda v: v * _scale(v) ** -0.75,
    }  # fmt: skip
    plain = how[kind](x.astype(np.float64))
    slope = kept if other == "Dropout" else np.full(x.shape, 2.0 if other == "Scale" else 1.0)
    left = plain * slope if other in ("Dropout", "Scale") else plain - 1 if other == "Power" else plain
    want = {
        "TanH": lambda: slope * (1 - left * left),
        "Sigmoid": lambda: slope * left * (1 - left),
        "ELU": lambda: slope * np.where(left > 0, 1, 1 + left),
        "Exp": lambda: slope * left,
        "Softmax": lambda: (slope - (slope * left).sum(1, keepdims=True)) * left,
        "Power": lambda: 2 * left,
        "BNLL": lambda: np.exp(left) / (np.exp(left) + 1),
        "Log": lambda: 1 / left,
        "Clip": lambda: np.ones(x.shape),
        "ReLU": lambda: (left > 0) * 1.0,
        "Swish": lambda: slope * (left + (1 - left) / (1 + np.exp(-x))),
        "MVN": lambda: _normal_slope(slope, left, x),
        "LRN": lambda: slope * _scale(x) ** -0.75 - 2 * 0.75 / 5 * x * _window(slope * left / _scale(x)),
    }[kind]()
    np.testing.assert_allclose(gradient(net, "p"), want, rtol=2e-5, atol=1e-6)


def _window(x: Doubles) -> Doubles:
    return np.asarray(x.sum(1, keepdims=True) + 0 * x)  # a window of 5 spans both channels


def _scale(x: Doubles) -> Doubles:
    return np.asarray(1 + _window(x.astype(np.float64) ** 2) / 5)


def _normal(x: Doubles) -> Doubles:
    return np.asarray((x - x.mean((2, 3), keepdims=True)) / x.std((2, 3), keepdims=True))


def _normal_slope(slope: Doubles, top: Doubles, x: Doubles) -> Doubles:
    mean = slope.mean((2, 3), keepdims=True)
    shared = (slope * top).mean((2, 3), keepdims=True)
    return np.asarray((slope - mean - top * shared) / x.astype(np.float64).std((2, 3), keepdims=True))


@pytest.mark.parametrize(
    "text",
    [
        layer("ReLU", "x", "x", name="first") + layer("Dropout", "x", "x"),
        layer("ELU", "x", "x", name="first"),
        layer("PReLU", "x", "x") + layer("Dropout", "x", "x"),
        layer("Scale", "x", "x", "scale_param { bias_term: true }") + layer("ReLU", "x", "x"),
        layer("BatchNorm", "x", "x") + layer("Scale", "x", "x") + layer("ReLU", "x", "x"),
        layer("TanH", "x", "x") + layer("Dropout", "x", "x", "phase: TEST"),
        layer("TanH", "x", "x"),
        layer("Power", "x", "x", "power_param { scale: 2 shift: 1 }"),
    ],
)
def test_what_caffe_computes_rightly_in_place_is_trained(text: str) -> None:
    below = learned(1, 2, 2, 3, name="p") + layer("Power", "p", "x", "power_param { shift: 0.1 }")
    net = build(graph_of(below + text + layer("Reduction", "x", "loss", "loss_weight: 1")))
    given(net, "p", np.linspace(-1, 1, 12) + 0.01)
    net.backward({mask.feed: np.ones(mask.shape, np.float32) for mask in net.masks})
    apart, last = "", "x"
    for number, line in enumerate(text.splitlines()):
        apart += line.replace('bottom: "x"', f'bottom: "{last}"').replace('top: "x"', f'top: "x{number}"') + "\n"
        last = f"x{number}"
    other = build(graph_of(below + apart + layer("Reduction", last, "loss", "loss_weight: 1")))
    given(other, "p", np.linspace(-1, 1, 12) + 0.01)
    other.backward({mask.feed: np.ones(mask.shape, np.float32) for mask in other.masks})
    np.testing.assert_array_equal(gradient(net, "p"), gradient(other, "p"))


def test_what_flatten_shows_of_a_blob_is_the_same_memory() -> None:
    text = learned(2, 3, name="p") + layer("Power", "p", "x") + layer("Flatten", "x", "f") + layer("ReLU", "f", "f")
    product = "inner_product_param { num_output: 2 weight_filler { type: 'xavier' } }"
    text += layer("InnerProduct", "x", "ip", product) + layer("Eltwise", "ip ip", "y") + SUM
    build(graph_of(text))  # the product reads x after ReLU has run: that is what it multiplied
    before = text.replace(layer("ReLU", "f", "f"), "").replace(SUM, layer("ReLU", "f", "f") + SUM)
    with pytest.raises(SolverError, match=r"layer 'ip' \(InnerProduct\) reads the blob 'f'"):
        build(graph_of(before))


def test_convolution_in_caffes_order_of_sums_is_the_same_convolution() -> None:
    body = (
        "convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 2 weight_filler { type: 'xavier' } }"
    )
    text = inputs(x=(3, 4, 9, 8)) + layer("Convolution", "x", "c", body)
    text += layer("Power", "c", "y", "power_param { power: 2 }") + SUM
    feeds = {"x": np.random.default_rng(2).normal(size=(3, 4, 9, 8)).astype(np.float32)}
    nets = [build(graph_of(text), how) for how in (CPU, EXACT)]
    losses = [net.backward(feeds).loss for net in nets]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for one in nets[0].learned:
        np.testing.assert_allclose(nets[0].gradient(one.slot), nets[1].gradient(one.slot), rtol=1e-4, atol=1e-5)


def test_what_can_be_had_of_overwritten_blobs_is_known_without_torch() -> None:
    assert OVERWRITTEN.keys() == HAS_CAFFES
