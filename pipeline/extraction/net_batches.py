"""Image bytes -> features: decoders beside each other, and stacks of one shape for the net (docs/protocol.md 5)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from pipeline.clock import Clock
from pipeline.codec.shards import Matrix
from pipeline.errors import NetError
from pipeline.records import Failure

K = TypeVar("K")

STACKS_AHEAD = 4
"""Stacks that wait for the net or are in it, at the most: the net goes on while the caller puts a batch away."""
PARTIAL_SECONDS = 1.0
"""A stack that is not full goes to the net when its oldest image has waited so long, the net is idle, and somebody
waits for these images alone."""
LONGEST_SECONDS = 30.0
"""Or when it has waited so long: a pass costs the same with one image and with all, and where few images of a slow host
have changed, a pass a second would cost as much as computing all of them."""


class FeatureNet(Protocol):
    """A net as the window needs it."""

    @property
    def dim(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    def forward(self, batch: Matrix) -> Matrix:
        """(n, 3, h, w) prepared images, n <= batch_size -> (n, dim) features."""


@dataclass(frozen=True, eq=False)
class Marked:
    """A prepared image, or its feature, of bytes that were damaged: what the decoder said of them."""

    values: Matrix | bytes
    damage: str


Prepare = Callable[[bytes], Matrix | bytes | Marked | Failure]
"""Image bytes -> (3, h, w) for the net; or bytes, which are kept as they are and pass no net."""


@dataclass(frozen=True)
class Trouble:
    """What raised in the net while it held an image."""

    cause: str


Outcome = Matrix | bytes | Marked | Failure | Trouble
"""Of one image: its feature (dim,), a view of what the net gave; the image that is kept; or why it has none."""


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
        self._decoding: deque[tuple[K, Future[Matrix | bytes | Marked | Failure]]] = deque()
        self._stack: list[tuple[K, Matrix, str]] = []
        """With what was said of damage."""
        self._since = 0.0
        self._running: deque[tuple[list[tuple[K, str]], Future[Matrix]]] = deque()

    @property
    def empty(self) -> bool:
        """Nothing is under way."""
        return not (self._decoding or self._stack or self._running)

    def add(self, key: K, content: bytes) -> None:
        """Decode it and hand it to the net; waits where too many are being decoded."""
        while len(self._decoding) >= self._limit:
            self._take_decoded(block=True)
        self._decoding.append((key, self._decoders.submit(self._prepare, content)))

    def turn(self, *, waiting: bool, owed: Callable[[], bool] = lambda: True) -> None:
        """Move on what is ready; block only where a bound is reached.

        waiting: nothing else happens just now.  owed: whether somebody waits for images that are here, and for nothing
        else.
        """
        while self._decoding and self._decoding[0][1].done():
            self._take_decoded(block=False)
        while self._running and self._running[0][1].done():
            self._take_features()
        idle = not self._running and not self._decoding
        waited = self._clock.monotonic() - self._since if waiting and self._stack and idle else 0.0
        if waited >= LONGEST_SECONDS or (waited >= PARTIAL_SECONDS and owed()):
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
        if error is not None:  # one image's doing, whatever it is: those beside it go on
            if not isinstance(error, Exception):
                raise error
            reason = "too_many_pixels" if isinstance(error, MemoryError) else "decode"
            self._ended(key, Failure.of(reason, f"preparing the image failed with {type(error).__name__}"))
            return
        prepared = future.result()
        if isinstance(prepared, Failure):
            self._ended(key, prepared)
            return
        values, damage = (prepared.values, prepared.damage) if isinstance(prepared, Marked) else (prepared, "")
        if isinstance(values, bytes):
            self._ended(key, prepared)
            return
        if not self._stack:
            self._since = self._clock.monotonic()
        self._stack.append((key, values, damage))
        if len(self._stack) >= self._net.batch_size:
            self._forward()

    def _forward(self) -> None:
        stack, self._stack = self._alike(self._stack), []
        while len(self._running) >= STACKS_AHEAD:
            self._take_features()
        images = np.stack([image for _, image, _ in stack])
        named = [(key, damage) for key, _, damage in stack]
        self._running.append((named, self._runner.submit(self._net.forward, images)))

    def _alike(self, stack: list[tuple[K, Matrix, str]]) -> list[tuple[K, Matrix, str]]:
        """Those of the shape that most have: a stack has one shape, whatever a preparation gives."""
        shapes = Counter(np.shape(image) for _, image, _ in stack)
        if len(shapes) == 1:
            return stack
        usual = shapes.most_common(1)[0][0]
        for key, image, _ in stack:
            if np.shape(image) != usual:
                self._ended(key, Failure.of("decode", "the prepared image has another shape than the net expects"))
        return [one for one in stack if np.shape(one[1]) == usual]

    def _take_features(self) -> None:
        named, future = self._running.popleft()
        error = future.exception()
        if isinstance(error, NetError):  # the net is refused: no batch's doing
            raise error
        if error is not None:
            for key, _ in named:
                self._ended(key, Trouble(f"the net failed with {type(error).__name__}"))
            return
        features = future.result()
        finite = [bool(np.isfinite(vector).all()) for vector in features]
        for (key, damage), vector, good in zip(named, features, finite, strict=True):
            if not good:
                self._ended(key, Failure.of("not_finite", "the feature contains NaN or infinity"))
            else:
                self._ended(key, Marked(vector, damage) if damage else vector)
