"""What a stage needed goes back to the system before the next one needs other things."""

from __future__ import annotations

import ctypes
import gc
import sys


def give_back() -> None:
    """Free what Python, Arrow and the C library keep for later use; a few milliseconds."""
    gc.collect()
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
