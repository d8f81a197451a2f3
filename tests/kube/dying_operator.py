"""`hathi kube operator` that dies at a named point: `tests.kube.dying_operator WHEN METHOD RESOURCE NUMBER ...`.

WHEN: before or after the request.  NUMBER: which of such requests, from 1 on.  Then follow the operator's own words.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from pipeline.cli.main import main
from pipeline.kube.api import Api, resource_of

POINTS = (
    ("PUT", "trainingjobs/status"),
    ("POST", "services"),
    ("POST", "pods"),
    ("DELETE", "pods"),
    ("POST", "events"),
)
"""Each write of a step (pipeline/kube/perform.py)."""


def plant(when: str, method: str, resource: str, number: int) -> None:
    """From here on the process kills itself there."""
    real = Api.call
    seen = 0

    def call(self: Api, verb: str, path: str, body: Mapping[str, Any] | None = None, **query: str) -> dict[str, Any]:
        nonlocal seen
        here = (verb, resource_of(path)) == (method, resource)
        seen += here
        if here and seen == number and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(self, verb, path, body, **query)
        if here and seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    Api.call = call  # type: ignore[method-assign]


if __name__ == "__main__":
    plant(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.exit(main(sys.argv[5:]))
