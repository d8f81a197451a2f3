"""Computes shards for a round with nets of its own: in an executor's task, or in the process that trains."""

from __future__ import annotations

import json

import numpy as np

from pipeline.errors import Diverged
from pipeline.training import rates, tree
from pipeline.training.assembly import assemble
from pipeline.training.draws.draws import draws
from pipeline.training.engine.starting import start
from pipeline.training.feeding import Feeding
from pipeline.training.job import OWN_SEED
from pipeline.training.learning import Learning
from pipeline.training.requests import Action
from pipeline.training.sharing.exchange import Alone
from pipeline.training.sharing.passes import Sharded
from pipeline.training.sharing.processes import Share
from pipeline.training.sharing.rounds import Float32s, Round
from pipeline.training.sharing.shards import cut


class Computer:
    """Computes shards, with nets of its own."""

    def __init__(self, share: Share) -> None:
        """In the folder of the training.  Raises SolverError and NetError."""
        wanted = share.wanted()
        start(wanted.how.threads)
        self._read = cut(wanted.read(), wanted.how.shards)
        self._draws = draws(self._read.seed, OWN_SEED)
        self._nets = assemble(self._read, self._draws, wanted.how, lambda says: None, lambda says: None)
        self._net, self._shards = self._nets.train.network, self._read.shards
        self._passes = self._read.update.iter_size // self._shards
        self._learning = Learning(self._read.update, self._net)
        self._threads, self._examples = wanted.data_threads, share.examples * self._passes

    def compute(self, one: Round, block: range) -> tuple[tree.Arrays, bytes]:
        """The sum over a block of the tree, and what there is to tell of it.  Raises Diverged."""
        if one.steps:
            losses: list[list[float]] = []
            found = tree.total(block, lambda shard: self._trained(one, shard, losses))
            return found, json.dumps(losses).encode()
        feeding = self._begin(one, block)
        try:
            sharded = Sharded(self._net, self._shards, self._passes, _Of(block))
            return sharded.compute(feeding, self._net.backward, lambda: Action.NONE)
        finally:
            feeding.close()

    def _begin(self, one: Round, block: range) -> Feeding:
        for blob, values in zip(self._net.learned, one.weights, strict=True):
            self._net.load(blob.slot, values)
        self._draws.restore(one.draws)
        each, passes = self._shards, self._passes
        return Feeding(self._nets.train.sources, self._net.draws_of, self._draws, one.number, self._threads,
                       lambda number: number % (each * passes) // passes in block)  # fmt: skip

    def _trained(self, one: Round, shard: int, losses: list[list[float]]) -> list[Float32s]:
        """A shard's weights and history after its steps, times its examples, and their number."""
        net, step = self._net, one.step
        feeding = self._begin(one, range(shard, shard + 1))
        self._learning.restore(list(one.history))
        mine: list[float] = []
        try:
            for at in range(one.iteration, one.iteration + one.steps):
                feeding.skip(shard * self._passes)
                net.clear()
                mine.append(sum(net.backward(feeding.take()).loss for _ in range(self._passes)) / self._passes)
                feeding.skip((self._shards - shard - 1) * self._passes)
                step = rates.step_of(self._read.policy, at, step)
                rate = rates.rate_of(self._read.policy, at, step)
                broken = self._learning.update(rate, at, lambda clipped: None, self._passes)
                if broken is not None or not np.isfinite(mine[-1]):
                    raise Diverged(f"iteration {at}: shard {shard} diverges in its local steps", f"rate {rate:g}",
                                   "lower base_lr, or take fewer --local-steps")  # fmt: skip
        finally:
            feeding.close()
        losses.append(mine)
        count = np.float32(self._examples * one.steps)
        values = [net.weights(blob.slot) for blob in net.learned]
        values += [net.array(history) for history in self._learning.history]
        return [*(value * count for value in values), np.full(1, count, np.float32)]

    def close(self) -> None:
        """Closes the data."""
        self._nets.close()


class Here:
    """Rounds of this process alone."""

    def __init__(self, share: Share, local_steps: int) -> None:
        self.local_steps, self._share = local_steps, share
        self._computer: Computer | None = None

    def compute(self, one: Round) -> tuple[tree.Arrays, list[bytes]]:
        self._computer = self._computer or Computer(self._share)
        found, told = self._computer.compute(one, range(self._share.shards))
        return found, [told]


class _Of(Alone):
    """Somebody who computes one block."""

    def __init__(self, block: range) -> None:
        self._block = block

    def block(self, shards: int) -> range:
        return self._block
