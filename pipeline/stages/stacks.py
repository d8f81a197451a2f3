"""Image bytes -> features: decoders beside each other, and stacks of one shape for the net (docs/protocol.md 5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from pipeline.clock import Clock
from pipeline.codec.shards import Matrix
from pipeline.records import Failure

K = TypeVar("K")

STACKS_AHEAD = 4
"""Stacks that wait for the net or are in it, at the most: the net goes on while the caller puts a batch away."""
PARTIAL_SECONDS = 1.0
"""A stack that is not full goes to the net when its oldest image has waited so long and the net is idle."""


class FeatureNet(Protocol):
    """A net as the window needs it."""

    @property
    def dim(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    def forward(self, batch: Matrix) -> Matrix:
        """(n, 3, h, w) prepared images, n <= batch_size -> (n, dim) features."""


Prepare = Callable[[bytes], Matrix | Failure]
"""Image bytes -> (3, h, w) for the net."""


@dataclass(frozen=True)
class Trouble:
    """What raised while it held an image: the net, or what prepares for it."""

    cause: str


Outcome = Matrix | Failure | Trouble
"""Of one image: its feature (dim,), a view of what the net gave; or why it has none."""


class Stacks(Generic[K]):
    """Images in by a key, each outcome told to `ended` within `add`, `turn` and `drain_one`.

    decoding: images that are decoded or wait to be, at the most.
    """

    def __init__(
        self,
        prepare: Prepare,
        net: FeatureNet,
        decoders: Executor,
        runner: Executor,
        clock: Clock,
        decoding: int,
        ended: Callable[[K, Outcome], None],
    ) -> None:
        self._prepare = prepare
        self._net = net
        self._decoders = decoders
        self._runner = runner
        self._clock = clock
        self._limit = decoding
        self._ended = ended
        self._decoding: deque[tuple[K, Future[Matrix | Failure]]] = deque()
        self._stack: list[tuple[K, Matrix]] = []
        self._since = 0.0
        self._running: deque[tuple[list[K], Future[Matrix]]] = deque()

    @property
    def empty(self) -> bool:
        """Nothing is under way."""
        return not (self._decoding or self._stack or self._running)

    def add(self, key: K, content: bytes) -> None:
        """Decode it and hand it to the net; waits where too many are being decoded."""
        while len(self._decoding) >= self._limit:
            self._take_decoded(block=True)
        self._decoding.append((key, self._decoders.submit(self._prepare, content)))

    def turn(self, *, waiting: bool) -> None:
        """Move on what is ready; block only where a bound is reached.  waiting: nothing else happens just now."""
        while self._decoding and self._decoding[0][1].done():
            self._take_decoded(block=False)
        while self._running and self._running[0][1].done():
            self._take_features()
        idle = not self._running and not self._decoding
        if waiting and self._stack and idle and self._clock.monotonic() - self._since >= PARTIAL_SECONDS:
            self._forward()

    def drain_one(self) -> None:
        """Nothing more comes: end the next thing that is under way."""
        if self._decoding:
            self._take_decoded(block=True)
        elif self._stack:
            self._forward()
        elif self._running:
            self._take_features()

    def _take_decoded(self, *, block: bool) -> None:
        key, future = self._decoding.popleft()
        if block:
            wait([future])
        error = future.exception()
        if error is not None:
            self._ended(key, Trouble(f"preparing an image raised {type(error).__name__}"))
            return
        prepared = future.result()
        if isinstance(prepared, Failure):
            self._ended(key, prepared)
            return
        if not self._stack:
            self._since = self._clock.monotonic()
        self._stack.append((key, prepared))
        if len(self._stack) >= self._net.batch_size:
            self._forward()

    def _forward(self) -> None:
        stack, self._stack = self._stack, []
        while len(self._running) >= STACKS_AHEAD:
            self._take_features()
        images = np.stack([image for _, image in stack])
        self._running.append(([key for key, _ in stack], self._runner.submit(self._net.forward, images)))

    def _take_features(self) -> None:
        keys, future = self._running.popleft()
        error = future.exception()
        if error is not None:
            for key in keys:
                self._ended(key, Trouble(f"the net raised {type(error).__name__}"))
            return
        features = future.result()
        finite = [bool(np.isfinite(vector).all()) for vector in features]
        for key, vector, good in zip(keys, features, finite, strict=True):
            self._ended(key, vector if good else Failure.of("not_finite", "the feature holds NaN or infinity"))
