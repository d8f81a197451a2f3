"""A training that wants more memory than it gets: told alike, whichever library asked for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipeline.errors import OutOfMemory

_SAYS = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")
"""What torch and its kernels raise a RuntimeError with."""


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Raises OutOfMemory in place of what Python and the engine raise where memory ends."""
    try:
        yield
    except MemoryError as error:
        raise _told(error) from error
    except RuntimeError as error:
        if not any(one in str(error) for one in _SAYS):
            raise
        raise _told(error) from error


def _told(error: BaseException) -> OutOfMemory:
    return OutOfMemory(
        "the training wants more memory than this process may have",
        next(iter(str(error).splitlines()), ""),
        "lower batch_size and raise iter_size by as much, or train on a larger host; "
        "`python -m pipeline.training check` says what it takes",
    )
