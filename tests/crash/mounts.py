"""Run inside a mount namespace of its own: a disk of a daemon at work becomes read-only or full, then good again.

`python -m tests.crash.mounts FOLDER lake|bucket|state`; prints what was delivered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.crash.site import Site
from tests.crash.stories import ship_some
from tests.crash.test_faults import Daemon, daemon, until
from tests.crash.zygote import Zygote

CAUSES = {"lake": "EROFS", "bucket": "EROFS", "state": "ENOSPC"}
LONG_ENOUGH = 1.0
"""Some polls, in seconds."""


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(path: Path) -> None:
    """Take all that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return


def main(folder: Path, what: str) -> None:
    zygote = Zygote()
    site = Site(folder, zygote)
    disk = {"lake": site.lake, "bucket": site.bucket, "state": site.state}[what]
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        running = daemon(site)
        running.says("started")
        until(lambda: any(site.bucket.glob("shop/h/alive/*")), lambda: running.log)
        if what == "state":
            fill(disk / "filler")
            ship_some(site)
        else:
            ship_some(site)
            mount(disk, "ro")
        running.says(CAUSES[what])
        time.sleep(LONG_ENOUGH)
        (disk / "filler").unlink() if what == "state" else mount(disk, "rw")
        finish(running)
        print(json.dumps({"rows": site.rows()}))
    finally:
        zygote.close()


def finish(running: Daemon) -> None:
    """Everything is delivered, by itself."""
    site = running.site
    until(lambda: bool(site.rows()) and site.nothing_open(), lambda: running.log + site.said)
    running.delivers(site)


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]), sys.argv[2])
