"""How each child of a worker begins: its folder is its world, and it dies with its worker."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.process import life

OPEN_FILES = 1024
FILE_BYTES = 64 * 2**30


def enter(folder: Path, parent: int) -> None:
    """parent: the process without which this one ends."""
    life.die_with(parent)
    life.leave_no_core()
    life.confine(OPEN_FILES, FILE_BYTES)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.chdir(folder)
