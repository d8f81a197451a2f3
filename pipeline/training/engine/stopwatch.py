"""Measures how long each layer of a pass takes, forward and backward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from torch import Tensor


class Stopwatch:
    """Watches passes, and adds up the seconds of each step.

    forward, backward: by step of the plan.  What happens between two events of a pass belongs to the step whose event
    the second one is; in the backward pass, to the step that is at work between them.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.forward: dict[int, float] = defaultdict(float)
        self.backward: dict[int, float] = defaultdict(float)
        self._now, self._at, self._step = now, now(), -1

    def begin(self) -> None:
        """A forward pass begins."""
        self._at = self._now()

    def turn(self) -> None:
        """The backward pass begins."""
        self._at, self._step = self._now(), -1

    def end(self) -> None:
        """The backward pass has ended."""
        if self._step >= 0:
            self._add(self._step)

    def top(self, step: int, top: int, value: Tensor) -> None:
        now = self._now()
        self.forward[step] += now - self._at
        self._at = now

    def bottom_gradient(self, step: int, bottom: int, gradient: Tensor) -> None:
        self._add(step)

    def top_gradient(self, step: int, top: int, gradient: Tensor) -> None:
        self._add(step if self._step < 0 else self._step)
        self._step = step

    def _add(self, step: int) -> None:
        now = self._now()
        self.backward[step] += now - self._at
        self._at = now
