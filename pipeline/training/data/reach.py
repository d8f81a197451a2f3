"""How a dataset in a lake or a bucket is reached: by its URL, with the credentials of the configuration.

Only stores that the configuration names are asked: a net's text, which anybody may have written, leads nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.settings import Bucket, Hdfs, Settings
from pipeline.stores.backends import BACKENDS, Backend, scheme_of
from pipeline.stores.opening import open_place
from pipeline.stores.store import Store

_SCHEMES = ", ".join(f"{scheme}://" for one in BACKENDS for scheme in one.schemes)


def is_remote(source: str) -> bool:
    """Whether a data layer's source is a URL, and no path of this host."""
    return scheme_of(source) not in ("", "file")


@dataclass(frozen=True)
class Reach:
    """settings: None: no configuration was read, and only what lies on this host is reached."""

    settings: Settings | None = field(default=None, repr=False)

    @staticmethod
    def of(travelled: str) -> Reach:
        """travelled: as `settings.travelling` writes them; empty: none."""
        return Reach(Settings.model_validate_json(travelled) if travelled else None)

    def store(self, url: str) -> Store:
        """The folder at a URL as a store; nothing is asked of it yet.

        Raises ConfigError for a URL of another kind, and for a server that the configuration does not name.
        """
        scheme, rest = scheme_of(url), url.partition("://")[2].rstrip("/")
        backend = next((one for one in BACKENDS if scheme in one.names), None)
        if backend is None:
            raise ConfigError(f"{scheme}:// is no place for a dataset", f"known: {_SCHEMES}", "copy it to one of these")
        place = f"{backend.names[scheme]}://{rest}"
        if self.settings is None:
            raise ConfigError("no configuration was read", "it says whose credentials count", "give --config FILE")
        if backend.bucket is not None:
            return backend.bucket(_bucket(place, self.settings.bucket, backend))
        return open_place(place, _hdfs(place, self.settings, backend))


def _bucket(place: str, mine: Bucket, backend: Backend) -> Bucket:
    if scheme_of(mine.url) not in backend.schemes or _host(mine.url) != _host(place):
        raise ConfigError(f"the configuration's bucket is {mine.url}", "its credentials are for that one alone",
                          "copy the dataset there, or name that bucket in bucket.url")  # fmt: skip
    return mine.model_copy(update={"url": place})


def _hdfs(place: str, settings: Settings, backend: Backend) -> Hdfs:
    for lake in settings.lakes.values():
        if lake.url is not None and scheme_of(lake.url) in backend.schemes and _host(lake.url) == _host(place):
            return lake.hdfs
    urls = ", ".join(lake.url for lake in settings.lakes.values() if lake.url) or "none"
    raise ConfigError(f"no lake of the configuration is on {_host(place)}", f"lakes are: {urls}",
                      "copy the dataset to one of them, or add [lakes.NAME] with its url and hdfs")  # fmt: skip


def _host(url: str) -> str:
    """What stands between scheme and path: a bucket, or the servers of HDFS in any order."""
    return ",".join(sorted(urlsplit(url).netloc.lower().split(",")))


NOWHERE = Reach()
