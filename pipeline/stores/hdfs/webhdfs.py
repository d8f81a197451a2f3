"""HDFS over HTTP (WebHDFS) by HdfsCLI: one request at a time, typed errors, the NameNode that is active.

The only module that imports `hdfs`.  Its `strict=False`, which takes a denied right for an absent file, its
`#LATEST` in names and its silent move to another server after half a request are not used.
"""

from __future__ import annotations

import getpass
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

import requests
from hdfs.client import Client, _Request
from requests.adapters import HTTPAdapter

from pipeline.errors import Exists, NotFound, PermanentError, PipelineError, TemporaryError, Unknown
from pipeline.settings import Hdfs
from pipeline.stores.hdfs.errors import Elsewhere, refused, unanswered
from pipeline.stores.store import too_long

R = TypeVar("R")
_CONNECTIONS = 32
"""Kept open, of all threads together."""
_BLOCK = 1 << 18
"""Bytes of a file that are sent at once."""


@dataclass(frozen=True, slots=True)
class Status:
    """What stands at a path.  modified: milliseconds since 1970; id: the inode's."""

    name: str
    length: int
    modified: int
    id: int
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a folder in the server's order.  now: the server's time, seconds since 1970."""

    now: float
    entries: tuple[Status, ...]
    more: bool


class _Adapter(HTTPAdapter):
    """Sends files in larger blocks than the 16 KiB of urllib3, which costs a third less."""

    def init_poolmanager(self, *args: Any, **how: Any) -> None:
        super().init_poolmanager(*args, **how, blocksize=_BLOCK)


class _NameNode(Client):  # type: ignore[misc]
    """HdfsCLI's client of one NameNode: paths as they are, and every answer that is none raised as ours."""

    _list_status_batch = _Request("GET").to_method("LISTSTATUS_BATCH")

    def __init__(self, url: str, settings: Hdfs, session: requests.Session) -> None:
        self._settings = settings
        self.host = url.partition("://")[2]
        super().__init__(url, timeout=(settings.connect_seconds, settings.read_seconds), session=session)

    def resolve(self, hdfs_path: str) -> str:
        return hdfs_path

    def _request(self, method: str, url: str, **how: Any) -> requests.Response:
        try:
            response: requests.Response = super()._request(method, url, **how)
            if response.status_code >= 400:
                raise refused(response, self._settings, _path_of(url))
        except requests.RequestException as error:
            raise unanswered(error, self.host) from error
        if not response.headers.keys() & {"content-length", "transfer-encoding"}:
            raise Unknown(f"{self.host} sent half an answer", "the header ended early", "Hathi tries it again")
        return response

    def send(self, location: str, body: bytes | BinaryIO) -> None:
        """A file's content to the DataNode that the NameNode named.  Stalls are as long as those of answers."""
        timeout = (self._settings.read_seconds, self._settings.read_seconds)
        try:
            response = self._session.put(
                location, data=body, timeout=timeout, headers={"content-type": "application/octet-stream"}
            )
            if response.status_code >= 400:
                raise refused(response, self._settings, _path_of(location))
        except requests.RequestException as error:
            raise unanswered(error, self.host) from error
        except Unknown as error:  # the name is nobody else's
            raise TemporaryError(error.message, error.detail, error.hint, error.delay) from error


class WebHdfs:
    """The requests.  Paths are absolute.  Any may raise TemporaryError, PermanentError, NotFound, Exists."""

    def __init__(self, urls: Sequence[str], settings: Hdfs) -> None:
        """urls: of the NameNodes, `http://host:port`.  Raises ConfigError: Kerberos without its package."""
        session = requests.Session()
        session.trust_env = False  # NameNodes are near: neither a proxy of the environment nor a .netrc is for them
        session.verify = settings.ca_bundle or True
        adapter = _Adapter(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS)
        for scheme in ("http://", "https://"):
            session.mount(scheme, adapter)
        self.tickets = None
        if settings.authentication == "kerberos":
            from pipeline.stores.hdfs.negotiate import Negotiate
            from pipeline.stores.hdfs.tickets import Tickets

            self.tickets = Tickets(settings)
            session.auth = Negotiate(self.tickets)
        else:
            session.params = {"user.name": settings.user or getpass.getuser()}
        self._namenodes = [_NameNode(url, settings, session) for url in urls]
        self._lock = threading.Lock()
        self._active = 0

    @property
    def hosts(self) -> str:
        """The NameNodes, the one that answered last first."""
        return ",".join(one.host for one in self._order())

    def status(self, path: str) -> Status | None:
        """None where nothing stands."""
        try:
            answer = self._ask(lambda one: one._get_file_status(path))
        except NotFound:
            return None
        return _status(_said(answer, "FileStatus"))

    def page(self, path: str, start_after: str) -> Page:
        """The next part of a folder behind a name ("" for the first).  NotFound where there is no folder."""
        answer = self._ask(lambda one: one._list_status_batch(path, startAfter=start_after))
        found = _said(answer, "DirectoryListing")
        entries = tuple(_status(one) for one in found["partialListing"]["FileStatuses"]["FileStatus"])
        if len(entries) == 1 and not entries[0].name:
            raise NotFound(f"{path} is a file, not a folder")
        return Page(date_of(answer), entries, found["remainingEntries"] > 0)

    def now(self) -> float:
        """The server's time, seconds since 1970."""
        return date_of(self._ask(lambda one: one._get_file_status("/")))

    def open(self, path: str, offset: int = 0, length: int | None = None) -> requests.Response:
        """The content from an offset, as a response whose `raw` is read and closed by the caller."""
        answer: requests.Response = self._ask(lambda one: one._open(path, offset=offset or None, length=length))
        return answer

    def read(self, path: str, at_most: int | None = None) -> bytes:
        """The whole content.  Raises TooLong for one of more than `at_most` bytes, by what is announced."""
        with self.open(path) as answer:
            announced = answer.headers.get("content-length", "?")
            if at_most is not None and announced.isdecimal() and int(announced) > at_most:
                raise too_long(path, at_most)
            try:
                content: bytes = answer.content
            except requests.RequestException as error:
                raise TemporaryError(
                    f"reading {path} broke",
                    str(error),
                    "check with hdfs dfsadmin -report that its DataNode runs; Hathi tries it again",
                ) from error
        if announced != str(len(content)):
            raise TemporaryError(f"{path} ended at byte {len(content)} of {announced}", "", "Hathi tries it again")
        return content

    def create(self, path: str, body: bytes | BinaryIO) -> None:
        """Write a file whose name nobody else uses; the folders above it are made."""
        location = self._ask(lambda one: _head(one._create(path, overwrite="true"), "location"))
        self._order()[0].send(location, body)

    def rename(self, source: str, target: str, *, over: bool) -> None:
        """Move, refused where something stands (Exists), or over it.  Unknown where no answer came.

        NotFound: no source; NoFolder: nothing above the target.
        """
        option = "OVERWRITE" if over else "NONE"
        try:
            answer = self._ask(lambda one: one._rename(source, destination=target, renameoptions=option), once=True)
        except NotFound as error:
            if "destination parent" in error.detail:
                raise NoFolder(f"no folder for {target}", error.detail) from error
            raise
        except Exists as error:
            raise Exists(f"{target} exists", error.detail) from error
        if b"boolean" in answer.content:
            raise PermanentError(
                f"{self.hosts} ignores rename options",
                f"asked for {option}, it answered {answer.text.strip()}",
                "if it is an HttpFS gateway, use the NameNode's own port (hdfs://): features can only be "
                "delivered there",
            )

    def make_folder(self, path: str) -> None:
        if not _said(self._ask(lambda one: one._mkdirs(path)), "boolean"):
            raise PermanentError(f"HDFS does not make the folder {path}", "the NameNode answered false")

    def delete(self, path: str, *, recursive: bool = False) -> bool:
        """Whether something was there."""
        answer = self._ask(lambda one: one._delete(path, recursive="true" if recursive else "false"))
        return bool(_said(answer, "boolean"))

    def _ask(self, ask: Callable[[_NameNode], R], *, once: bool = False) -> R:
        """The answer of the first NameNode that serves.

        once: what must not be done twice.  Without an answer it is Unknown at once, and nobody else is asked.
        """
        failed: list[PipelineError] = []
        for one in self._order():
            try:
                answer = ask(one)
            except Elsewhere as error:
                failed.append(error)
            except Unknown as error:
                if once:
                    raise
                failed.append(TemporaryError(error.message, error.detail, error.hint, error.delay))
            else:
                with self._lock:
                    self._active = self._namenodes.index(one)
                return answer
        raise _together(failed)

    def _order(self) -> list[_NameNode]:
        with self._lock:
            return self._namenodes[self._active :] + self._namenodes[: self._active]


class NoFolder(NotFound):
    """The folder of a rename's target is missing."""


def date_of(response: requests.Response) -> float:
    """The server's time of an answer, seconds since 1970, whole seconds (RFC 9110, 6.6.1)."""
    return parsedate_to_datetime(_head(response, "date").partition(" GMT")[0] + " GMT").timestamp()


def _said(answer: requests.Response, name: str) -> Any:
    """A value of an answer's JSON."""
    try:
        return answer.json()[name]
    except (ValueError, KeyError, TypeError) as error:
        raise _half(answer, str(error)) from error


def _head(answer: requests.Response, name: str) -> str:
    """A header of an answer; one whose head was cut off may lack it."""
    if name not in answer.headers:
        raise _half(answer, f"it has no {name}")
    return answer.headers[name]


def _half(answer: requests.Response, why: str) -> TemporaryError:
    hint = "Hathi tries it again; if it lasts, correct lakes.*.url: it needs the port of WebHDFS (9870)"
    return TemporaryError(f"{urlsplit(answer.url).netloc} sent half an answer", why, hint)


def _path_of(url: str) -> str:
    """The path in HDFS that a request is about."""
    return unquote(url.partition("/webhdfs/v1")[2].partition("?")[0])


def _status(found: dict[str, Any]) -> Status:
    return Status(
        name=found["pathSuffix"],
        length=int(found["length"]),
        modified=int(found["modificationTime"]),
        id=int(found.get("fileId", 0)),
        is_folder=found["type"] == "DIRECTORY",
    )


def _together(failed: Sequence[PipelineError]) -> TemporaryError:
    """One error of all NameNodes that do not serve."""
    first = failed[0]
    delay = min(error.delay for error in failed if isinstance(error, TemporaryError))
    if len(failed) == 1:
        return TemporaryError(first.message, first.detail, first.hint, delay)
    said = "; ".join(f"{error.message} ({error.detail})" for error in failed)
    return TemporaryError("no NameNode serves", said, first.hint, delay)
