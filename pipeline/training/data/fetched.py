"""Where the shards of a dataset are as files of this host: in its folder, or fetched from a store when one is read."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Protocol

from pipeline.clock import random_nonce
from pipeline.errors import FormatError, NotFound
from pipeline.process.host import this_process
from pipeline.process.scratch import folder_of, made, of_a_cluster, of_a_worker
from pipeline.stores.local import typed
from pipeline.stores.store import Store
from pipeline.training.dataset.manifest import Manifest, ShardFile

HINT = "bring the dataset in again, or name another one"
_BLOCK = 2**20
_KIND = "datasets"


class Shards(Protocol):
    """near: they are files of this host already."""

    manifest: Manifest
    near: bool

    def file(self, shard: ShardFile) -> Path:
        """Raises FormatError for one that is not what the manifest says, and as its store does."""

    def close(self) -> None: ...


class Here:
    """Of a folder."""

    near = True

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self.manifest = folder, manifest

    def file(self, shard: ShardFile) -> Path:
        return self._folder / shard.name

    def close(self) -> None:
        """They stay."""


class Fetched:
    """Of a store.  Each shard is fetched once, and held against its SHA-256.

    On a cluster they lie in the local folder of the executor, whose workers share them, and which goes with it; else in
    a folder of this process, up to the end.
    """

    near = False

    def __init__(self, url: str, store: Store, manifest: Manifest) -> None:
        self._url, self._store, self.manifest = url, store, manifest
        mine = hashlib.sha256(f"{url}\n{manifest.text()}".encode()).hexdigest()[:16]
        above = of_a_worker(_KIND)
        self._kept = of_a_cluster() is not None
        self._folder = made((above if self._kept else folder_of(above, this_process().name)) / mine)

    def file(self, shard: ShardFile) -> Path:
        path = self._folder / shard.name
        if not path.exists():
            self._fetch(shard, path)
        return path

    def _fetch(self, shard: ShardFile, path: Path) -> None:
        part = path.with_name(f".{shard.name}-{random_nonce()}")  # two layers may read one dataset at the same time
        hasher = hashlib.sha256()
        try:
            with self._store.open(shard.name) as source, part.open("wb") as target:
                while block := source.read(_BLOCK):
                    hasher.update(block)
                    target.write(block)
            if hasher.hexdigest() != shard.sha256:
                says = "its bytes are others than the manifest says"
                raise FormatError(f"the shard {self._url}/{shard.name} has changed since it was written", says, HINT)
            os.replace(part, path)
        except NotFound as error:
            raise FormatError(f"the shard {self._url}/{shard.name} is missing", error.message, HINT) from error
        except OSError as error:
            raise typed(error, path) from error
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        if not self._kept:
            shutil.rmtree(self._folder.parent, ignore_errors=True)
