"""The servers that tests of all parts share; each starts when the first test asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.environment import DISK
from tests.servers import hdfs, kerberos, postgres, s3

os.environ[DISK] = "100"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for tests that use the library by hand


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Whoever runs the tests in the background of a shell has interrupts ignored, in all children, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("tests.figures")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """An S3 server with the bucket `shared`, for tests that do it no harm; each takes a prefix of its own."""
    with s3.running() as server:
        yield server


@pytest.fixture(scope="session")
def hdfs_server() -> Iterator[hdfs.HdfsServer]:
    """A NameNode and a DataNode without security; each test takes a folder of its own and does them no harm."""
    with hdfs.running() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Postgres]:
    """A PostgreSQL; each module takes a database of its own."""
    with postgres.running() as server:
        yield server


@pytest.fixture(scope="session")
def realm() -> Iterator[kerberos.Realm]:
    """A KDC; this process and its children find it by the environment while the session lasts."""
    with kerberos.running() as realm:
        yield realm


@pytest.fixture(scope="session")
def secure_hdfs(realm: kerberos.Realm) -> Iterator[hdfs.HdfsServer]:
    """As hdfs_server, secured by Kerberos."""
    with hdfs.running(realm) as server:
        yield server
