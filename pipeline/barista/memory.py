"""The memory of a barista, which its customers see."""

from __future__ import annotations

import contextlib
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from pipeline.barista.layout import Array, Layout
from pipeline.errors import FormatError, TemporaryError
from pipeline.process import memory

NAME = "hathi-barista"
"""What /proc says of it; it is no file's name."""

Float32s = NDArray[np.float32]


def made(size: int) -> int:
    """A descriptor of new memory of so many bytes, zeros.  Raises TemporaryError where the kernel gives none."""
    handle = -1
    try:
        handle = memory.unnamed(NAME)
        memory.fix(handle, size)
    except OSError as error:
        if handle >= 0:
            os.close(handle)
        says = f"the system gives no memory of {size:,} bytes that processes share"
        raise TemporaryError(says, str(error), "give fewer slots, or make room") from error
    return handle


def checked(handle: int) -> int:
    """The size of memory that another process gave, bytes.  Raises FormatError where that one could take it away."""
    try:
        size = memory.fixed(handle)
    except OSError as error:
        raise FormatError("the barista gave something that is no memory", str(error)) from error
    if size is None:
        raise FormatError("the barista's memory is not sealed", "its size could change while it is read")
    return size


class Mapped:
    """A part of the memory in this process's addresses."""

    def __init__(self, handle: int, begin: int, size: int, write: bool) -> None:
        """begin: a multiple of the page size."""
        access = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
        self._map = mmap.mmap(handle, size, mmap.MAP_SHARED, access, offset=begin)
        self._begin = begin

    def array(self, one: Array, begin: int = 0) -> Float32s:
        """A view of an array.  begin: of its slot in the memory; 0 for what lies in no slot."""
        count = one.size // 4
        if not count:
            return np.zeros(one.shape, np.float32)
        found = np.frombuffer(self._map, np.float32, count, begin + one.offset - self._begin)
        return found.reshape(one.shape)

    def head(self, size: int) -> bytes:
        """The first bytes of this part."""
        return self._map[:size]

    def put(self, content: bytes) -> None:
        """Writes at its beginning."""
        self._map[: len(content)] = content

    def forget(self, begin: int, size: int) -> None:
        """What stands there is zeros again, and costs no memory."""
        self._map.madvise(mmap.MADV_REMOVE, begin - self._begin, size)

    def close(self) -> None:
        """Ends the mapping; later where an array still stands on it."""
        with contextlib.suppress(BufferError):
            self._map.close()


def whole(handle: int, layout: Layout) -> Mapped:
    """The memory as its holder sees it, with the layout in front."""
    found = Mapped(handle, 0, layout.size, write=True)
    found.put(layout.as_json())
    return found
