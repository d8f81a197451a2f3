"""A real browser without a window: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.servers.apt import install_packages
from tests.servers.demand import Uninstalled, locked, missing

PACKAGES = ("chromium", "fonts-dejavu-core")
FLAGS = (
    "--no-sandbox",  # tests run as root in CI
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

__all__ = ["Uninstalled", "browser", "install"]


def install() -> None:
    """Debian's package, where it is missing.  Raises Uninstalled."""
    with locked("chromium"):
        if shutil.which("chromium") is None:
            install_packages("a headless browser", *PACKAGES)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, which ends with the test."""
    try:
        install()
    except Uninstalled as error:
        missing(str(error))
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS), timeout=120_000)
        try:
            yield running
        finally:
            running.close()
