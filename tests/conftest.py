"""The servers that tests of all parts share; each starts when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import s3


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """An S3 server with the bucket `shared`, for tests that do it no harm; each takes a prefix of its own."""
    with s3.running() as server:
        yield server
