"""The most memory that this process held at once.

`ru_maxrss` does not say it: of a child it counts what its parent held before exec as well, so that a child of a large
process may grow unseen.
"""

from __future__ import annotations

from pathlib import Path


def held() -> int:
    """Bytes since the program began, or since `forget`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget() -> int:
    """The most is what is held now; these bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return held()
