"""One worker of a run (`pipeline.cluster.worker_pool`): takes turns as its parent says, and tells it what was done.

Nobody types this.  It looks for no ESTOP on its host and holds no lock: the parent does, and ends it by SIGTERM.  An
ESTOP that it meets in the bucket it tells the parent, which says so and stops them all.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.cli.main import unexpected
from pipeline.errors import PipelineError
from pipeline.process.channel import Channel, Gone
from pipeline.process.life import live

if TYPE_CHECKING:
    from pipeline.cli.wiring.running import Running
    from pipeline.settings import FeatureSet
    from pipeline.stages.compute import Served
    from pipeline.stages.following import Asked
    from pipeline.stages.loop import LakeStages
    from pipeline.stages.served_sets import Serve

Tell = Callable[[dict[str, Any]], None]


def work(channel: Channel) -> None:
    """A worker's work.  Raises PipelineError: why it could not be done."""
    instructions, _ = channel.receive()
    os.sched_setaffinity(0, instructions["cores"])  # before any library counts them
    try:
        _work(instructions, lambda words: channel.send(**words))
    except (PipelineError, Gone):
        raise
    except Exception as error:
        said = io.StringIO()
        unexpected(error, said)
        raise PipelineError(said.getvalue().strip().removeprefix("hathi: ")) from error


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
        where = [
            replace(context, engage=_passed_on(context.lake_name, process, tell))
            for context in process.contexts(lambda *more: tell({"progress": more}))
        ]
        lakes = process.lakes(where, _agreed(process.serving(), instructions.get("loaded", {}), tell), strict=True)
        clock = process.process.clock
        ends = clock.monotonic() + settings.compute.max_run_seconds
        with process.beating(where):
            _take_turns(lakes, stages, lambda: clock.monotonic() < ends, process, tell)


def _passed_on(lake: str, process: Running, tell: Tell) -> Callable[[str], None]:
    """What is done where ESTOP stands in the bucket: to the worker itself it is a stop like its parent's."""

    def engage(key: str) -> None:
        tell({"estop": [lake, key]})
        process.stop.ask()

    return engage


def _agreed(serve: Serve, others: Mapping[str, str], tell: Tell) -> Serve:
    """Sets as this worker loads them: told to the parent, and refused where others of the run have another net.

    others: fingerprints by what was asked for: a set, or a set by a promotion.
    """
    from pipeline.extraction.same_net import same_net

    def agreed(asked: Asked, feature_set: FeatureSet) -> Served:
        served = serve(asked, feature_set)
        name = str(asked)
        same_net(name, others.get(name, served.fingerprint), served.fingerprint)
        tell({"loaded": [name, served.fingerprint]})
        return served

    return agreed


def _take_turns(
    lakes: list[LakeStages], stages: list[str], wanted: Callable[[], bool], process: Running, tell: Tell
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
    live(work)
