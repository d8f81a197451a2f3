"""Standard streams that whoever started this process has closed."""

from __future__ import annotations

import os
import sys


def with_standard_streams() -> None:
    """Opens the null device in place of each that is closed.

    Else the next file that is opened gets its number: what is printed would go into a snapshot.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if opened != number:  # a number below is closed as well
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
