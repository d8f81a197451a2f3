"""This host's own part of the facts: its disks, its programs, ESTOP."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from pipeline.errors import TemporaryError
from pipeline.operations.health.facts import Disk
from pipeline.process.disk import standing
from pipeline.process.lock import holder, left_behind
from pipeline.settings import Settings
from pipeline.settings.places import folder_of
from pipeline.stage_names import ON_THE_LAKE, STAGES
from pipeline.stores.hurried import Patience


def folders(settings: Settings) -> list[Path]:
    """The local folders that a full disk would hurt: state, spill, logs, and stores that are folders."""
    state = Path(settings.state)
    urls = [settings.bucket.url, *(lake.url for lake in settings.lakes.values())]
    stores = [folder for url in urls if url is not None and (folder := folder_of(url)) is not None]
    return [state, state / "spill", Path(settings.logs.folder), *stores]


def disks(settings: Settings) -> tuple[tuple[Disk, ...], dict[str, str]]:
    """Each file system once, by the first of our folders on it; of a folder that is still to be made, its parent's.

    The second: folders that this user may not look at, and why.
    """
    found: dict[int, Disk] = {}
    unseen: dict[str, str] = {}
    for folder in folders(settings):
        try:
            there = standing(folder)
            device, usage = there.stat().st_dev, shutil.disk_usage(there)
        except OSError as error:
            unseen[f"the disk of {folder}"] = str(error.strerror or error)
            continue
        found.setdefault(device, Disk(str(folder), 100.0 * usage.used / max(1, usage.used + usage.free), usage.free))
    return tuple(found.values()), unseen


def disks_in_time(settings: Settings) -> tuple[tuple[Disk, ...], dict[str, str]]:
    """The local disks; one whose mount hangs is none that can be looked at."""
    patience = Patience("a local disk")
    try:
        return patience(partial(disks, settings))
    except TemporaryError as error:
        return (), {"the local disks": f"{error.message}: a mount hangs (a bucket or a lake on NFS?)"}
    finally:
        patience.close()


def programs(state: Path, stages: Iterable[str] = STAGES) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Those that run: who has the lock; and those that ended without being stopped: how."""
    running: dict[str, str] = {}
    died: dict[str, str] = {}
    for stage in stages:
        who = holder(state, stage)
        if who is not None:
            running[stage] = who
        elif last := left_behind(state, stage):
            died[stage] = last
    return running, died


def ran_here(state: Path) -> frozenset[str]:
    """The stages that have ever run on this host."""
    return frozenset(stage for stage in STAGES if (state / f"{stage}.lock").exists())


def has_seen_lakes(state: Path) -> bool:
    """Whether a program that needs the lakes has ever run on this host."""
    return any(stage in ON_THE_LAKE for stage in ran_here(state))
