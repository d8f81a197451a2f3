"""A store by its URL, and the probe that refuses one whose put-if-absent lets two win."""

from __future__ import annotations

import threading
from pathlib import Path

from pipeline.clock import random_nonce
from pipeline.errors import ConfigError, Exists, PermanentError, PipelineError
from pipeline.settings import Hdfs, Settings
from pipeline.settings.places import folder_of
from pipeline.stores.backends import backend_of, scheme_of
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Lake, Store

RACERS = 8
ROUNDS = 3


def open_bucket(settings: Settings) -> Store:
    """The bucket of an installation.  Raises ConfigError for a kind that there is not."""
    backend = backend_of(settings.bucket.url)
    if backend is not None and backend.bucket is not None:
        return backend.bucket(settings.bucket)
    return _local(settings.bucket.url, settings, "bucket.url", links=True)


def open_lake(settings: Settings, name: str) -> Lake:
    """A lake by its configured name.  Raises ConfigError where the configuration does not say where it is."""
    lake, url = settings.lakes[name], settings.url_of(name)
    backend = backend_of(url)
    if backend is not None and backend.lake is not None:
        return backend.lake(url, lake.hdfs, [feature_set.folder for feature_set in settings.sets.values()])
    return _local(url, settings, f"lakes.{name}.url", links=lake.follow_links)


def open_place(url: str, hdfs: Hdfs, temporary: Path | None = None) -> Lake:
    """A folder of a lake by its URL or path alone, without a configuration.

    temporary: of a folder on this host, where what is written lies first; at its top when absent.

    Raises ConfigError: no such folder, or a URL of another kind.
    """
    scheme, backend = scheme_of(url), backend_of(url)
    if backend is not None and backend.lake is not None:
        return backend.lake(url, hdfs, ())
    if scheme not in ("", "file"):
        raise ConfigError(
            f"{url} is not a lake",
            f"{scheme}:// is not supported for a lake",
            "name a folder, or hdfs://host:port/folder",
        )
    path = Path(url.removeprefix("file://")).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"no folder {path}", "", "correct the path")
    return LocalStore(path, fsync=False, temporary=temporary)


def hasty(settings: Settings) -> Settings:
    """The same, but each request is tried once: for who looks at a server and does not want to wait."""
    bucket = settings.bucket.model_copy(update={"retry_seconds": 0.0})
    lakes = {
        name: lake.model_copy(update={"hdfs": lake.hdfs.model_copy(update={"retry_seconds": 0.0})})
        for name, lake in settings.lakes.items()
    }
    return settings.model_copy(update={"bucket": bucket, "lakes": lakes})


def _local(url: str, settings: Settings, key: str, *, links: bool) -> LocalStore:
    root = folder_of(url)
    if root is None:
        raise ConfigError(
            f"{key}: {scheme_of(url)}:// is not supported",
            url,
            "a bucket is a folder or s3://bucket/prefix; a lake is a folder or hdfs://host:port/folder",
        )
    # The whole file system as a lake (a person's own list): nothing is written at its top.
    temporary = Path(settings.state) / "tmp" if root == Path("/") else None
    return LocalStore(root, fsync=settings.bucket.fsync, temporary=temporary, links=links)


def probe(store: Store, prefix: str) -> None:
    """Race a few writers for one key, some times over.  Raises PermanentError when the store lets two win."""
    for _ in range(ROUNDS):
        key = f"{prefix}probe-{random_nonce()}"
        won = _race(store, key)
        store.delete(key)
        if won != 1:
            raise PermanentError(
                f"{store!r} does not honour put-if-absent: {won} of {RACERS} writers won one key",
                "two hosts could both believe that their result is the valid one",
                "use a server with conditional writes (If-None-Match)",
            )


def _race(store: Store, key: str) -> int:
    barrier = threading.Barrier(RACERS)
    won: list[int] = []
    errors: list[PipelineError] = []

    def write(number: int) -> None:
        barrier.wait()
        try:
            store.put_new(key, b"%d" % number)
            won.append(number)
        except Exists:
            pass
        except PipelineError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors and not won:
        raise errors[0]
    return len(won)
