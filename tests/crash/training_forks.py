"""A process that has torch imported and forks one training after the other: `python -m tests.crash.training_forks`.

Each fork is a real process; only the imports are not paid again.  A request is a line of JSON on stdin: `words` of the
command (after `child`: of the child), `cwd`, `log`, and `die`: at which os.replace the process kills itself, before or
after it.  The answers are two lines: its pid, then how it ended; before the first one comes `ready`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import cv2  # noqa: F401
import lmdb  # noqa: F401
import torch  # noqa: F401  (imported, and nothing is computed: threads would not live on in a fork)

import pipeline.cli.train
import pipeline.training.data.database
import pipeline.training.data.image_list
import pipeline.training.engine.building
import pipeline.training.job  # noqa: F401
from pipeline.cli.main import main
from pipeline.training.__main__ import main as train_as_child


def die_at(number: int, after: bool) -> None:
    """SIGKILL at the so manieth os.replace from now on: files get their names by it."""
    real, seen = os.replace, [0]

    def replace(*names: Any, **more: Any) -> None:
        seen[0] += 1
        if seen[0] == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*names, **more)
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]


def run(request: dict[str, Any]) -> int:
    os.chdir(request["cwd"])
    handle = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if request.get("die"):
        die_at(*request["die"])
    words = request["words"]
    return train_as_child(words[1:]) if words[0] == "child" else main(words)


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                code = run(asked)
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
