"""The hostile server and a clock that a test turns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.fetch.asking import Hand
from tests.integration.fetch.hostile import Hostile


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as hostile:
        yield hostile
