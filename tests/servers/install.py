"""Fills the cache of the tests' servers: `python -m tests.servers.install [NAME...]`, all of NAMES without one.

LONG takes so long to compile that it is made only where it is named.

What cannot be had on this machine is named with its remedy; that is an error only where servers are demanded.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence

from tests.servers.demand import demanded

NAMES = ("s3", "hdfs", "kerberos", "spark", "prometheus", "postgres", "archivers", "chromium")
LONG = ("kube",)


def main(names: Sequence[str]) -> int:
    """The exit code: 1 where a demanded server is missing."""
    code = 0
    for name in names or NAMES:
        if name not in (*NAMES, *LONG):
            print(f"no such server: {name} ({', '.join((*NAMES, *LONG))})", file=sys.stderr)
            return 2
        began = time.monotonic()
        server = importlib.import_module(f"tests.servers.{name}")
        try:
            server.install()
        except server.Uninstalled as error:
            print(f"LEFT OUT: {name}: {error}", flush=True)
            code = 1 if demanded() else code
        else:
            print(f"{name}: ready after {time.monotonic() - began:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
