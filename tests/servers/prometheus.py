"""Prometheus' own judge of rules: Debian's promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers.apt import install_packages
from tests.servers.demand import Uninstalled, locked, missing

PACKAGE = "prometheus"

__all__ = ["Uninstalled", "install", "promtool"]


def install() -> None:
    """Debian's package, where it is missing.  Raises Uninstalled."""
    with locked("prometheus"):
        if shutil.which("promtool") is None:
            install_packages("promtool", PACKAGE)


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """What it says; a test that cannot have it fails where servers are demanded, else is left out."""
    try:
        install()
    except Uninstalled as error:
        missing(str(error))
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=120)
