"""The environment of a process that a test starts: a person's shell, and not the shell that runs the tests."""

from __future__ import annotations

import os

DISK = "HATHI_HEALTH__DISK_PERCENT"
"""Whoever runs the tests has a full disk or not: a test that judges a disk sets this limit itself."""


def environ(*without: str, **more: str) -> dict[str, str]:
    """This process's variables without Hathi's and without those that begin with one of `without`; `more` is added."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HATHI_", *without))}
    return {**kept, DISK: "100", **more}
