"""Spark for the tests: pyspark from its own lock, into this environment; it needs a Java of 17 or newer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.servers.demand import Uninstalled

__all__ = ["Uninstalled", "install"]
SCRIPT = Path(__file__).parents[2] / "scripts" / "spark.sh"


def install() -> None:
    """Raises Uninstalled."""
    if shutil.which("java") is None:
        raise Uninstalled("no java here; install a JRE of 17 or newer, e.g. openjdk-17-jre-headless")
    done = subprocess.run([SCRIPT], capture_output=True, text=True)
    if done.returncode:
        raise Uninstalled(f"pyspark cannot be installed: {done.stderr.strip()[-300:]}")
