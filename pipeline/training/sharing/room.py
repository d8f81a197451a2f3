"""The gradients of a process in one row of memory, which processes of the same host see as well."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError, TemporaryError
from pipeline.process import memory

NAME = "hathi-training"
"""What /proc says of the memory; it is no file's name."""
_LINE = 16
"""Numbers in 64 bytes, at whose multiples arrays begin, as those of torch and NumPy."""
Float32s = NDArray[np.float32]
Shape = tuple[int, ...]


class Room:
    """Arrays of float32, zeros first.  flat: all of them in one row, with a few numbers between them that mean nothing.

    arrays: views of it.  numbers: of the arrays.
    """

    def __init__(self, shapes: Sequence[Shape], handle: int | None) -> None:
        """handle: of memory without a size, which others see; None: nobody does.  Raises TemporaryError."""
        self.shapes = tuple(shapes)
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
        self.numbers = sum(sizes)
        places = np.cumsum([0, *(-(-size // _LINE) * _LINE for size in sizes)])
        count = int(places[-1])
        if handle is None or not count:
            self.flat: Float32s = np.zeros(count, np.float32)
        else:
            try:
                memory.fix(handle, 4 * count)
                self.flat = np.frombuffer(mmap.mmap(handle, 4 * count), np.float32)
            except OSError as error:
                says = f"the system gives no memory of {4 * count:,} bytes that processes share"
                raise TemporaryError(says, str(error), "give fewer workers, or make room") from error
        self.arrays = [
            self.flat[at : at + size].reshape(shape) for at, size, shape in zip(places, sizes, shapes, strict=False)
        ]

    def part(self, owner: int, owners: int) -> slice:
        """The numbers of the row that one process sums for all."""
        lines = self.flat.size // _LINE
        return slice(lines * owner // owners * _LINE, lines * (owner + 1) // owners * _LINE)

    def of(self, handle: int, name: str) -> Float32s:
        """The row of another process of this host.  Raises PipelineError where its memory is not like this one."""
        try:
            size = memory.fixed(handle)
            if size != self.flat.nbytes:
                raise PipelineError(f"{name} gave memory of another form", f"{size} bytes", "stop all of them")
            return np.frombuffer(mmap.mmap(handle, size), np.float32) if size else self.flat[:0]
        except OSError as error:
            raise TemporaryError(f"the memory of {name} cannot be seen", str(error), "") from error
        finally:
            os.close(handle)
