"""Faults that a client which asks again never sees: what a store promises holds behind them."""

from __future__ import annotations

from typing import cast

from pipeline.clock import Clock
from pipeline.stores.retrying import Retry
from pipeline.stores.store import Lake
from tests.faults.faults import Fault, Faults
from tests.faults.gate import CHANGES, Gated

FAULTS = (
    Fault("slow down", times=0, every=5),
    Fault("refused", verbs="|".join(CHANGES), times=0, every=3),
    Fault("slow", times=0, every=2, seconds=30.0),
)


def harmless(store: object) -> Lake:
    """The store behind slow answers and refusals before the effect, asked again as stores do; nobody waits."""
    clock = Clock(sleep=lambda seconds: None)
    retry = Retry(60.0, clock)
    struck = Gated(store, Faults(FAULTS, sleep=clock.sleep))
    return cast(Lake, Gated(struck, lambda verb, key, effect: retry(effect)))
