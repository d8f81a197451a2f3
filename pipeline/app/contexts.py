"""One context for each lake of a configuration: where commands, stages and the library's face begin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from pipeline.clock import Process
from pipeline.errors import ConfigError, PipelineError
from pipeline.ledger.protocol import Context, silent, silent_progress
from pipeline.process import logs
from pipeline.process.host import this_process
from pipeline.process.scratch import SPILL
from pipeline.process.stop import Stop
from pipeline.settings import Settings
from pipeline.stage_names import ON_THE_LAKE
from pipeline.stages.following import Following
from pipeline.stores.hurried import brief, hurried
from pipeline.stores.opening import hasty, open_bucket, open_lake
from pipeline.stores.store import Lake, Store


def contexts(
    settings: Settings,
    stages: Sequence[str],
    stopping: Callable[[], bool],
    program: str,
    progress: Callable[[str, int, int], None] = silent_progress,
    process: Process | None = None,
) -> list[Context]:
    """One context for each lake; the lake itself is opened where one of the stages needs it.

    program: the log that a context's warnings go to.  process: who works in them; this process when absent.
    """
    bucket = open_bucket(settings)
    me = process or this_process()
    spill = spill_of(settings, me)
    needs_lake = any(stage in ON_THE_LAKE for stage in stages)
    if needs_lake:
        settings.check_lakes()
    return [
        Context(
            lake_name=name,
            bucket=bucket,
            lake=open_lake(settings, name) if needs_lake else None,
            settings=settings,
            process=me,
            spill=spill,
            stopping=stopping,
            engage=stopping.engage if isinstance(stopping, Stop) else silent,
            say=logs.log(program).warning,
            once=lambda key, text: _once(key, text, program),
            progress=progress,
        )
        for name in sorted(settings.lakes)
    ]


def _once(key: str, text: str, program: str) -> None:
    logs.once(key, text, program)


def sighted(
    settings: Settings,
    program: str,
    lakes: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = silent_progress,
) -> list[Context]:
    """The same with each lake opened where this host can open it: for whoever looks at both sides.

    lakes: only these.  Raises ConfigError for a lake that is not configured.
    """
    for lake in lakes:
        if lake not in settings.lakes:
            raise ConfigError(f"no lake {lake}", "", f"lakes are: {', '.join(sorted(settings.lakes)) or 'none'}")
    found = []
    for context in contexts(settings, ["compute"], lambda: False, program, progress):
        if lakes and context.lake_name not in lakes:
            continue
        try:
            found.append(replace(context, lake=open_lake(settings, context.lake_name)))
        except PipelineError:  # a compute box knows the lake's name only
            found.append(context)
    return found


def opened(settings: Settings, program: str) -> tuple[list[Context], dict[str, PipelineError]]:
    """One context for each lake, with the lake where it can be opened; why not, where it cannot.

    For a person who waits: all stores are asked at the same time, and one that gives no answer within seconds counts
    as one that cannot be used.
    """
    settings = brief(settings)
    unopened: dict[str, PipelineError] = {}
    where = contexts(settings, ["compute"], lambda: False, program)
    lakes: dict[str, Lake] = {}
    for context in where:
        try:
            lakes[f"lake {context.lake_name}"] = open_lake(settings, context.lake_name)
        except PipelineError as error:
            unopened[context.lake_name] = error
    stores: dict[str, Store] = {**lakes, **({"the bucket": where[0].bucket} if where else {})}
    asked = hurried(stores)
    return [
        replace(one, bucket=asked["the bucket"], lake=cast(Lake | None, asked.get(f"lake {one.lake_name}")))
        for one in where
    ], unopened


def lakes_asked_once(settings: Settings, program: str) -> list[Context]:
    """The same without the lakes themselves; a bucket that does not answer is not asked again."""
    return contexts(hasty(settings), ["compute"], lambda: False, program)


def loadable(settings: Settings, name: str, lake: str, program: str) -> Settings:
    """The settings with a set as this host can load it now: where it follows a model, with the files in use.

    Raises PermanentError where its model was never promoted in the lake, or its files are lost.
    """
    if settings.sets[name].model is None:
        return settings
    context = next((one for one in lakes_asked_once(settings, program) if one.lake_name == lake), None)
    if context is None:
        raise ConfigError(f"set {name} follows a model, and takes no lake", "", f"give it one: sets.{name}.lakes")
    return Following(context).settings(name)


def spill_of(settings: Settings, process: Process) -> Path:
    """Where a process has its files on their way; made once there are any."""
    return Path(settings.state) / SPILL / process.name
