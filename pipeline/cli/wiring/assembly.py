"""From settings to stages at work: stores, contexts and turns, as every face uses them."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pipeline
from pipeline.clock import Clock, Process
from pipeline.errors import ConfigError
from pipeline.ledger.protocol import Context, silent, silent_progress
from pipeline.process import logs
from pipeline.process.host import this_process
from pipeline.process.scratch import SPILL, scratch
from pipeline.process.stop import Stop
from pipeline.process.watchdog import Watch, noting
from pipeline.settings import Settings
from pipeline.stage_names import ON_THE_LAKE, STAGES
from pipeline.stages.loop import Turns
from pipeline.stages.served_sets import Serve
from pipeline.stores.opening import open_bucket, open_lake

INSTALLATION = Path(pipeline.__file__).resolve().parents[1]
"""The folder that holds the package, config/, scripts/ and docs/."""


def check_stages(stages: list[str]) -> list[str]:
    """The stages in the pipeline's order.  Raises ConfigError for a name that is none."""
    for stage in stages:
        if stage not in STAGES:
            path = "; a path or a pattern stands behind --refs, in quotes: the shell makes several words of it else"
            more = path if "/" in stage or "." in stage else ""
            raise ConfigError(f"no stage {stage!r}", "", f"stages are: {', '.join(STAGES)}{more}")
    return [stage for stage in STAGES if stage in stages] if stages else list(STAGES)


def add_place(parser: argparse.ArgumentParser) -> None:
    """Which installation a command looks at."""
    place = parser.add_mutually_exclusive_group()
    place.add_argument(
        "--config", type=Path, help=("the configuration file (default: $HATHI_CONFIG, else config/local.toml)")
    )
    place.add_argument(
        "--features", type=Path, metavar="DIR", help=("the folder of --features of an own list, instead of --config")
    )


def place_of(args: argparse.Namespace) -> Path:
    """The configuration that the command's options name."""
    from pipeline.cli.wiring.own_list import config_of

    return config_of(args.features) if args.features else args.config or default_config()


def default_config() -> Path:
    """HATHI_CONFIG, else the embedded default's configuration, beside the package."""
    if named := os.environ.get("HATHI_CONFIG"):
        return Path(named)
    return INSTALLATION / "config" / "local.toml"


def spill_of(settings: Settings, process: Process) -> Path:
    """Where this process has its files on their way; made once there are any."""
    return Path(settings.state) / SPILL / process.name


def spilling(settings: Settings, process: Process) -> contextlib.AbstractContextManager[Path]:
    """The same, for as long as it works."""
    return scratch(Path(settings.state) / SPILL, process.name)


def contexts(
    settings: Settings,
    stages: list[str],
    stopping: Callable[[], bool],
    program: str,
    progress: Callable[[str, int, int], None] = silent_progress,
    process: Process | None = None,
) -> list[Context]:
    """One context for each lake."""
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


def stacks_of(settings: Settings, program: str) -> Path:
    """Where the watchdog of a program writes the stacks of its threads: beside its log."""
    return Path(settings.logs.folder) / f"{program}.stacks"


def attentive(context: Context, watch: Watch) -> Context:
    """The context for work: what gets on in it is noted.  Beats are no progress, and go past it."""

    def progress(stage: str, done: int, to_do: int) -> None:
        if done:
            watch.note()
        context.progress(stage, done, to_do)

    lake = noting(context.lake, watch) if context.lake is not None else None
    return replace(context, bucket=noting(context.bucket, watch), lake=lake, progress=progress)


def serving(
    settings: Settings,
    clock: Clock | None = None,
    noted: Callable[[], None] = lambda: None,
    spill: Path | None = None,
) -> Serve:
    """How a set is loaded: its net, its engine, once for all lakes of this process.

    noted: told of each step.  spill: this process's folder for files on their way.
    """
    made: dict[str, object] = {}

    def serve(name: str):  # type: ignore[no-untyped-def]
        from pipeline.extraction.feature_maker import FeatureMaker  # the net's engine takes its time to import

        if name not in made:
            made[name] = FeatureMaker(settings, name, clock or Clock(), noted, spill)
            logs.log("compute").log(logging.INFO, "set %s: %s", name, made[name].engine)  # type: ignore[attr-defined]
        return made[name]

    return serve


def turns(context: Context, serve: Serve, *, strict: bool) -> Turns:
    """The stages of one lake."""
    streams = context.settings.ship.streams
    readers = ThreadPoolExecutor(streams, "ship") if streams > 1 and context.lake is not None else None
    return Turns(context, serve, strict=strict, readers=readers)
