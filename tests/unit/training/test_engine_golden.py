"""The live net trains as real Caffe does: gradients, weights and losses of its own runs (tests/golden/training)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot
from pipeline.training.engine.building import CPU, build, build_test
from pipeline.training.engine.net import TorchNetwork
from pipeline.training.engine.program import Arithmetic
from pipeline.training.network import LearnedBlob
from tests.unit.training.trained import EXACT, Array

GOLDEN = Path(__file__).parents[2] / "golden" / "training"
RUNS = {"lenet_sgd_inv": (0.0, 0.00390625, 0.0005), "bn_nesterov_step": (128.0, 0.015625, 0.001)}
TOLERANCE = 1e-5
Run = dict[str, NDArray[Any]]


def read(name: str, phase: str) -> CaffeGraph:
    text, weights = GOLDEN / f"{name}.train_val.prototxt", GOLDEN / f"{name}.init.caffemodel"
    return caffe_graph.read(text, weights, rules.state_of(phase, 0, ()), None, lambda says: None)


def far(want: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest difference as a part of the largest value."""
    wanted = np.asarray(want, np.float64)
    return float(np.abs(wanted - got).max() / max(np.abs(wanted).max(), 1e-30))


class Reference:
    """The two solvers of these runs, as README.md's formulas have them: the rate is within the history."""

    def __init__(self, net: TorchNetwork, nesterov: bool, decay: float) -> None:
        self.net, self.nesterov, self.decay = net, nesterov, decay
        self.history = {one.slot: torch.zeros_like(net.tensor(one.slot)) for one in net.learned}

    def update(self, rate: float) -> None:
        with torch.no_grad():
            for one in self.net.learned:
                weights, history = self.net.tensor(one.slot), self.history[one.slot]
                change = self.net.gradient_tensor(one.slot) + self.decay * one.decay_mult * weights
                before = history.clone()
                history.mul_(0.9).add_(change, alpha=rate * one.lr_mult)
                weights.sub_(1.9 * history - 0.9 * before if self.nesterov else history)


def key(one: LearnedBlob) -> str:
    return f"{one.layer}:{one.slot.blob}"


@pytest.mark.parametrize("how", [CPU, EXACT], ids=["fast", "exact"])
@pytest.mark.parametrize("name", RUNS)
def test_fifty_iterations_are_caffes(name: str, how: Arithmetic) -> None:
    shift, scale, decay = RUNS[name]
    with np.load(GOLDEN / f"{name}.npz") as file:
        run: Run = {one: file[one] for one in file.files}
    images = (run["images_u8"].astype(np.float32) - np.float32(shift)) * np.float32(scale)
    labels = run["labels"].astype(np.float32)
    net = build(read(name, "TRAIN"), how)
    solver = Reference(net, "nesterov" in name, decay)
    losses = []
    for iteration in range(50):
        net.clear()
        of = np.asarray(run["batches"], np.int64)[iteration, 0]
        losses.append(net.backward({"data": images[of], "label": labels[of]}).loss)
        if iteration + 1 in (1, 10):
            gradients = {one: net.gradient(one.slot) for one in net.learned if one.lr_mult}
            assert max(far(run[f"g{iteration + 1}:{key(one)}"], got) for one, got in gradients.items()) < TOLERANCE
        solver.update(float(np.asarray(run["lr"], np.float64)[iteration]))
        if iteration + 1 in (1, 10, 50):
            weights = {one: net.weights(one.slot) for one in net.learned}
            assert max(far(run[f"w{iteration + 1}:{key(one)}"], got) for one, got in weights.items()) < TOLERANCE
    assert far(run["loss"], np.array(losses)) < TOLERANCE
    test = build_test(read(name, "TEST"), net)
    items = test.inputs["label"][0]
    found = test.forward({"data": images[:items], "label": labels[:items]}).outputs
    assert {one: far(run[f"test50:{one}"], values) for one, values in found.items()} == pytest.approx(
        {"accuracy": 0.0, "loss": 0.0}, abs=TOLERANCE
    )


def test_a_test_net_has_the_train_nets_blobs_themselves() -> None:
    train = build(read("lenet_sgd_inv", "TRAIN"))
    test = build_test(read("lenet_sgd_inv", "TEST"), train)
    for mine, theirs in zip(test.learned, train.learned, strict=True):
        assert test.tensor(mine.slot).data_ptr() == train.tensor(theirs.slot).data_ptr()
    train.load(Slot(1, 1), np.full(8, 3.0, np.float32))
    np.testing.assert_array_equal(test.weights(Slot(1, 1)), np.full(8, 3.0, np.float32))


def test_the_same_threads_give_the_same_bits() -> None:
    images = np.random.default_rng(1).normal(size=(16, 1, 20, 20)).astype(np.float32)
    feeds: dict[str, Array] = {"data": images, "label": np.arange(16, dtype=np.float32) % 5}
    found = []
    for _ in range(2):
        net = build(read("lenet_sgd_inv", "TRAIN"))
        found.append([net.backward(feeds).loss, *(net.gradient(one.slot).tobytes() for one in net.learned)])
    assert found[0] == found[1]
