"""What a person names for a dataset: a set of the configuration or a root, and tables of labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.app.newest_features import place_at
from pipeline.errors import ConfigError
from pipeline.ledger.layout import Root
from pipeline.settings import Hdfs, Settings
from pipeline.stages.snapshots import takes
from pipeline.stores.local import LocalStore
from pipeline.stores.opening import open_lake, open_place
from pipeline.stores.store import Lake


def root_of(settings: Settings | None, named: str, lake: str | None) -> tuple[Lake, Root, str]:
    """The lake, the root and the name of what `--images` or `--features` says: a set, else the place of a root.

    settings: None where there is no configuration.  lake: of the set, where it has several.  Raises ConfigError.
    """
    if settings is None or named not in settings.sets:
        if lake is not None:
            known = ", ".join(sorted(settings.sets)) if settings else "no configuration was read: --config FILE"
            raise ConfigError(f"--lake {lake} is for a set", f"{named} is none", f"sets: {known}")
        found = place_at(named, Hdfs())
        return *found, named
    one = settings.sets[named]
    lakes = sorted(name for name in settings.lakes if takes(one, name))
    if lake is None and len(lakes) == 1:
        lake = lakes[0]
    if lake is None or lake not in lakes:
        raise ConfigError(f"which lake of set {named}?", "", f"--lake: {', '.join(lakes) or 'none is configured'}")
    return open_lake(settings, lake), Root(one.folder), named


def tables_of(names: Iterable[str]) -> Iterator[tuple[Lake, str]]:
    """Each table of labels, with the lake that it lies on: files, and all files of folders, also hdfs://host:port/path.

    Raises ConfigError for what is not there.
    """
    for name in names:
        lake, path = _place_of(name)
        there = lake.stat(path)
        if there is None:
            raise ConfigError(f"no labels at {name}", "", "correct the path")
        found = [one.path for one in lake.walk(path)] if there.is_folder else [path]
        if not found:
            raise ConfigError(f"no labels at {name}", "the folder is empty", "correct the path")
        yield from ((lake, one) for one in found)


def _place_of(name: str) -> tuple[Lake, str]:
    if "://" in name and not name.startswith("file://"):
        above, _, last = name.rstrip("/").rpartition("/")
        return open_place(above, Hdfs()), last
    path = os.path.abspath(os.path.expanduser(name.removeprefix("file://")))
    return LocalStore(Path("/"), fsync=False), path.lstrip("/")
