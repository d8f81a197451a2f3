"""The files under a folder of this machine: links, pipes, loops and what may not be read are passed over and told."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.errors import PipelineError
from pipeline.stores.regular import is_text, kind, within
from pipeline.stores.store import Passed, Stat

LINK_OUT = "a link that leads out of its folder; set lakes.NAME.follow_links = true to read such links"
NOT_UTF_8 = "its name is not UTF-8: rename it"


@dataclass(frozen=True)
class Walk:
    """One walk.  top: the folder without links, absolute; name: what it is called in the store.

    links: links that lead out of it are followed, each folder behind them once.  Those that stay in it are followed
    only to what is hidden: all else is found under its own name.  typed: the error of an operating-system error.
    """

    top: str
    name: str
    links: bool
    passed: Passed | None
    typed: Callable[[OSError, str], PipelineError]
    _behind: set[tuple[int, int]] = field(default_factory=set)
    """Folders behind links that were walked."""

    def files(self) -> Iterator[Stat]:
        """In the order of their paths.  Raises what `typed` makes of the folder's own error."""
        try:
            waiting = [self._children(self.top, self.name)]
        except OSError as error:
            raise self.typed(error, self.top) from error
        while waiting:
            child = next(waiting[-1], None)
            if child is None:
                waiting.pop()
                continue
            path, name = child
            try:
                found = self._look(path, name)
                if isinstance(found, Stat):
                    yield found
                elif found is not None:
                    waiting.append(self._children(found, name))
            except OSError as error:
                self._refused(error, path, name)

    def _children(self, path: str, name: str) -> Iterator[tuple[str, str]]:
        with os.scandir(path) as listed:
            children = sorted((child.name for child in listed), key=os.fsencode)
        return iter([(f"{path.rstrip('/')}/{child}", f"{name}/{child}" if name else child) for child in children])

    def _look(self, path: str, name: str) -> Stat | str | None:
        """A file, the path of a folder to go into, or None: passed over."""
        last = name.rpartition("/")[2]
        if last.startswith((".", "_")):
            self._pass(name, "")
            return None
        if not is_text(last):
            self._pass(name, NOT_UTF_8)
            return None
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return self._behind_link(path, name)
        return path if stat.S_ISDIR(found.st_mode) else self._file(found, name)

    def _behind_link(self, path: str, name: str) -> Stat | str | None:
        try:
            found = os.stat(path)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._pass(name, "a link whose target does not exist")
            elif error.errno == errno.ELOOP:
                self._pass(name, "a link that leads in a circle")
            else:
                raise
            return None
        real = os.path.realpath(path)
        if within(real, self.top):
            parts = real.removeprefix(self.top).split("/")
            if not any(part.startswith((".", "_")) for part in parts):
                return None  # also a circle: the folder is being walked
        elif not self.links:
            self._pass(name, LINK_OUT)
            return None
        if stat.S_ISDIR(found.st_mode):
            if within(self.top, real):
                self._pass(name, "a link to a folder above it, which leads in a circle")
                return None
            if (found.st_dev, found.st_ino) in self._behind:
                return None
            self._behind.add((found.st_dev, found.st_ino))
            return real
        return self._file(found, name)

    def _file(self, found: os.stat_result, name: str) -> Stat | None:
        if stat.S_ISREG(found.st_mode):
            return Stat(name, found.st_size, found.st_mtime_ns // 1_000_000, found.st_ino)
        self._pass(name, kind(found.st_mode))
        return None

    def _refused(self, error: OSError, path: str, name: str) -> None:
        """One entry's error is that entry's; what is gone by now was never there."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        if self.passed is None:
            raise self.typed(error, path) from error
        why = (
            "this user may not read it"
            if error.errno in (errno.EACCES, errno.EPERM)
            else f"it cannot be read: {error.strerror}"
        )
        self._pass(name, why)

    def _pass(self, name: str, why: str) -> None:
        if self.passed is not None:
            self.passed(name.encode("utf-8", "backslashreplace").decode() if not is_text(name) else name, why)
