"""What the local disks must have free before a run begins anything."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.amounts import size
from pipeline.errors import TemporaryError
from pipeline.settings import Settings


def standing(folder: Path) -> Path:
    """The folder itself, or where it is still to be made the nearest one above it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def demand_free(settings: Settings) -> None:
    """Raises TemporaryError while the disk of the state folder or of the logs has less than compute.free_bytes free."""
    least = settings.compute.free_bytes
    for what, folder in (("state", settings.state), ("logs.folder", settings.logs.folder)):
        free = shutil.disk_usage(standing(Path(folder))).free
        if free < least:
            raise TemporaryError(
                f"the disk of {folder} is nearly full: nothing was begun",
                f"{size(free)} are free there, compute.free_bytes asks for {size(least)}",
                f"delete what is not needed, or set {what} to a folder on another disk; the next run looks again",
            )
