"""The six solvers' updates: Caffe's own numbers, and its formulas in float32 step by step."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

if importlib.util.find_spec("torch") is None:
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail("torch is not installed: run scripts/torch.sh", pytrace=False)
    pytest.skip("LEFT OUT: torch is not installed: scripts/torch.sh", allow_module_level=True)

import torch

from pipeline.training import updates
from pipeline.training.updates import Blob, Update

GOLDEN = Path(__file__).parents[2] / "golden" / "training"
F = np.float32
Array = NDArray[np.float32]


def tensors(weights: Array, gradient: Array, histories: int, lr: float = 1, decay: float = 1) -> Blob:
    flat = torch.from_numpy(weights.ravel().copy())
    return Blob(flat, torch.from_numpy(gradient.ravel().copy()),
                tuple(torch.zeros_like(flat) for _ in range(histories)), lr, decay)  # fmt: skip


def caffes(update: Update, blob: Blob, rates: list[float], gradients: list[Array]) -> tuple[Array, list[Array]]:
    """What sgd_solver.cpp and its five subclasses write, line by line, in float32."""
    w = blob.weights.numpy().copy()
    h = [one.numpy().copy() for one in blob.history]
    m, b2, delta, rms = F(update.momentum), F(update.momentum2), F(update.delta), F(update.rms_decay)
    for iteration, (rate, given) in enumerate(zip(rates, gradients, strict=True)):
        g = given * F(1 / update.iter_size)
        decay = F(update.weight_decay) * F(blob.decay_mult)
        g = g + decay * (w if update.regularization == "L2" else np.sign(w))
        lr = F(rate) * F(blob.lr_mult)
        if update.type == "SGD":
            h[0] = lr * g + m * h[0]
            d = h[0]
        elif update.type == "Nesterov":
            old, h[0] = h[0], lr * g + m * h[0]
            d = (F(1) + m) * h[0] - m * old
        elif update.type == "AdaGrad":
            h[0] = h[0] + g * g
            d = lr * (g / (np.sqrt(h[0]) + delta))
        elif update.type == "RMSProp":
            h[0] = (F(1) - rms) * (g * g) + rms * h[0]
            d = lr * (g / (np.sqrt(h[0]) + delta))
        elif update.type == "AdaDelta":
            h[0] = (F(1) - m) * (g * g) + m * h[0]
            u = g * np.sqrt((h[1] + delta) / (h[0] + delta))
            h[1] = (F(1) - m) * (u * u) + m * h[1]
            d = lr * u
        else:
            t = iteration + 1
            correction = F(math.sqrt(1 - math.pow(b2, t)) / (1 - math.pow(m, t)))
            h[0] = (F(1) - m) * g + m * h[0]
            h[1] = (F(1) - b2) * (g * g) + b2 * h[1]
            d = lr * correction * (h[0] / (np.sqrt(h[1]) + delta))
        w = w - d
    return w, h


@pytest.mark.parametrize("regularization", ["L2", "L1"])
@pytest.mark.parametrize("type", updates.SOLVERS)
def test_an_update_is_caffes_over_many_steps(type: str, regularization: str) -> None:
    random = np.random.default_rng(7)
    momentum = 0.0 if type in ("AdaGrad", "RMSProp") else float(F(0.9))
    update = Update(type, momentum, float(F(0.999)), float(F(1e-6)), float(F(0.95)), float(F(5e-4)), regularization,
                    None, 2)  # fmt: skip
    weights = random.normal(0, 1, 3000).astype(F)
    weights[:5] = 0
    blob = tensors(weights, weights, updates.histories(update, 1), lr=2.0, decay=0.5)
    rates = [float(F(0.01 * 0.97**i)) for i in range(60)]
    gradients = [random.normal(0, 1, 3000).astype(F) for _ in rates]
    wanted, histories = caffes(update, blob, rates, gradients)
    for iteration, (rate, gradient) in enumerate(zip(rates, gradients, strict=True)):
        before = blob.weights.clone()
        blob.gradient.copy_(torch.from_numpy(gradient))
        updates.apply(update, blob, rate, iteration)
        torch.testing.assert_close(before - blob.gradient, blob.weights, rtol=0, atol=0)
    assert far(blob.weights, wanted) < 1e-6
    for one, other in zip(blob.history, histories, strict=True):
        assert far(one, other) < 2e-6


def far(one: torch.Tensor, other: Array) -> float:
    return float(np.abs(one.numpy() - other).max() / np.abs(other).max())


def test_a_first_update_of_real_caffe_from_its_own_raw_gradients() -> None:
    """decay_mult 0 (of convolutions' biases) and unset, lr_mult 2."""
    with np.load(GOLDEN / "lenet_sgd_inv.npz") as numbers:
        keys = [key[3:] for key in numbers.files if key.startswith("g1:")]
        assert len(keys) == 8
        for key in keys:
            bias, conv = key.endswith(":1"), key.startswith("conv")
            lr, decay = (2.0, 0.0 if conv else 1.0) if bias else (1.0, 1.0)
            update = Update("SGD", float(F(0.9)), weight_decay=float(F(5e-4)), iter_size=numbers["batches"].shape[1])
            blob = tensors(numbers[f"w0:{key}"], numbers[f"g1:{key}"], 1, lr, decay)
            updates.apply(update, blob, float(numbers["lr"][0]), 0)
            assert far(blob.weights, numbers[f"w1:{key}"].ravel()) < 2e-7, key


def test_hyper_parameters_are_float32_and_so_is_one_less_momentum() -> None:
    """With Python's 0.999 a run of Adam is 1.1e-4 away after 50 steps."""
    update = Update("Adam", 0.0, float(F(0.999)), 0.0)
    blob = tensors(np.zeros(1, F), np.ones(1, F), 2)
    updates.apply(update, blob, 1.0, 0)
    assert float(blob.history[1][0]) == float(F(1) - F(0.999))


def test_adams_correction_is_a_double_until_it_is_whole() -> None:
    """C's pow gives doubles: 1 less a float32 of 0.998 is 1e-5 away, as a part of it."""
    update = Update("Adam", 0.0, float(F(0.999)), 0.0)
    blob = tensors(np.zeros(1, F), np.ones(1, F), 2)
    blob.history[1].fill_(1)
    blob.gradient.fill_(1)
    updates.apply(update, blob, 1.0, 1)
    assert float(-blob.weights[0]) == pytest.approx(math.sqrt(1 - float(F(0.999)) ** 2), rel=2e-7)


def test_large_blobs_are_updated_in_pieces_as_small_ones_are() -> None:
    random = np.random.default_rng(1)
    values = random.normal(0, 1, (2, 700_001)).astype(F)
    update = Update("Adam", float(F(0.9)), weight_decay=float(F(0.01)))
    blob = tensors(values[0], values[1], 2)
    wanted, _ = caffes(update, blob, [0.01], [values[1]])
    updates.apply(update, blob, float(F(0.01)), 0)
    assert far(blob.weights, wanted) < 3e-7


def test_clipping_takes_the_norm_of_all_gradients_before_iter_size_divides_them() -> None:
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    update = Update("SGD", clip=1.0, iter_size=2)
    got = updates.clipped(update, gradients)
    assert got is not None
    assert (got.norm, got.scale) == (5.0, float(F(0.2)))
    np.testing.assert_allclose([float(gradients[0][0]), float(gradients[1][0])], [0.6, 0.8], rtol=1e-6)
    again = updates.clipped(Update("SGD", clip=10.0), gradients)
    assert again is not None
    assert again.scale == 1.0
    assert updates.clipped(Update("SGD"), gradients) is None


def test_clip_gradients_0_makes_every_gradient_0() -> None:
    gradients = [torch.tensor([3.0])]
    updates.clipped(Update("SGD", clip=0.0), gradients)
    assert float(gradients[0][0]) == 0.0
