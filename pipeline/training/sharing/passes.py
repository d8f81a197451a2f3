"""The passes of an iteration over shards: this process computes its block, and has everybody's sum at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Slot
from pipeline.training import tree
from pipeline.training.feeding import Feeding
from pipeline.training.network import Feeds, Network, Pass
from pipeline.training.requests import Action
from pipeline.training.sharing.exchange import Exchange
from pipeline.training.statistics import Sums, apart, take_up

F = np.float32


@dataclass(frozen=True)
class Iterated:
    """An iteration's passes, all of them.  loss: their sum, float32.  last: the last one of all, without `judged`.

    asked: what process 0 was asked for by then.
    """

    loss: F
    last: Pass
    asked: Action


class Sharded:
    """passes: of a shard."""

    def __init__(self, net: Network, shards: int, passes: int, exchange: Exchange) -> None:
        self._net, self._shards, self._passes, self._exchange = net, shards, passes, exchange
        self._block = exchange.block(shards)
        self._moving = list(dict.fromkeys(slot for one in net.moving for slot in one.blobs))
        self._shapes = {one.slot: one.shape for one in net.learned}
        self._learning = [one.slot for one in net.learned if one.lr_mult]

    def mine(self, number: int) -> bool:
        """Whether the pass of this number, counted from the beginning of the training, is one of this process."""
        return number % (self._shards * self._passes) // self._passes in self._block

    def iterate(self, feeding: Feeding, run: Callable[[Feeds], Pass], asked: Callable[[], Action]) -> Iterated:
        """One pass after another; then the net has the gradients of all shards, and BatchNorm all their statistics.

        run: one pass with gradients.  asked: what this process is asked for; 0's counts.
        """
        found, told = self.compute(feeding, run, asked)
        return self.settle(found, self._exchange.sum(found, told))

    def compute(
        self, feeding: Feeding, run: Callable[[Feeds], Pass], asked: Callable[[], Action]
    ) -> tuple[tree.Arrays, bytes]:
        """The gradients of this process's shards, summed, and what there is to tell of them."""
        net, done = self._net, list[tuple[Pass, Sums]]()

        def gradients(shard: int) -> tree.Arrays:
            net.clear()
            for _ in range(self._passes):
                feeds = feeding.take()
                done.append(apart(net, partial(run, feeds)))
                self._exchange.alive()
            return [net.take_gradient(slot) for slot in self._learning]

        feeding.skip(self._block.start * self._passes)
        shapes = [self._shapes[slot] for slot in self._learning]
        found = tree.total(self._block, gradients, self._exchange.room(shapes))
        feeding.skip((self._shards - self._block.stop) * self._passes)
        return found, _packed(done, asked(), self._moving)

    def settle(self, found: tree.Arrays, told: Sequence[bytes]) -> Iterated:
        """Gives the net the gradients of all shards; told: of all processes, in their order."""
        net, answers = self._net, [_Told(one, self._moving, self._shapes) for one in told]
        net.clear()
        for slot, values in zip(self._learning, found, strict=True):
            net.place_gradient(slot, values)
        loss = F(0)
        for answer in answers:
            for one, sums in zip(answer.losses, answer.sums, strict=True):
                loss = F(loss + F(one))
                take_up(net, sums)
        return Iterated(loss, answers[-1].last, answers[0].asked)


def _packed(done: Sequence[tuple[Pass, Sums]], asked: Action, moving: Sequence[Slot]) -> bytes:
    """A line of JSON; behind it float32: of each pass what BatchNorm takes up, and the outputs of the last one."""
    last = done[-1][0]
    head = {
        "asked": asked.value,
        "losses": [float(one.loss) for one, _ in done],
        "outputs": {name: list(values.shape) for name, values in last.outputs.items()},
    }
    arrays = [sums[slot] for _, sums in done for slot in moving]
    arrays += list(last.outputs.values())
    return json.dumps(head).encode() + b"\n" + b"".join(one.astype("<f4", copy=False).tobytes() for one in arrays)


class _Told:
    """What one process told of its passes."""

    def __init__(self, content: bytes, moving: Sequence[Slot], shapes: dict[Slot, tuple[int, ...]]) -> None:
        line, _, rest = content.partition(b"\n")
        head = json.loads(line)
        self.asked, self.losses = Action(head["asked"]), head["losses"]
        values = np.frombuffer(rest, "<f4")
        at = 0

        def next_of(shape: Sequence[int]) -> NDArray[np.float32]:
            nonlocal at
            size = int(np.prod(shape, dtype=np.int64))
            at += size
            return values[at - size : at].reshape(shape)

        self.sums: list[Sums] = [{slot: next_of(shapes[slot]) for slot in moving} for _ in self.losses]
        outputs = {name: next_of(shape) for name, shape in head["outputs"].items()}
        self.last = Pass(self.losses[-1], outputs)
