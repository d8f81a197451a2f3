"""Where a process has its files on their way: a folder of its own on the local disk, which no other user may read.

It is named after the process (`process.host`), so that whoever starts later can tell what a dead one has left.  While
it is in use its process holds a lock in it: hosts, boots and containers may share the folder above.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PermanentError
from pipeline.process.forks import at_the_end
from pipeline.process.host import Owner, owner_of
from pipeline.process.lock import holder, locked

SPILL = "spill"
"""Its name within a state folder."""
PRIVATE = 0o700
_LOCK = "owner"


def made(folder: Path) -> Path:
    """The folder, made where it is not there, for this user alone."""
    folder.parent.mkdir(parents=True, mode=PRIVATE, exist_ok=True)
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    return folder


def folder_of(above: Path, process: str) -> Path:
    """This process's folder, made where it is not there; what dead processes of this host left beside it is deleted."""
    folder = made(above / process)
    for other in above.iterdir():
        if other != folder and is_left(other):
            shutil.rmtree(other, ignore_errors=True)
    return folder


@contextlib.contextmanager
def scratch(above: Path, process: str) -> Iterator[Path]:
    """This process's folder, for as long as it is needed."""
    folder = folder_of(above, process)
    with at_the_end(lambda: shutil.rmtree(folder, ignore_errors=True)), locked(folder, _LOCK):
        yield folder


def is_left(folder: Path) -> bool:
    """Whether a folder is a dead process's.  False of another host's: it is that host's to say.

    Within one boot of one kernel the lock tells, whatever container made it; without one, the process's number does.
    """
    owner = owner_of(folder.name)
    if holder(folder, _LOCK) is not None:
        return False
    if owner in (Owner.GONE, Owner.NOBODY):
        return True
    return owner is Owner.OF_THIS_KERNEL and (folder / f"{_LOCK}.lock").exists()


def of_a_worker(kind: str) -> Path:
    """For this user's workers, below the local folder that a cluster gives them, else below the system's own.

    kind: of what lies in it: who clears up one kind leaves the others alone.
    """
    above = of_a_cluster() or Path(tempfile.gettempdir())
    return made(private_folder(above, "hathi") / kind)


def of_a_cluster() -> Path | None:
    """The first of Spark's and YARN's variables.  Spark's is one executor's alone, and goes with it."""
    for name in ("SPARK_LOCAL_DIRS", "LOCAL_DIRS"):
        first = os.environ.get(name, "").split(",")[0]
        if first and os.path.isdir(first):
            return Path(first)
    return None


def private_folder(above: Path, name: str) -> Path:
    """A folder of this user's within one that all may write.  Raises PermanentError: somebody else has made it."""
    folder = above / f"{name}-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=PRIVATE)
    stat = folder.lstat()
    if folder.is_symlink() or stat.st_uid != os.geteuid() or stat.st_mode & 0o077:
        hint = "remove the folder, or name another folder for temporary files (TMPDIR)"
        raise PermanentError(
            f"{folder} can be changed by other users", f"the folder belongs to user {stat.st_uid}", hint
        )
    return folder
