"""Memory for batches that is used again: a fresh 40 MB array costs more page faults than its crops cost arithmetic."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from pipeline.nets.graph.lowered import Shape

_SPARE = 8  # arrays that wait


class Buffers:
    """Arrays of one shape.  The memory of one comes back when nothing refers to it any more, not even a view."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._free: deque[NDArray[np.float32]] = deque(maxlen=_SPARE)

    def take(self) -> NDArray[np.float32]:
        """An array of the shape, its values anything."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._shape, np.float32)
        # Through a memoryview: views of an array that lies on another array would refer to that one, and not to it.
        array = np.frombuffer(memory.reshape(-1).data, np.float32)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array.reshape(self._shape)
