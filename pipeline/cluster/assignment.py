"""Batches dealt out to the workers of a cluster: pure, and the same for the same plan."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.stages.opening import BatchTask


def deal(tasks: Sequence[BatchTask], workers: int, spread: int) -> list[tuple[BatchTask, ...]]:
    """At most `workers` hands, none empty, as even as can be.

    A shipment is about one host, so no more than `spread` hands hold batches of one shipment: with a host's limit
    divided by spread, the host never meets more than its limit.  Within a hand, a shipment's batches stay in order.
    """
    shipments: dict[str, list[BatchTask]] = {}
    for task in tasks:
        shipments.setdefault(str(task.name), []).append(task)
    hands: list[list[BatchTask]] = [[] for _ in range(max(1, workers))]
    pieces = [part[first::width] for part in shipments.values() for width in [min(spread, len(part), len(hands))]
              for first in range(width)]  # fmt: skip
    taken: list[set[str]] = [set() for _ in hands]
    for piece in sorted(pieces, key=lambda p: (-len(p), p[0].name, p[0].batch)):
        shipment = str(piece[0].name)
        number = min(range(len(hands)), key=lambda n: (shipment in taken[n], len(hands[n]), n))
        hands[number] += piece
        taken[number].add(shipment)
    return [tuple(sorted(hand, key=lambda t: (t.name, t.batch))) for hand in hands if hand]
