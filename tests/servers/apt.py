"""Debian's packages, where this process may install them and is told to: nobody's machine is changed unasked."""

from __future__ import annotations

import os
import shutil
import subprocess

from tests.servers.demand import Uninstalled, demanded


def install_packages(what: str, *packages: str) -> None:
    """Raises Uninstalled: which packages `what` needs, or what went wrong."""
    if not demanded() or os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Uninstalled(f"{what} needs {' '.join(packages)}: sudo apt-get install {' '.join(packages)}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *packages]
    for command in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        if done.returncode != 0:
            raise Uninstalled(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
