"""A store that lets two writers win is found out before anything is trusted to it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, PermanentError, TemporaryError
from pipeline.settings import Settings
from pipeline.stores.local import LocalStore
from pipeline.stores.opening import probe
from tests.servers.demand import free_port
from tests.simulation.memory import Disk, MemoryStore
from tests.simulation.world import settings_of


class Careless(MemoryStore):
    """Writes whether or not something stands there."""

    def put_new(self, key: str, body: bytes) -> None:
        self.put(key, body)


def test_a_store_that_keeps_put_if_absent_passes_and_nothing_is_left(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    probe(store, "scratch/")
    assert list(store.list("")) == []


def test_a_store_that_lets_two_win_is_refused() -> None:
    with pytest.raises(PermanentError, match="8 of 8 writers won one key"):
        probe(Careless(Disk(time.time)), "")  # type: ignore[arg-type]


def test_two_sets_in_one_root_of_a_lake_are_refused() -> None:
    one = {"net": "n", "blob": "b", "root": "features"}
    with pytest.raises(ValueError, match="give each set a root of its own"):
        settings_of(sets={"a": one, "b": {**one, "root": "features/"}})
    apart = {"lakes": {"x": {"url": "/x"}, "y": {"url": "/y"}}}
    assert isinstance(settings_of(sets={"a": {**one, "lakes": ["x"]}, "b": {**one, "lakes": ["y"]}}, **apart), Settings)


def test_a_kind_of_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    from pipeline.stores.opening import open_bucket

    with pytest.raises(ConfigError, match=r"bucket\.url: gs:// is not supported"):
        open_bucket(settings_of(bucket={"url": "gs://shop/prefix"}))
    with pytest.raises(ConfigError, match=r"bucket\.url names no bucket"):
        open_bucket(settings_of(bucket={"url": "s3:///prefix"}))


def test_who_looks_at_a_server_waits_for_no_second_try() -> None:
    from pipeline.stores.opening import hasty, open_bucket

    bucket = {"url": "s3://shop/prefix", "endpoint": f"http://127.0.0.1:{free_port()}", "region": "r-1"}
    keys = {"access_key": "a", "secret_key": "b", "retry_seconds": 1e9}
    settings = hasty(settings_of(bucket={**bucket, **keys}))
    with pytest.raises(TemporaryError, match="the S3 server cannot be reached"):
        probe(open_bucket(settings), "")
    assert settings.lakes["shop"].hdfs.retry_seconds == 0
