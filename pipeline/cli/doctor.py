"""Go through this host from the ground up and say, line by line, OK or what to do.

Python and lock file, configuration, disks, names, clocks, lakes, bucket, nets, GPU, cron, locks.  It writes scratch
files only and deletes them again.  Exit codes: 0 all is well, 1 something has to be done, 2 the configuration cannot be
read.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipeline.app import estop
from pipeline.app.contexts import loadable
from pipeline.cli.wiring.assembly import add_place, check_stages, place_of
from pipeline.errors import ConfigError
from pipeline.operations.doctor import machine, nets, packages, programs, stores
from pipeline.operations.doctor.probe import Probe, run_all
from pipeline.operations.health.this_host import ran_here
from pipeline.process.installed import HOME, INSTALLATION, located
from pipeline.process.logs import escape, redact
from pipeline.process.redaction import redact_tree
from pipeline.settings import Settings, load
from pipeline.stage_names import ON_THE_LAKE, STAGES
from pipeline.stages.snapshots import takes
from pipeline.stores.backends import only_read
from pipeline.stores.hurried import brief
from pipeline.stores.opening import open_bucket, open_lake
from pipeline.stores.store import Examined, Store

S = TypeVar("S", bound=Store)
NET_SECONDS = 300.0
GPU_SECONDS = machine.SMI_SECONDS + 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi doctor`."""
    stages = f"stages to check: {', '.join(STAGES)} (default: the stages that have run on this host; if none has, all)"
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=stages)
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, for programs")


def run(args: argparse.Namespace) -> int:
    """0 all is well, 1 something has to be done, 2 the configuration cannot be read."""
    place = place_of(args)
    named = check_stages(args.stages) if args.stages else []
    wrong: ConfigError | None = None
    settings: Settings | None = None
    try:
        settings = load(place, os.environ)
    except ConfigError as error:
        wrong = error
    probes = ground(wrong, place) + (host(settings, named, place) if settings is not None else [])
    good = True
    for area, one in run_all(probes):
        good = good and one.ok
        _say(area, one, args.json)
    if wrong is not None:
        return wrong.exit_code
    return 0 if good else 1


def ground(wrong: ConfigError | None, place: Path) -> list[Probe]:
    """What needs no configuration; where it is wrong, that it is."""

    def refused() -> Iterator[Examined]:
        assert wrong is not None
        yield Examined("read", False, f"{place}: {wrong.message} {wrong.detail}".rstrip(), wrong.hint)

    found = [Probe("python", packages.python), Probe("python", partial(packages.packages, INSTALLATION / "locks"))]
    return found + [Probe("configuration", refused), Probe("gpu", partial(machine.gpus, False), GPU_SECONDS)] * (
        wrong is not None
    )


def host(settings: Settings, named: Sequence[str], place: Path) -> list[Probe]:
    """Everything that the configuration says, from the disks up."""
    state = Path(settings.state)
    stages = list(named) or [one for one in STAGES if one in ran_here(state)] or list(settings.stages)
    on_lake = any(stage in ON_THE_LAKE for stage in stages)
    computes = "compute" in stages
    limit = settings.health.clock_seconds
    asked = brief(settings)
    the_bucket = _once(partial(open_bucket, asked))
    lakes = {name: _once(partial(open_lake, asked, name)) for name in settings.lakes if on_lake}
    opened: list[tuple[str, Callable[[], Store]]] = [("bucket", the_bucket)]
    opened += [(f"lake {name}", lake) for name, lake in lakes.items()]

    probes = [Probe("configuration", partial(_configuration, settings, tuple(stages), place))]
    for folder in (state, state / "spill", Path(settings.logs.folder)):
        probes.append(Probe("disk", partial(machine.disk, folder, settings.health.disk_percent)))
    for one_host in machine.hosts(settings, on_lake):
        probes.append(Probe("names", partial(machine.names, [one_host])))
    for name, store in opened:
        probes.append(Probe("clock", partial(machine.clock, name, store, limit, time.time)))
    for name, lake in lakes.items():
        roots = sorted({one.folder for one in settings.sets.values() if takes(one, name)})
        url = settings.lakes[name].url
        written = url is None or not only_read(url)
        look = partial(stores.lake, lake, roots, written=written)
        probes.append(Probe(f"lake {name}", look))
    probes.append(Probe("bucket", partial(stores.bucket, settings, the_bucket)))
    for name in sorted(settings.sets) if computes else ():
        set_ = partial(_set, settings, name, settings.compute.threads)
        probes.append(Probe(f"set {name}", set_, NET_SECONDS, alone=True))
    if computes:
        needed = any(one.engine == "torch" for one in settings.sets.values())
        probes.append(Probe("gpu", partial(machine.gpus, needed), GPU_SECONDS))
        cron = partial(programs.cron, state, HOME, time.time(), needed=not on_lake)
        probes.append(Probe("cron", cron))
    probes.append(Probe("programs", partial(estop.examined, state, lambda: _places(asked, the_bucket))))
    probes.append(Probe("programs", partial(programs.locks, state)))
    return probes


def _set(settings: Settings, name: str, threads: int) -> Iterator[Examined]:
    """A feature set, with the files that it has in each lake."""
    one = settings.sets[name]
    lakes = [lake for lake in sorted(settings.lakes) if takes(one, lake)] if one.model is not None else [""]
    for lake in lakes:
        mine = loadable(settings, name, lake, "doctor").sets[name]
        yield from nets.feature_set(mine, threads, time.monotonic)


def _places(asked: Settings, bucket: Callable[[], Store]) -> list[estop.Place]:
    """Of ESTOP, in a bucket that is open already."""
    return [replace(one, bucket=bucket()) for one in estop.places_asked_once(asked, "doctor")]


def _once(make: Callable[[], S]) -> Callable[[], S]:
    """What is made when it is first asked for, then the same for all who ask: a client of a store costs its time."""
    lock = threading.Lock()
    made: list[S] = []

    def one() -> S:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return one


def _configuration(settings: Settings, stages: tuple[str, ...], place: Path) -> Iterator[Examined]:
    """What `hathi config check` says; its good news apart."""
    from pipeline.app.config_check import check

    yield Examined("read", True, f"{place}, for {', '.join(stages)}")
    for finding in check(settings, stages, costly=False):
        if finding.level == "error":
            yield Examined(finding.key, False, finding.text, "`hathi config show` says where each value comes from")
        elif finding.level == "warning":
            yield Examined(finding.key, True, f"warning: {finding.text}")


def _say(area: str, one: Examined, as_json: bool) -> None:
    if as_json:
        body = {"area": area, "step": one.step, "ok": one.ok, "said": one.said, "hint": one.hint}
        print(json.dumps(redact_tree(body), sort_keys=True), flush=True)
        return
    said = located(one.said + (f"; to do: {one.hint}" if one.hint else ""))
    print(
        f"{'ok' if one.ok else 'NOT OK':<7} {area:<14} {one.step}: {escape(redact(said))}",
        flush=True,
    )
