"""What one worker of a cluster does with its share of a plan, and what it keeps from one share to the next.

It knows no engine: `cluster.spark` carries the shares.  Everything that travels is a value that can be pickled.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline import __version__
from pipeline.clock import Clock
from pipeline.errors import PipelineError
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.ledger.layout import AGGREGATE
from pipeline.ledger.protocol import Context, alive, beat, leave, state_of
from pipeline.ledger.state import count
from pipeline.process.host import same_version, this_process
from pipeline.process.life import leave_no_core
from pipeline.process.scratch import SPILL, folder_of, of_a_worker, scratch
from pipeline.process.stop import beating
from pipeline.settings import Settings
from pipeline.stages import compute
from pipeline.stages.opening import BatchTask
from pipeline.stages.performer import Merge, Merging, merged
from pipeline.stages.publishing import Published
from pipeline.stores.opening import open_bucket


@dataclass(frozen=True)
class Share:
    """Batches of one set for one worker.

    settings: as `settings.travelling` writes them, with the paths as they are on the worker.
    seconds: no further batch is begun after so many.
    """

    settings: str
    lake: str
    set: str
    tasks: tuple[BatchTask, ...]
    seconds: float


@dataclass(frozen=True)
class Worked:
    """What became of a share."""

    published: tuple[Published, ...]
    said: tuple[str, ...] = ()
    error: PipelineError | None = None
    """What ended the share early: the store that is down, say.  The batches that are left wait for the next round."""


@dataclass(frozen=True)
class Loaded:
    """A set as a worker has loaded it: all that a driver needs to know of it."""

    fingerprint: str
    engine: str
    preprocessing: str = ""


_TAKEN: list[str] = []
"""The GPU of this worker: CUDA looks once at what it may see, when the first net is loaded."""


def maker(settings: str, name: str, device: str) -> FeatureMaker:
    """The net of a set, loaded once in this worker.

    device: the GPU that the cluster gave this task, or empty.  A worker that serves another task stays with its first
    one: a second net on it would find no room, and the cluster's other worker has the other GPU.
    """
    if device and not _TAKEN:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        _TAKEN.append(device)
    return _loaded(settings, name)


@functools.lru_cache(maxsize=8)
def _loaded(settings: str, name: str) -> FeatureMaker:
    leave_no_core()
    spill = folder_of(of_a_worker(SPILL), this_process().name)
    return FeatureMaker(Settings.model_validate_json(settings), name, Clock(), spill=spill)


def look(settings: str, name: str, device: str, driver: str = __version__) -> Loaded | PipelineError:
    """Load a set and say what it is; why not, as a value.  driver: the version of Hathi that it has."""
    try:
        same_version(driver)
        made = maker(settings, name, device)
        return Loaded(made.fingerprint, made.engine, made.preprocessing)
    except PipelineError as error:
        return error


def work(share: Share, device: str, *, again: bool) -> Worked:
    """Compute a share's batches.

    again: another worker had this share before us and died, or is too slow for the cluster's taste: what has no result
    yet is claimed anew, whoever holds it.  The first to publish wins, so twice is harmless.
    """
    settings = Settings.model_validate_json(share.settings)
    published: list[Published] = []
    said: list[str] = []
    try:
        with _context(settings, share.lake, said) as context:
            clock = context.process.clock
            ends = clock.monotonic() + share.seconds
            tasks = _anew(context, share.tasks) if again else list(share.tasks)
            made = maker(share.settings, share.set, device)
            if any(task.fingerprint != made.fingerprint for task in tasks):
                _loaded.cache_clear()  # ours may be the old one; what is loaded now is compared again, and counts
                made = maker(share.settings, share.set, device)
            for one in compute.perform(context, made, tasks, lambda: clock.monotonic() < ends):
                if one is not None:
                    published.append(one)
    except PipelineError as error:
        return Worked(tuple(published), tuple(said), error)
    return Worked(tuple(published), tuple(said))


def merge(settings: str, lake: str, one: Merging, *, again: bool = False) -> tuple[Merge, tuple[str, ...]]:
    """Aggregate one shipment, and what there was to say.

    again: as of `work`.  Who is second never answers that the first one is at it: the cluster would take the answer
    for the result, and end the first.
    """
    said: list[str] = []
    try:
        with _context(Settings.model_validate_json(settings), lake, said) as context:
            mine = _merged_anew(context, one) if again else one
            return (one, None if mine is None else merged(context, mine)), tuple(said)
    except PipelineError as error:
        return (one, error), tuple(said)


@contextlib.contextmanager
def _context(settings: Settings, lake: str, said: list[str]) -> Iterator[Context]:
    """This worker under a name of its own, with its beats, for as long as the share takes."""
    me = this_process()
    with scratch(of_a_worker(SPILL), me.name) as spill:
        context = Context(
            lake_name=lake,
            bucket=open_bucket(settings),
            lake=None,
            settings=settings,
            process=me,
            spill=spill,
            say=said.append,
            once=lambda key, text: said.append(text) if text not in said else None,
        )
        with beating(lambda: beat(context), lambda: leave(context), settings.daemon.beat_seconds, said.append):
            yield context


def _merged_anew(context: Context, one: Merging) -> Merging | None:
    """The shipment with the next attempt's number; None: it has its result."""
    state = state_of(context, one.task.state.name)
    if state.out is not None:
        return None
    counted = count(state.tries.get(AGGREGATE, ()), frozenset())
    return replace(one, task=replace(one.task, state=state, number=counted.next_number))


def _anew(context: Context, tasks: Sequence[BatchTask]) -> list[BatchTask]:
    """The batches that have no result, each with the next attempt's number and what its history asks for."""
    limits = context.settings.compute
    now = context.bucket.list(context.keys.alive_hints).now
    others = alive(context, now) - {context.process.name}
    states = {name: state_of(context, name) for name in {task.name for task in tasks}}
    left = []
    for task in tasks:
        state = states[task.name]
        if state.out is not None or task.batch in state.results.get(task.fingerprint[:12], frozenset()):
            continue
        counted = count(state.tries.get(task.task, ()), others)
        left.append(replace(task, number=counted.next_number, mode=compute.mode_of(counted, limits), counted=counted))
    return left
