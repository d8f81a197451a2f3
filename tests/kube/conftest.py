"""One cluster for all tests of this folder, a namespace for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.site import Site
from tests.servers.kube import running


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The kinds and rights are installed; no operator works, and there is no node."""
    folder: Path = tmp_path_factory.mktemp("kube")
    with running() as cluster:
        made = Site(cluster, folder)
        try:
            made.install()
            yield made
        finally:
            made.stop()
