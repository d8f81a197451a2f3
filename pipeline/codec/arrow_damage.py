"""Telling damaged bytes from a store or a machine that failed while they were read."""

from __future__ import annotations

import pyarrow as pa

ARROW_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)
"""What pyarrow raises for bytes that are not what they should be, and for files that cannot be read; the last one
for names of columns."""


def damage_of(error: Exception) -> str:
    """What is wrong with the bytes, in pyarrow's words; an error of another kind is raised again."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise error
    return str(error)
