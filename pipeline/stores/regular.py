"""Files and nothing else: pipes and devices are neither waited for nor read, and no link leads out of a folder."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from pipeline.errors import NotAFile

_KINDS = {
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


def kind(mode: int) -> str:
    """What stands there when it is neither a file nor a folder, in words; else empty."""
    return _KINDS.get(stat.S_IFMT(mode), "")


def is_text(name: str) -> bool:
    """Whether a name is UTF-8 and can stand in a plan."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder's or leads below it; both without links and `..`."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def open_file(path: str, top: str = "") -> BinaryIO:
    """A file to read.  top: a folder without links, as the path is; a link put there meanwhile is not followed.

    Raises NotAFile for a pipe, a socket or a device: these are not waited for, and not read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    handle = _open_beneath(path, top, flags) if top else os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if what := "a folder, not a file" if stat.S_ISDIR(mode) else kind(mode):
            raise NotAFile(f"{path} is {what}", "", "name a file")
        return open(path, "rb", opener=lambda _path, _flags: handle)
    except BaseException:
        os.close(handle)
        raise


def _open_beneath(path: str, top: str, flags: int) -> int:
    """Part by part, since a link in any of them may have been put there since they were looked at."""
    *folders, last = path.removeprefix(top.rstrip("/")).strip("/").split("/")
    handle = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        return os.open(last or ".", flags | os.O_NOFOLLOW, dir_fd=handle)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotAFile(
                f"{path} has become a link", "it was not a link a moment ago", "find out which program writes there"
            ) from error
        raise
    finally:
        os.close(handle)
