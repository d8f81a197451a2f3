"""What the stages of a host demand of its configuration before they begin.

`run`, `serve` and `spark` meet what costs nothing at their beginning, and the rest as they come to it: they ask stores,
and load a net once a shipment needs it.  `hathi config check` asks for all of it beforehand, so it passes nothing that
they refuse.  Nothing is written: neither a folder is made nor an object put.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.app.contexts import lakes_asked_once
from pipeline.clock import Clock
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.layout import Keys
from pipeline.ledger.model_files import lost
from pipeline.ledger.promotions import read
from pipeline.process.disk import demand_free, standing
from pipeline.settings import Settings
from pipeline.settings.places import folder_of
from pipeline.stage_names import COMPUTE, DELIVER, ON_THE_LAKE
from pipeline.stages.following import Following
from pipeline.stages.snapshots import takes
from pipeline.stores.backends import only_read
from pipeline.stores.opening import hasty, open_bucket, open_lake


@dataclass(frozen=True)
class Demand:
    """One thing, by the setting that decides it."""

    key: str
    meet: Callable[[], str]
    """What is well, in words.  Raises PipelineError."""
    costly: bool = False
    """A request to a server, a net that is loaded, or a look at a disk: the stages come to it at their work."""


def meet(settings: Settings, stages: Sequence[str]) -> None:
    """Raises PipelineError for the first demand that costs nothing and is not met."""
    for one in demands(settings, stages):
        if not one.costly:
            one.meet()


def demands(settings: Settings, stages: Sequence[str]) -> Iterator[Demand]:
    """All of them, in the order in which the stages come to them."""
    lakes = [name for name in sorted(settings.lakes) if set(ON_THE_LAKE) & set(stages)]
    yield Demand("state", partial(_writable, "state", settings.state))
    yield Demand("logs.folder", partial(_writable, "logs.folder", settings.logs.folder))
    yield Demand("lakes", partial(_some_lake, settings))
    if lakes:
        yield Demand("lakes", partial(_apart, settings))
    yield Demand("bucket.url", partial(_bucket, settings))
    for name in lakes:
        yield Demand(f"lakes.{name}.url", partial(_lake, settings, name, DELIVER in stages))
    if COMPUTE in stages:
        yield Demand("fetch", partial(_fetch, settings))
        yield Demand("compute.free_bytes", partial(_free, settings), costly=True)
    yield Demand("bucket", partial(_answers, settings), costly=True)
    for name in lakes:
        yield Demand(f"lakes.{name}", partial(_lake_answers, settings, name, DELIVER in stages), costly=True)
    for name in sorted(settings.sets) if COMPUTE in stages else ():
        yield Demand(f"sets.{name}", partial(_net, settings, name), costly=True)


def _writable(key: str, place: str) -> str:
    """Whether a file could be written there; the folder may still have to be made."""
    folder = Path(place)
    parent = standing(folder)
    if not parent.is_dir():
        raise ConfigError(f"{parent} is not a folder", f"{key} is {folder}", f'set {key} = "/a/folder"')
    if not os.access(parent, os.W_OK | os.X_OK):
        hint = f'give this user the right to write there, or set {key} = "/another/folder"'
        raise ConfigError(f"{parent} cannot be written", f"{key} is {folder}", hint)
    return f"{folder} can be written" if parent == folder else f"{folder} will be made"


def _some_lake(settings: Settings) -> str:
    if not settings.lakes:
        raise ConfigError("no lake is configured", "", "add a [lakes.NAME] table")
    return f"lakes: {', '.join(sorted(settings.lakes))}"


def _apart(settings: Settings) -> str:
    settings.check_lakes()
    return "each lake has a place of its own"


def _bucket(settings: Settings) -> str:
    open_bucket(settings)
    folder = folder_of(settings.bucket.url)
    return _writable("bucket.url", str(folder)) if folder is not None else settings.bucket.url


def _lake(settings: Settings, name: str, written: bool) -> str:
    open_lake(settings, name)
    url = settings.url_of(name)
    folder = folder_of(url)
    return _writable(f"lakes.{name}.url", str(folder)) if folder is not None and written else url


def _fetch(settings: Settings) -> str:
    """What a fetcher refuses when the first batch is opened."""
    from pipeline.fetch.hosts import Hosts
    from pipeline.fetch.trust import trusted

    Hosts(settings.fetch, Clock())
    trusted(os.environ)
    return "hosts and certificates are understood"


def _free(settings: Settings) -> str:
    demand_free(settings)
    return "the disks of state and logs have room"


def _answers(settings: Settings) -> str:
    store = open_bucket(hasty(settings))
    for name in sorted(settings.lakes):
        next(iter(store.list(Keys(name).alive_hints)), None)
    return "it answers; hathi doctor also writes there, and lets several writers race for one key"


def _lake_answers(settings: Settings, name: str, written: bool) -> str:
    url = settings.url_of(name)
    if written and only_read(url) and any(takes(one, name) for one in settings.sets.values()):
        hint = "name the NameNode itself: hdfs://host:port/folder; or run ship alone here"
        raise PermanentError(f"{url} can only be read from: deliver cannot write there", "", hint)
    found = open_lake(hasty(settings), name).stat("")
    return "it answers" if found is not None else "nothing stands there yet"


def _net(settings: Settings, name: str) -> str:
    """As compute loads it; of a set that follows a model whether its files are in the bucket, since nothing is written
    here."""
    if settings.sets[name].model is not None:
        return _promoted(settings, name)
    from pipeline.extraction.feature_maker import FeatureMaker  # the net's engine takes its time to import

    made = FeatureMaker(settings, name, Clock())
    what = f"{made.net.dim} values on {made.engine}" if made.net.dim else f"{made.preprocessing}; {made.engine}"
    return f"{os.path.basename(settings.sets[name].net)}: {what}"


def _promoted(settings: Settings, name: str) -> str:
    """The promotions that a set follows, by lake."""
    one = settings.sets[name]
    said = []
    for context in lakes_asked_once(settings, "check"):
        if not takes(one, context.lake_name):
            continue
        promoted = Following(context).newest(str(one.model))
        if missing := lost(context, read(context, promoted)):
            hint = "promote the same files once more, or an older promotion: `hathi models` names them"
            raise PermanentError(f"{promoted} lacks files that the bucket has no more", missing[0].key, hint)
        said.append(f"{promoted} in lake {context.lake_name}")
    return f"follows {', '.join(said)}; its files are loaded when work asks for them"
