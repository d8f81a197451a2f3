"""`python -m tests.crash.service_worker CONFIG NAME [ENGINE] [FREEZE]`: a worker, as its command runs it.

ENGINE small: its trainings are `tests.crash.small_trainer`.  FREEZE, as `finish,keep`: it stops itself (SIGSTOP) before
each of these statements reaches the database, or `put` before an object reaches the bucket, until somebody thaws it.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.cli.main import main
from pipeline.service import blobs, queue
from pipeline.service.work import training, worker


def _standing_still(verb: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(verb)
    async def frozen(*given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        return await verb(*given, **named)

    return frozen


if __name__ == "__main__":
    config, name, engine, freeze = [*sys.argv[1:], *["", ""]][:4]
    if engine == "small":
        setattr(worker, "Training", functools.partial(training.Training, module="tests.crash.small_trainer"))  # noqa: B010
    for one in filter(None, freeze.split(",")):
        home: Any = blobs if one == "put" else queue
        setattr(home, one, _standing_still(getattr(home, one)))
    sys.exit(main(["service", "worker", "--config", config, "--name", name]))
