"""A folder as a bucket or as a lake.

put_new: a temporary file, fsync, `link`, which refuses an existing name.  What moves, moves by `renameat2(NOREPLACE)`,
or where there is none by what refuses as well.
Temporary files lie in `.hathi-tmp/` at the top of the store, which no listing shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import BinaryIO

from pipeline.clock import random_nonce
from pipeline.errors import Denied, Exists, NotAFile, NotFound, PermanentError, PipelineError, TemporaryError
from pipeline.stores.regular import is_text, kind, open_file, within
from pipeline.stores.store import Entry, Examined, Listing, Passed, Stat, too_long
from pipeline.stores.walking import LINK_OUT, NOT_UTF_8, Walk

TEMPORARY = ".hathi-tmp"
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def typed(error: OSError, path: Path) -> PipelineError:
    """The typed error of an operating-system error, with what to do."""
    name = errno.errorcode.get(error.errno or 0, "error")
    if error.errno in _FULL:
        hint = "free space on that disk; Hathi then continues by itself"
        return TemporaryError("the disk is full", f"{path}: {name}", hint, 60.0)
    if error.errno in _DENIED:
        return Denied(f"not allowed: {path}", name, "give this user the right to read and write there")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TemporaryError("too many open files", name, "raise the limit: ulimit -n", 10.0)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"nothing at {path}", name)
    return PermanentError(f"cannot use {path}", f"{name}: {error.strerror}", "look for errors of the disk in dmesg")


@contextlib.contextmanager
def _typed(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise typed(error, path) from error


class LocalStore:
    """Store and Lake over a folder.  Keys and paths are relative to it, parts joined by `/`."""

    def __init__(
        self,
        root: Path,
        *,
        fsync: bool = True,
        now: Callable[[], float] = time,
        temporary: Path | None = None,
        links: bool = False,
    ) -> None:
        """temporary: where files are written first, on the same file system; inside the store when absent.

        links: also those that lead out of the folder are followed, for reading and for writing.
        """
        self.root = root
        self._links = links
        self._fsync = fsync
        self._now = now
        self._temporary = temporary or root / TEMPORARY

    def __repr__(self) -> str:
        return f"LocalStore({self.root})"

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        return Listing(self._now(), self._entries(prefix, after, until, folders))

    def get(self, key: str, at_most: int | None = None) -> bytes:
        path = self._path(key)
        with _typed(path), open_file(*self._real(path)) as file:
            content = file.read() if at_most is None else file.read(at_most + 1)
        if at_most is not None and len(content) > at_most:
            raise too_long(key, at_most)
        return content

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        with _typed(path):
            return open_file(*self._real(path))

    def put(self, key: str, body: bytes | Path) -> None:
        path = self._written(key)
        with _typed(path):
            temporary = self._write(body)
            try:
                self._into(temporary, path, os.replace)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def put_new(self, key: str, body: bytes) -> None:
        path = self._written(key)
        with _typed(path):
            temporary = self._write(body)
            try:
                self._into(temporary, path, _link)
            except FileExistsError as error:
                raise Exists(f"{key} exists") from error
            finally:
                temporary.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        path = self._written(key)
        with _typed(path):
            path.unlink(missing_ok=True)
            self._drop_empty(path.parent)

    def sweep(self, seconds: float) -> int:
        number = 0
        with _typed(self._scratch()):
            for left in self._temporary.iterdir() if self._temporary.exists() else ():
                with contextlib.suppress(FileNotFoundError):
                    if left.stat().st_mtime < self._now() - seconds:
                        left.unlink()
                        number += 1
        return number

    def examine(self, scratch: str) -> Iterator[Examined]:
        key = f"{scratch}examined-{random_nonce()}"
        try:
            self.put_new(key, b"first")
            yield Examined("write", True, f"{self.root} can be written")
            try:
                self.put_new(key, b"second")
                yield Examined(
                    "put-if-absent",
                    False,
                    "two writers could write the same key",
                    "use a file system with hard links (ext4, xfs, NFS)",
                )
            except Exists:
                yield Examined("put-if-absent", True, "a second writer is refused")
            self.rename_new(key, f"{key}-moved")
            self.put(f"{key}-folder/one", b"first")
            self.put(f"{key}-another/one", b"second")
            yield self._examine_folders(f"{key}-folder", f"{key}-another")
        except PipelineError as error:
            yield Examined("write", False, f"{error.message} {error.detail}".rstrip(), error.hint)
        finally:
            for left in (key, f"{key}-moved"):
                with contextlib.suppress(PipelineError):
                    self.delete(left)
            for left in (f"{key}-folder", f"{key}-another"):
                with contextlib.suppress(PipelineError):
                    self.delete_folder(left)

    def _examine_folders(self, one: str, other: str) -> Examined:
        try:
            self.rename_new(one, other)
        except Exists:
            return Examined("rename", True, "files and folders can be moved, and never replace another one")
        hint = "use another file system for this lake: two gateways would overwrite each other's folders"
        return Examined("rename", False, "a folder was moved over another one", hint)

    def credentials_end(self) -> float | None:
        return None

    def forgets(self, prefix: str) -> str:
        return ""

    def stat(self, path: str) -> Stat | None:
        full = self._path(path)
        real, _ = self._real(full)
        try:
            found = os.stat(real)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise typed(error, full) from error
        if what := kind(found.st_mode):
            raise NotAFile(f"{full} is {what}", "", "name a file or a folder")
        folder = stat.S_ISDIR(found.st_mode)
        return Stat(path, 0 if folder else found.st_size, found.st_mtime_ns // 1_000_000, found.st_ino, folder)

    def walk(self, path: str, passed: Passed | None = None) -> Iterator[Stat]:
        real, _ = self._real(self._path(path))
        return Walk(os.path.realpath(real), path, self._links, passed, lambda error, at: typed(error, Path(at))).files()

    def make_folder(self, path: str) -> None:
        full = self._written(f"{path}/x").parent
        with _typed(full):
            full.mkdir(parents=True, exist_ok=True)

    def rename_new(self, source: str, target: str) -> None:
        old, new = self._written(source), self._written(target)
        with _typed(new):
            new.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._into(old, new, _rename_no_replace)
        except FileExistsError as error:
            raise Exists(f"{target} exists") from error
        except FileNotFoundError as error:
            raise NotFound(f"nothing at {source}") from error
        except OSError as error:
            raise typed(error, new) from error

    def rename_over(self, source: str, target: str) -> None:
        old, new = self._written(source), self._written(target)
        with _typed(old):
            new.parent.mkdir(parents=True, exist_ok=True)
            os.replace(old, new)
            self._sync_folder(new.parent)

    def delete_folder(self, path: str) -> None:
        full = self._written(path)
        if full.is_dir():
            with _typed(full):
                shutil.rmtree(full)

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise PermanentError(f"not a key of this store: {key}", "", "keys are relative and hold no `..`")
        return self.root / key

    def _real(self, path: Path) -> tuple[str, str]:
        """The path without its links, and the folder that it may not lead out of; empty: any.  Raises NotAFile."""
        if self._links or self.root == Path("/"):
            return str(path), ""
        real, top = os.path.realpath(path), os.path.realpath(self.root)
        if not within(real, top):
            raise NotAFile(
                f"{path} leads out of the lake by a link",
                f"to {real}",
                "name the real path, or set lakes.NAME.follow_links = true",
            )
        return real, top

    def _scratch(self) -> Path:
        """The folder of temporary files.  Raises NotAFile where it leads out of the store."""
        if self._temporary.parent == self.root:
            self._real(self._temporary)
        return self._temporary

    def _written(self, key: str) -> Path:
        """Where a key is written: no link in its folder may lead out of the store.  Raises NotAFile."""
        path = self._path(key)
        self._real(path.parent)
        return path

    def _write(self, body: bytes | Path) -> Path:
        """A temporary file with the body, on the disk."""
        self._scratch().mkdir(parents=True, exist_ok=True)
        temporary = self._temporary / random_nonce()
        try:
            with temporary.open("xb") as file:
                if isinstance(body, bytes):
                    file.write(body)
                else:
                    with body.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                if self._fsync:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _into(self, source: Path, path: Path, move: Callable[[Path, Path], None]) -> None:
        """Move source to path with path's folder there, though another process may drop it when empty."""
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                move(source, path)
                break
            except FileNotFoundError:
                if not source.exists():
                    raise
        self._sync_folder(path.parent)

    def _sync_folder(self, folder: Path) -> None:
        if not self._fsync:
            return
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _drop_empty(self, folder: Path) -> None:
        """A bucket has no empty folders."""
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _entries(self, prefix: str, after: str, until: str, folders: bool) -> Iterator[Entry]:
        top, _, start = prefix.rpartition("/")
        yield from self._below(f"{top}/" if top else "", start, after, until, folders)

    def _below(self, folder: str, start: str, after: str, until: str, folders: bool) -> Iterator[Entry]:
        """The keys under `folder` (ends in `/`) whose next part begins with `start`, in the order of keys."""
        path = self.root / folder
        try:
            with os.scandir(self._real(path)[0]) as listed:
                children = [self._child(child, folders) for child in listed if child.name.startswith(start)]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise typed(error, path) from error
        for name, unread in sorted(children, key=lambda child: os.fsencode(child[0])):
            key = folder + name
            if until and key > until:
                return
            if not folder and name == TEMPORARY + "/":
                continue
            if key <= after and not (name.endswith("/") and after.startswith(key)):
                continue  # an `after` beyond a folder's own name lies beyond all that is in it, or inside it
            if name.endswith("/"):
                if folders:
                    if key > after:
                        yield Entry(key, 0, 0.0)
                else:
                    yield from self._below(key, "", after, until, False)
            elif key > after:
                try:
                    found = (self.root / key).stat(follow_symlinks=not unread)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise typed(error, self.root / key) from error
                yield Entry(key, found.st_size, found.st_mtime, unread or kind(found.st_mode))

    def _child(self, child: os.DirEntry[str], folders: bool) -> tuple[str, str]:
        """Its name in a listing, and why it is not read.  folders: they are listed, and not gone into."""
        name, unread = child.name, "" if is_text(child.name) else NOT_UTF_8
        if not child.is_symlink():
            return (f"{name}/" if child.is_dir() else name), unread
        try:
            folder = stat.S_ISDIR(child.stat().st_mode)
            self._real(Path(child.path))
        except OSError as error:
            missing = error.errno == errno.ENOENT
            return (
                name,
                "a link whose target does not exist"
                if missing
                else f"a link that cannot be followed: {error.strerror}",
            )
        except NotAFile:
            return name, LINK_OUT
        if folder and not folders and not self._links:
            return name, "a link to a folder"  # it may lead in a circle
        return (f"{name}/" if folder else name), unread


def _rename_no_replace(old: Path, new: Path) -> None:
    """rename(2) that refuses any existing target, an empty folder too.

    NFS, SMB, 9p and some FUSE have no NOREPLACE.  There a file is linked, which refuses what exists; and a folder is
    renamed, which rename(2) itself refuses where another one stands that is not empty, in one instant: ours never are.
    """
    number = _renameat2(old, new)
    if not number:
        return
    if number not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        raise OSError(number, os.strerror(number), str(new))
    if not old.is_dir():
        _link(old, new)
        old.unlink()
        return
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from error
        raise


def _renameat2(old: Path, new: Path) -> int:
    """The system's own, without replacing; 0, or the number of its error."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "renameat2", None)
    if call is None:
        return errno.ENOSYS
    done: int = call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE)
    return ctypes.get_errno() if done else 0


def _link(old: Path, new: Path) -> None:
    """link(2).  Raises PermanentError where the file system has none."""
    try:
        os.link(old, new)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            name = errno.errorcode.get(error.errno, "error")
            hint = "use a file system with hard links (ext4, xfs, NFS), a bucket of S3, or HDFS"
            raise PermanentError(f"the file system of {new} makes no hard links", name, hint) from error
        raise
