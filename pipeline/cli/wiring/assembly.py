"""From settings to stages at work: which configuration, nets and turns, as every command uses them."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.app.installation import DEFAULT, default_config
from pipeline.app.own_folder import config_of
from pipeline.clock import Clock, Process
from pipeline.errors import ConfigError
from pipeline.ledger.protocol import Context
from pipeline.process import logs
from pipeline.process.scratch import SPILL, scratch
from pipeline.process.watchdog import Watch, noting
from pipeline.settings import Settings
from pipeline.stage_names import STAGES

if TYPE_CHECKING:
    from pipeline.extraction.feature_maker import FeatureMaker
    from pipeline.settings import FeatureSet
    from pipeline.stages.following import Asked
    from pipeline.stages.loop import LakeStages
    from pipeline.stages.served_sets import Serve


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
    place.add_argument("--config", type=Path, help=f"the configuration file (default: {DEFAULT})")
    place.add_argument(
        "--features", type=Path, metavar="DIR", help=("the folder of --features of an own list, instead of --config")
    )


def place_of(args: argparse.Namespace) -> Path:
    """The configuration that the command's options name."""
    return config_of(args.features) if args.features else args.config or default_config()


def spilling(settings: Settings, process: Process) -> contextlib.AbstractContextManager[Path]:
    """Where this process has its files on their way, for as long as it works."""
    return scratch(Path(settings.state) / SPILL, process.name)


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
    say: Callable[[str], None] = lambda text: None,
) -> Serve:
    """How a set is loaded: its net, its engine, once for all lakes of this process.

    Of a set that follows a model the last promotions that were asked for.

    noted: told of each step.  spill: this process's folder for files on their way.  say: told how images are prepared,
    and of a polite limit that sets the pace.
    """
    made: dict[Asked, FeatureMaker] = {}

    def tell(line: str) -> None:
        logs.log("compute").log(logging.INFO, "%s", line)
        say(line)

    def serve(asked: Asked, feature_set: FeatureSet) -> FeatureMaker:
        from pipeline.extraction.feature_maker import FeatureMaker  # the net's engine takes its time to import
        from pipeline.stages.following import with_set
        from pipeline.stages.served_sets import PROMOTIONS

        if asked not in made:
            others = [one for one in made if one.set == asked.set]
            for one in others[: max(0, len(others) + 1 - PROMOTIONS)]:
                del made[one]
            mine = with_set(settings, asked.set, feature_set)
            made[asked] = FeatureMaker(mine, asked.set, clock or Clock(), noted, spill, tell)
            logs.log("compute").log(logging.INFO, "set %s: %s", asked, made[asked].engine)
            tell(f"set {asked}: preprocess {made[asked].preprocessing}")
        return made[asked]

    return serve


def turns(context: Context, serve: Serve, *, strict: bool) -> LakeStages:
    """The stages of one lake."""
    from concurrent.futures import ThreadPoolExecutor

    from pipeline.stages.loop import LakeStages  # all that works: commands that look do without

    streams = context.settings.ship.streams
    readers = ThreadPoolExecutor(streams, "ship") if streams > 1 and context.lake is not None else None
    return LakeStages(context, serve, strict=strict, readers=readers)
