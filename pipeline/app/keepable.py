"""Which columns of an own list can stand beside its features, and reading them with its refs."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.app.own_folder import LAKE, SET
from pipeline.clock import Clock
from pipeline.codec.codecs import Forms
from pipeline.errors import ConfigError, FormatError, NotFound
from pipeline.ledger.manifest import Place
from pipeline.settings import Hdfs, Settings
from pipeline.sources.conventions import Sources
from pipeline.sources.found import Found
from pipeline.sources.frozen_files import FrozenFiles
from pipeline.stages.compact.merging import table_schema
from pipeline.stages.snapshots import new_of
from pipeline.stores.opening import open_place
from pipeline.stores.store import Lake


def demand_columns(settings: Settings, keep: Sequence[str]) -> None:
    """Raises ConfigError where a file of the list has no such column, or where features have one of that name."""
    names = table_schema(1).names
    if alike := [name for name in keep if name in names]:
        what = f"the columns of features are: {', '.join(names)}"
        hint = "leave it away, or rename the list's column where it holds something else"
        raise ConfigError(f"--keep {alike[0]}: features have a column of this name", what, hint)
    if twice := [name for name in keep if list(keep).count(name) > 1]:
        raise ConfigError(f"--keep {twice[0]}: it stands there twice", "", "name each column once")
    url = settings.url_of(LAKE)
    lake = open_place(url, Hdfs())
    sources = Sources(lake, settings.lakes[LAKE].sources, settings.delivered(LAKE), url)
    for found in sources.look(Clock().now()).found:
        path = found.snapshot.files[0].path
        try:
            has = files_of(lake, Forms(), settings, found, keep).names()
        except (FormatError, NotFound):
            continue  # the run itself says what is wrong with it
        folded = {name.casefold() for name in has}
        missing = [name for name in keep if name.casefold() not in folded]
        if missing:
            columns = f"its columns are: {', '.join(has[:50])}" if has else "this format has no further columns"
            raise ConfigError(f"--keep {missing[0]}: /{path} has no such column", columns, "correct --keep")


def files_of(lake: Lake, forms: Forms, settings: Settings, found: Found, keep: Sequence[str]) -> FrozenFiles:
    """What a snapshot of the list holds, with further columns of it."""
    plan = new_of(found, SET, LAKE, 0, settings.ship).plan
    return FrozenFiles(lake, forms, plan, Place(), tuple(keep))
