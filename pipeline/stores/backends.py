"""The kinds of servers that a store can be on, each by the scheme of its URL.  What has no scheme is a folder.

A new kind is its verbs in a room of its own and an entry here: how a bucket and a lake of it are opened, which hosts
have to be reached, and what sentences call it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.settings import Bucket, Hdfs
from pipeline.stores.store import Lake, Store


@dataclass(frozen=True, slots=True)
class Backend:
    """One kind of server.

    label: what sentences call it.  schemes: of URLs in settings.  aliases: what others call them, by their name here.
    only_read: schemes of which nothing can be written to.
    """

    label: str
    schemes: tuple[str, ...]
    aliases: Mapping[str, str]
    hosts: Callable[[str, Bucket], list[str]]
    """Of a URL, and of the settings of the bucket."""
    bucket: Callable[[Bucket], Store] | None = None
    lake: Callable[[str, Hdfs, Sequence[str]], Lake] | None = None
    """By its URL, its settings, and folders on it that may be zones of their own."""
    only_read: frozenset[str] = field(default=frozenset())

    @property
    def names(self) -> dict[str, str]:
        """Each scheme that means it, by whomever it is written, and the one of `schemes` that it stands for."""
        return {**{scheme: scheme for scheme in self.schemes}, **self.aliases}


def _s3_bucket(settings: Bucket) -> Store:
    from pipeline.stores.s3.store import S3Store  # boto3 takes its time to import

    return S3Store(settings)


def _s3_hosts(url: str, settings: Bucket) -> list[str]:
    named = urlsplit(settings.endpoint).hostname if settings.endpoint else None
    return [named or (f"s3.{settings.region}.amazonaws.com" if settings.region else "s3.amazonaws.com")]


def _hdfs_lake(url: str, settings: Hdfs, roots: Sequence[str]) -> Lake:
    from pipeline.stores.hdfs.store import HdfsStore  # requests takes its time to import

    return HdfsStore(url, settings, roots=roots)


def _hdfs_hosts(url: str, settings: Bucket) -> list[str]:
    servers = url.partition("://")[2].partition("/")[0]
    return [part.rpartition("@")[2].rsplit(":", 1)[0] for part in servers.split(",")]


S3 = Backend("S3", ("s3",), {"s3a": "s3", "s3n": "s3"}, _s3_hosts, bucket=_s3_bucket)
HDFS = Backend(
    "HDFS",
    ("hdfs", "swebhdfs", "httpfs"),
    {"webhdfs": "hdfs"},
    _hdfs_hosts,
    lake=_hdfs_lake,
    only_read=frozenset({"httpfs"}),
)
BACKENDS = (S3, HDFS)


def scheme_of(url: str) -> str:
    """The scheme of a store's URL; empty for a path."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator else ""


def backend_of(url: str) -> Backend | None:
    """What a store's URL in the settings leads to; None for a folder, and for what no store is on."""
    return next((one for one in BACKENDS if scheme_of(url) in one.schemes), None)


def label_of(url: str) -> str:
    """What sentences call the server of a store's URL; empty for a folder."""
    backend = backend_of(url)
    return "" if backend is None else backend.label


def only_read(url: str) -> bool:
    """Whether a store cannot be written to by this URL."""
    backend = backend_of(url)
    return backend is not None and scheme_of(url) in backend.only_read
