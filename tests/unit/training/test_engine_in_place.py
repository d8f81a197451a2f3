"""ReLU in place and what else saves copies: which layers may, and that no digit changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.training.engine.building import build
from pipeline.training.engine.in_place import IN_PLACE
from pipeline.training.engine.net import TorchNetwork
from pipeline.training.engine.operations import operations
from tests.unit.training.trained import EXACT, graph_of, inputs, layer

FILLED = "weight_filler { type: 'xavier' } bias_filler { type: 'constant' value: 0.1 }"
RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 3, 8, 8)).astype(np.float32)
FEEDS = {"x": X, "label": np.array([0, 1, 2, 1], np.float32)}
DATA = inputs(x=X.shape, label=(4,))
CONV = layer("Convolution", "x", "a", f"convolution_param {{ num_output: 4 kernel_size: 3 {FILLED} }}")
POOL = layer("Pooling", "a", "p", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")


def end(below: str) -> str:
    full = layer("InnerProduct", below, "f", f"inner_product_param {{ num_output: 3 {FILLED} }}")
    return full + layer("SoftmaxWithLoss", "f label", "loss")


def relu(below: str, top: str, more: str = "") -> str:
    return layer("ReLU", below, top, more, name="relu")


def overwrites(net: TorchNetwork) -> bool:
    (found,) = net._compiled.values()
    return any(one.kind == IN_PLACE for part in found[1]._lean for one in part.operations)


SUM = layer("Eltwise", "r a", "s")
CASES = {
    "in place after a convolution": (CONV + relu("a", "a") + end("a"), True),
    "a top of its own that alone reads the convolution": (CONV + relu("a", "r") + end("r"), True),
    "after pooling": (CONV + POOL + relu("p", "p") + end("p"), True),
    "beside another layer that reads the same blob": (CONV + relu("a", "r") + SUM + end("s"), False),
    "a layer whose gradient reads its own top": (CONV + layer("TanH", "a", "t") + relu("t", "r") + end("r"), False),
    "a layer with Caffe's own gradient": (
        CONV + layer("Power", "a", "t", "power_param { power: 2 shift: 0.5 }") + relu("t", "r") + end("r"), False,
    ),
    "the data themselves": (relu("x", "r") + end("r"), False),
    "leaky": (CONV + relu("a", "a", "relu_param { negative_slope: 0.1 }") + end("a"), False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_relu_overwrites_what_nobody_else_reads_and_no_digit_changes(case: str) -> None:
    text, expected = CASES[case]
    net = build(graph_of(DATA + text))
    assert overwrites(net) is expected
    plain = build(graph_of(DATA + text))
    watched = plain.watched(FEEDS, True)  # who is watched overwrites nothing
    found = net.backward(FEEDS)
    assert found.loss == watched.result.loss
    for one in net.learned:
        assert net.gradient(one.slot).any()
        np.testing.assert_array_equal(net.gradient(one.slot), plain.gradient(one.slot))


def test_exact_overwrites_nothing_and_trains() -> None:
    net = build(graph_of(DATA + CONV + relu("a", "a") + end("a")), EXACT)
    assert not overwrites(net)
    net.backward(FEEDS)
    assert net.gradient(net.learned[0].slot).any()


def test_a_kept_pass_has_each_blob_as_it_was() -> None:
    net = build(graph_of(DATA + CONV + relu("a", "r") + end("r")))
    kept = net.keep()
    net.backward(FEEDS)
    before, after = kept.value("a"), kept.value("r")
    assert before is not None
    assert after is not None
    assert (before < 0).any()
    np.testing.assert_array_equal(after, np.maximum(before, 0))


def test_the_gradient_of_max_pooling_has_its_channels_last_and_the_same_digits() -> None:
    """After InnerProduct it has not; torch would then copy the gradient of the bottom, four times as large, twice."""
    bottom = torch.from_numpy(X).contiguous(memory_format=torch.channels_last).requires_grad_(True)
    numbers = {"kernel": [2, 2], "stride": [2, 2], "pad": [0, 0], "ceil": True}
    top = operations(torch.float32, False)["LargestOfWindows"]([bottom], numbers)
    assert isinstance(top, torch.Tensor)
    seen: list[torch.Tensor] = []
    top.grad_fn.register_prehook(lambda gradients: seen.append(gradients[0]))
    gradient = torch.from_numpy(RNG.normal(size=tuple(top.shape)).astype(np.float32))
    top.backward(gradient)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    plain = torch.from_numpy(X).requires_grad_(True)
    torch.nn.functional.max_pool2d(plain, 2).backward(gradient)
    assert bottom.grad is not None
    assert plain.grad is not None
    np.testing.assert_array_equal(bottom.grad.numpy(), plain.grad.numpy())
