"""The programs that people make archives with: Debian's bsdtar, 7z and zip."""

from __future__ import annotations

import shutil

from tests.servers.apt import install_packages
from tests.servers.demand import Uninstalled, locked, missing

PACKAGES = {"bsdtar": "libarchive-tools", "7z": "p7zip-full", "zip": "zip"}

__all__ = ["Uninstalled", "install", "program"]


def install() -> None:
    """Those that are missing.  Raises Uninstalled."""
    with locked("archivers"):
        if wanted := [package for name, package in PACKAGES.items() if shutil.which(name) is None]:
            install_packages("the archives of other programs", *wanted)


def program(name: str) -> str:
    """Where it is; a test that cannot have it fails where servers are demanded, else is left out."""
    try:
        if name in PACKAGES:
            install()
    except Uninstalled as error:
        missing(str(error))
    found = shutil.which(name)
    return found or missing(f"{name} is not installed")
