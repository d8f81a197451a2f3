"""One worker of a run (`pipeline.cluster.worker_pool`): takes turns as its parent says, and tells it what was done.

Nobody types this: the parent writes one line of JSON to its standard input, and hears JSON lines from its standard
output.  It looks for no ESTOP and holds no lock: the parent does, and ends it by SIGTERM.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cli.main import unexpected
from pipeline.errors import PipelineError
from pipeline.process.forks import leave
from pipeline.process.host import die_with, leave_no_core

if TYPE_CHECKING:
    from pipeline.cli.wiring.running import Running
    from pipeline.stages.compute import Served
    from pipeline.stages.loop import Turns
    from pipeline.stages.served_sets import Serve

Tell = Callable[[dict[str, Any]], None]


def main() -> int:
    """A worker's whole life: 0, or 1 when it said why it could not work."""
    die_with(int(sys.argv[1]))
    leave_no_core(secret=True)
    tell = _telling()
    instructions = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, instructions["cores"])  # before any library counts them
    try:
        _work(instructions, tell)
    except PipelineError as error:
        words = {"message": error.message, "detail": error.detail, "hint": error.hint}
        tell({"failed": {**words, "exit_code": error.exit_code}})
        return 1
    except Exception as error:
        said = io.StringIO()
        unexpected(error, said)
        message = said.getvalue().strip().removeprefix("hathi: ")
        tell({"failed": {"message": message, "detail": "", "hint": "", "exit_code": 1}})
        return 1
    return 0


def _telling() -> Tell:
    """How to tell the parent; whatever a library prints goes to stderr from now on."""
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(words: dict[str, Any]) -> None:
        pipe.write(json.dumps(words) + "\n")

    return tell


def _work(instructions: dict[str, Any], tell: Tell) -> None:
    """The turns, under everything that can end them.  Imports late: the cores were to be settled first."""
    from pipeline.cli.wiring.running import Program, running
    from pipeline.settings import Settings

    settings = Settings.model_validate_json(instructions["settings"])
    name, stages = instructions["program"], instructions["stages"]
    stacks = f"{name}-{instructions['number']}"
    program = Program(name, settings, stages, speaker="compute", stacks=stacks, echo=logging.WARNING)
    with running(program) as process:
        tell({"name": process.process.name})
        where = process.contexts(lambda *more: tell({"progress": more}))
        lakes = process.lakes(where, _agreed(process.serving(), instructions.get("loaded", {}), tell), strict=True)
        clock = process.process.clock
        ends = clock.monotonic() + settings.compute.max_run_seconds
        with process.beating(where):
            _take_turns(lakes, stages, lambda: clock.monotonic() < ends, process, tell)


def _agreed(serve: Serve, others: Mapping[str, str], tell: Tell) -> Serve:
    """Sets as this worker loads them: told to the parent, and refused where others of the run have another net.

    others: fingerprints by set.
    """
    from pipeline.extraction.same_net import same_net

    def agreed(name: str) -> Served:
        served = serve(name)
        same_net(name, others.get(name, served.fingerprint), served.fingerprint)
        tell({"loaded": [name, served.fingerprint]})
        return served

    return agreed


def _take_turns(
    lakes: list[Turns], stages: list[str], wanted: Callable[[], bool], process: Running, tell: Tell
) -> None:
    """Once round all that is open."""
    from pipeline.cli.wiring.pool import as_told

    rounds, polls = 0, 1
    while rounds < polls and not process.stop():
        rounds += 1
        with process.watch.working():
            for lake in lakes:
                for stage in stages:
                    tally = lake.take(stage, wanted)
                    polls = max(polls, tally.polls_to_see_all)
                    tell({"lake": lake.context.lake_name, "stage": stage, "tally": as_told(tally)})


if __name__ == "__main__":
    leave(main())
