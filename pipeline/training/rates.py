"""The learning rate of an iteration: Caffe's seven policies, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")


@dataclass(frozen=True, slots=True)
class Policy:
    """lr_policy with the numbers that it reads.  Every float is a float32's value, as in Caffe's messages."""

    name: str
    base: float
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalues: tuple[int, ...] = ()
    max_iter: int = 0


def step_of(policy: Policy, iteration: int, before: int) -> int:
    """Caffe's current_step once the rate of this iteration is read; `before`: what it was.

    multistep moves by one step at each reading at most: two equal stepvalues take two iterations.
    """
    if policy.name == "step":
        return iteration // policy.stepsize
    if policy.name == "multistep":
        due = before < len(policy.stepvalues) and iteration >= policy.stepvalues[before]
        return before + due
    return before


def zero_from(policy: Policy) -> int | None:
    """The iteration from which on every rate is 0; None: there is none before max_iter."""
    if policy.base == 0:
        return 0
    if policy.gamma == 0:
        match policy.name:
            case "step":
                return policy.stepsize
            case "multistep":
                return policy.stepvalues[0] if policy.stepvalues else None
            case "exp":
                return 1
    return None


def rate_of(policy: Policy, iteration: int, step: int) -> float:
    """The rate by which the update of this iteration (0: the first) goes; `step`: as `step_of` gave it.

    A float32's value.  What overflows is infinite, and a root of a negative number is NaN, as in C.
    """
    base, gamma = np.float32(policy.base), policy.gamma
    rate: np.floating[Any]
    with np.errstate(all="ignore"):
        match policy.name:
            case "fixed":
                rate = base
            case "step" | "multistep":
                rate = np.float64(base) * _power(gamma, step)
            case "exp":
                rate = np.float64(base) * _power(gamma, iteration)
            case "inv":
                rate = base * np.float32(
                    _power(np.float32(1) + np.float32(gamma) * np.float32(iteration), -policy.power)
                )
            case "poly":
                left = np.float32(1) - np.float32(iteration) / np.float32(policy.max_iter)
                rate = base * np.float32(_power(left, policy.power))
            case "sigmoid":
                risen = np.exp(-np.float32(gamma) * (np.float32(iteration) - np.float32(policy.stepsize)))
                rate = base * (np.float32(1) / (np.float32(1) + risen))
            case unknown:
                raise ValueError(f"unknown policy {unknown}")
        return float(np.float32(rate))


def _power(number: float | np.float32, exponent: float) -> np.float64:
    """As C's pow: infinite or NaN where Python's operator raises."""
    return np.float64(np.power(np.float64(number), np.float64(exponent)))
