"""How far bfloat16 is from float32: both compute the same batch with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.training.engine.devices import name_of, rounds_fast
from pipeline.training.engine.net import Array, TorchNetwork
from pipeline.training.network import Feeds, LearnedBlob, Network


@dataclass(frozen=True, slots=True)
class Distance:
    """losses: in float32, in bfloat16.  gradient: the largest difference, as a part of its blob's largest gradient.

    blob: in which; None: no learned blob has a gradient.
    """

    losses: tuple[float, float]
    gradient: float
    blob: LearnedBlob | None

    def said(self) -> str:
        whole, half = self.losses
        by = f"gradients by up to {self.gradient:.1e} of a blob's largest"
        blob = f"{by} ('{self.blob.layer}', blob {self.blob.slot.blob})" if self.blob is not None else "no gradient"
        return f"bfloat16 beside float32 on the next batch: loss {half:.6g}, not {whole:.6g}; it changes {blob}"


def tell(network: Network, feeds: Feeds, say: Callable[[str, str], None]) -> None:
    """Says how far a net in bfloat16 is from float32, and whether its processor is made for that; with a level."""
    assert isinstance(network, TorchNetwork)
    say(distance(network, feeds).said(), "I")
    if not rounds_fast(network.how.device):
        name = name_of(network.how.device)
        say(f"{name} has no unit for bfloat16: it is likely slower here than float32", "W")


def distance(network: TorchNetwork, feeds: Feeds) -> Distance:
    """Of a net in bfloat16.  Everything it holds is as before afterwards.  feeds: what a pass is fed."""
    how = network.how
    found: list[tuple[float, list[Array]]] = []
    for half in (False, True):
        network.how = replace(how, half=half)
        try:
            with network.unchanged():
                loss = network.backward(feeds).loss
                found.append((loss, [network.gradient(one.slot) for one in network.learned]))
        finally:
            network.how = how
    (whole, exact), (rounded, near) = found
    far = list(_far(exact, near))
    worst = int(np.argmax(far)) if far else -1
    return Distance((whole, rounded), far[worst] if far else 0.0, network.learned[worst] if far else None)


def _far(exact: list[Array], near: list[Array]) -> Iterator[float]:
    for one, other in zip(exact, near, strict=True):
        largest = float(np.abs(one).max(initial=0.0))
        yield float(np.abs(one - other).max(initial=0.0)) / largest if largest else 0.0
