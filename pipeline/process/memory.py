"""Memory that several processes see, without a name: nothing is left of it once the last of them has ended.

It is sealed against a change of its size: nobody can take away what another one reads.
"""

from __future__ import annotations

import fcntl
import os


def is_here() -> bool:
    """Whether this system has such memory."""
    return hasattr(os, "memfd_create")


def unnamed(name: str) -> int:
    """A descriptor of new memory, without a size yet.  name: what /proc says of it; no file's.  Raises OSError."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def fix(handle: int, size: int) -> None:
    """It has so many bytes from now on, zeros.  Raises OSError where the kernel gives none."""
    os.ftruncate(handle, size)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _size_stays())


def fixed(handle: int) -> int | None:
    """The size of memory that another process gave, bytes; None: that one could take it away.

    Raises OSError for what is no memory.
    """
    seals = fcntl.fcntl(handle, fcntl.F_GET_SEALS)
    return os.fstat(handle).st_size if seals & _size_stays() == _size_stays() else None


def _size_stays() -> int:
    return fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
