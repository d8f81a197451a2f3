"""Learning rates, to the digit that Caffe prints and stores."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.training import rates
from pipeline.training.rates import Policy

GOLDEN = Path(__file__).parents[2] / "golden" / "training"
F = np.float32


def seen(policy: Policy, iterations: int) -> list[float]:
    step, found = 0, []
    for iteration in range(iterations):
        step = rates.step_of(policy, iteration, step)
        found.append(rates.rate_of(policy, iteration, step))
    return found


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("lenet_sgd_inv", Policy("inv", float(F(0.01)), float(F(0.05)), float(F(0.75)))),
        ("bn_nesterov_step", Policy("step", float(F(0.05)), float(F(0.1)), stepsize=15)),
    ],
)
def test_rates_are_those_that_caffe_used(name: str, policy: Policy) -> None:
    text = (GOLDEN / f"{name}.solver.prototxt").read_text()
    policy = Policy(policy.name, float(F(value(text, "base_lr"))), float(F(value(text, "gamma"))),
                    float(F(value(text, "power"))), policy.stepsize)  # fmt: skip
    with np.load(GOLDEN / f"{name}.npz") as numbers:
        np.testing.assert_allclose(seen(policy, 50), numbers["lr"], rtol=1e-7)


def value(text: str, name: str) -> float:
    return next((float(line.split(":")[1]) for line in text.splitlines() if line.startswith(f"{name}:")), 0.0)


@pytest.mark.parametrize(
    ("policy", "formula"),
    [
        (Policy("fixed", 0.5), lambda i: 0.5),
        (Policy("exp", 0.5, gamma=0.75), lambda i: 0.5 * 0.75**i),
        (Policy("poly", 0.5, power=0.5, max_iter=64), lambda i: 0.5 * (1 - i / 64) ** 0.5),
        (Policy("sigmoid", 0.5, gamma=0.25, stepsize=8), lambda i: 0.5 / (1 + math.exp(-0.25 * (i - 8)))),
        (Policy("multistep", 0.5, gamma=0.25, stepvalues=(3, 9)), lambda i: 0.5 * 0.25 ** ((i >= 3) + (i >= 9))),
    ],
)
def test_each_policy_is_its_formula(policy: Policy, formula: Callable[[int], float]) -> None:
    np.testing.assert_allclose(seen(policy, 32), list(map(formula, range(32))), rtol=3e-7)


def test_multistep_moves_by_one_step_a_reading_at_most() -> None:
    policy = Policy("multistep", 1.0, gamma=0.5, stepvalues=(2, 2, 3))
    assert seen(policy, 6) == [1, 1, 0.5, 0.25, 0.125, 0.125]


def test_what_overflows_is_infinite_or_nan_and_not_an_error() -> None:
    assert rates.rate_of(Policy("exp", 1.0, gamma=1e30), 99, 0) == math.inf
    assert math.isnan(rates.rate_of(Policy("poly", 1.0, power=0.5, max_iter=2), 3, 0))


def test_a_rate_is_a_float32() -> None:
    for rate in seen(Policy("inv", float(F(0.01)), float(F(0.05)), 0.75), 20):
        assert float(F(rate)) == rate
