"""An HDFS folder as a lake, over WebHDFS.

put: a temporary file, its length checked, a rename.  put_new: the same with a rename that refuses an existing name.
Temporary files lie in `.hathi-tmp/` of the deepest root that the key is under: a rename can neither leave an encryption
zone nor a mount.  No listing shows them.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipeline.clock import Clock, random_nonce
from pipeline.errors import ConfigError, Denied, NotFound, PermanentError, PipelineError, TemporaryError, Unknown
from pipeline.settings import Hdfs
from pipeline.stores.hdfs.listing import before, in_key_order, pages
from pipeline.stores.hdfs.stream import BUFFER, HdfsStream
from pipeline.stores.hdfs.webhdfs import NoFolder, Page, Status, WebHdfs
from pipeline.stores.retrying import Retry
from pipeline.stores.store import Entry, Examined, Listing, Passed, Stat

R = TypeVar("R")
TEMPORARY = ".hathi-tmp"
SCHEMES = {"hdfs": "http", "swebhdfs": "https", "httpfs": "http"}
_MAKES = 8
"""A folder that another process drops when it is empty is made so often for one rename."""


class HdfsStore:
    """Store and Lake over a folder of HDFS.  Keys and paths are relative to it, parts joined by `/`."""

    def __init__(self, url: str, settings: Hdfs, *, roots: Sequence[str] = (), clock: Clock | None = None) -> None:
        """url: `hdfs://host:port[,host:port]/folder`; roots: folders below it that may be zones or mounts of their own.

        Raises ConfigError: not such a URL, or Kerberos without its package.
        """
        scheme, hosts, self._top = _parts(url)
        self.url = url
        self._clock = clock or Clock()
        self._settings = settings
        self._hdfs = WebHdfs([f"{SCHEMES[scheme]}://{host}" for host in hosts], settings)
        self._retry = Retry(settings.retry_seconds, self._clock)
        self._roots = sorted(set(roots) - {""}, key=len, reverse=True)
        self._only_reads = scheme == "httpfs"

    def __repr__(self) -> str:
        return f"HdfsStore({self.url})"

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        """As Store.  Read by pages of the server's own size (dfs.ls.limit, 1,000); `after` skips no pages."""
        top, _, start = prefix.rpartition("/")
        folder = f"{top}/" if top else ""
        try:
            first = self._page(folder, before(start))
        except NotFound:
            return Listing(self._retry(self._hdfs.now), iter(()))
        return Listing(first.now, self._below(folder, start, after, until, folders, first))

    def get(self, key: str, at_most: int | None = None) -> bytes:
        path = self._path(key)
        return self._retry(lambda: self._hdfs.read(path, at_most))

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        status = self._retry(lambda: self._hdfs.status(path))
        if status is None:
            raise NotFound(f"nothing at {path}")
        if status.is_folder:
            raise PermanentError(f"{path} is a folder, not a file")
        return io.BufferedReader(HdfsStream(self._hdfs, path, status, self._retry), BUFFER)

    def put(self, key: str, body: bytes | Path) -> None:
        path = self._path(key)
        self._writes(key)

        def put() -> None:
            with self._written(key, body) as temporary:
                self._move_over(temporary, path)

        self._retry(put)

    def put_new(self, key: str, body: bytes) -> None:
        path = self._path(key)
        self._writes(key)

        def put() -> None:
            with self._written(key, body) as temporary:
                self._move(temporary, path, over=False)

        self._retry(put)

    def delete(self, key: str) -> None:
        path = self._path(key)
        self._writes(key)
        if self._retry(lambda: self._hdfs.delete(path)):
            self._drop_empty(path)

    def sweep(self, seconds: float) -> int:
        if self._only_reads:
            return 0
        old, number = (self._retry(self._hdfs.now) - seconds) * 1000, 0
        for root in ("", *self._roots):
            folder = self._path(f"{root}/{TEMPORARY}" if root else TEMPORARY)
            try:
                left = [one for one in pages(self._pager(folder), None, "") if one.modified < old]
            except NotFound:
                continue
            for one in left:
                path = f"{folder}/{one.name}"
                number += self._retry(lambda path=path: self._hdfs.delete(path, recursive=True))  # type: ignore[misc]
        return number

    def examine(self, scratch: str) -> Iterator[Examined]:
        from pipeline.stores.hdfs.examination import examine

        return examine(self, self._hdfs, self._settings, scratch, self._clock, only_reads=self._only_reads)

    def credentials_end(self) -> float | None:
        """As Store: the end of the ticket in the cache.  A client with a cookie is believed up to 10 h longer."""
        return self._hdfs.tickets.end() if self._hdfs.tickets is not None else None

    def forgets(self, prefix: str) -> str:
        return ""

    def stat(self, path: str) -> Stat | None:
        full = self._path(path)
        found = self._retry(lambda: self._hdfs.status(full))
        return _stat(path, found) if found is not None else None

    def walk(self, path: str, passed: Passed | None = None) -> Iterator[Stat]:
        folder = f"{path}/" if path else ""
        for found in in_key_order(self._children(folder, "", None)):
            name = folder + found.name
            if found.name.startswith((".", "_")):
                if passed is not None:
                    passed(name, "")
            elif found.is_folder:
                try:
                    yield from self.walk(name, passed)
                except NotFound:
                    continue  # gone since it was listed
                except Denied as error:
                    if passed is None:
                        raise
                    passed(name, f"this user may not read it: {error.message}")
            else:
                yield _stat(name, found)

    def make_folder(self, path: str) -> None:
        full = self._path(path)
        self._writes(path)
        self._retry(lambda: self._hdfs.make_folder(full))

    def rename_new(self, source: str, target: str) -> None:
        old, new = self._path(source), self._path(target)
        self._writes(target)
        self._retry(lambda: self._move(old, new, over=False))

    def rename_over(self, source: str, target: str) -> None:
        """As Lake.  A move whose answer was lost is tried again, and is then NotFound."""
        old, new = self._path(source), self._path(target)
        self._writes(target)
        self._retry(lambda: self._move_over(old, new))

    def delete_folder(self, path: str) -> None:
        full = self._path(path)
        self._writes(path)
        self._retry(lambda: self._hdfs.delete(full, recursive=True))

    def _path(self, key: str) -> str:
        if key.startswith("/") or any(part in ("..", ".") for part in key.split("/")):
            raise PermanentError(f"not a key of this store: {key}", "", "keys are relative and hold no `.` or `..`")
        if ":" in key:
            raise PermanentError(f"HDFS allows no name with a colon: {key}", "", "rename the file")
        return f"{self._top}/{key}".rstrip("/") or "/"

    def _writes(self, key: str) -> None:
        if self._only_reads:
            raise PermanentError(
                f"Hathi only reads from {self.url}: {key} is not written",
                "HttpFS ignores rename options: two writers could both win",
                "deliver by the NameNode's own port: hdfs://namenode:9870/folder",
            )

    @contextlib.contextmanager
    def _written(self, key: str, body: bytes | Path) -> Iterator[str]:
        """A temporary file with the whole body; forgotten where the move out of it failed."""
        temporary = self._path(self._temporary(key))
        try:
            if isinstance(body, bytes):
                self._hdfs.create(temporary, body)
                length = len(body)
            else:
                with body.open("rb") as file:
                    self._hdfs.create(temporary, file)
                    length = file.tell()
            found = self._hdfs.status(temporary)
            if found is None or found.length != length:
                said = f"{found.length if found else 0} of {length} bytes have arrived"
                raise TemporaryError(f"{key} was written incompletely", said, "Hathi tries it again")
            yield temporary
        except BaseException:
            with contextlib.suppress(PipelineError):  # what stays is swept
                self._hdfs.delete(temporary)
            raise

    def _temporary(self, key: str) -> str:
        root = next((root for root in self._roots if key.startswith(f"{root}/")), "")
        return f"{root}/{TEMPORARY}/{random_nonce()}" if root else f"{TEMPORARY}/{random_nonce()}"

    def _move(self, source: str, target: str, *, over: bool) -> None:
        """A rename with the target's folder there, though another process may drop it when empty."""
        for _ in range(_MAKES):
            try:
                return self._hdfs.rename(source, target, over=over)
            except NoFolder:
                self._hdfs.make_folder(target.rpartition("/")[0])
        raise TemporaryError(
            f"the folder of {target} is deleted again and again", "", "stop the program that deletes folders there"
        )

    def _move_over(self, source: str, target: str) -> None:
        """A move that may be tried again."""
        try:
            self._move(source, target, over=True)
        except Unknown as error:
            raise TemporaryError(error.message, error.detail, error.hint, error.delay) from error

    def _drop_empty(self, path: str) -> None:
        """A bucket has no empty folders.  The folders above a deleted file go, as far as they are empty.

        The roots stay: they may be encryption zones, or have rights of their own.
        """
        folder, roots = path.rpartition("/")[0], {self._path(root) for root in self._roots}
        while len(folder) > len(self._top) and folder not in roots:
            try:
                self._hdfs.delete(folder)
            except PipelineError:
                return
            folder = folder.rpartition("/")[0]

    def _page(self, folder: str, start_after: str) -> Page:
        path = self._path(folder)
        return self._retry(lambda: self._hdfs.page(path, start_after))

    def _pager(self, path: str) -> Callable[[str], Page]:
        return lambda name: self._retry(lambda: self._hdfs.page(path, name))

    def _children(self, folder: str, start: str, first: Page | None) -> Iterator[Status]:
        """The entries of a folder (a key ending in `/`) that begin with `start`, in HDFS's order."""
        found = pages(self._pager(self._path(folder)), first, start)
        return (one for one in found if one.name != TEMPORARY)

    def _below(
        self, folder: str, start: str, after: str, until: str, folders: bool, first: Page | None = None
    ) -> Iterator[Entry]:
        """The keys under `folder` whose next part begins with `start`, in the order of keys."""
        for found in in_key_order(self._children(folder, start, first)):
            key = folder + found.name + ("/" if found.is_folder else "")
            if until and key > until:
                return
            if key <= after and not (found.is_folder and after.startswith(key)):
                continue  # an `after` beyond a folder's own name lies beyond all that is in it, or inside it
            if not found.is_folder:
                yield Entry(key, found.length, found.modified / 1000)
            elif not folders:
                with contextlib.suppress(NotFound):  # it went meanwhile
                    yield from self._below(key, "", after, until, False)
            elif key > after:
                yield Entry(key, 0, 0.0)


def _parts(url: str) -> tuple[str, tuple[str, ...], str]:
    """Scheme, hosts and folder (no `/` at its end) of a lake's URL.  Raises ConfigError."""
    scheme, _, rest = url.partition("://")
    names, _, folder = rest.partition("/")
    hosts = tuple(host for host in names.split(",") if host)
    if scheme not in SCHEMES or not hosts or any(":" not in host for host in hosts):
        raise ConfigError(
            f"not the URL of an HDFS: {url}",
            "hdfs://namenode:port[,namenode:port]/folder; the port is WebHDFS's (9870; swebhdfs: 9871; httpfs: 14000)",
            "name host and port in lakes.*.url",
        )
    folder = "/".join(part for part in folder.split("/") if part)
    return scheme, hosts, f"/{folder}" if folder else ""


def _stat(path: str, found: Status) -> Stat:
    return Stat(path, found.length, found.modified, found.id, found.is_folder)
