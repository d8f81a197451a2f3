"""A feature set at work: fetcher, decoders and net behind the window."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from pipeline.clock import Clock
from pipeline.codec.shards import Matrix
from pipeline.errors import ConfigError, NetError
from pipeline.extraction.isolation import compute_alone
from pipeline.extraction.kept_images import KeptImages
from pipeline.extraction.memory_budget import Bounds
from pipeline.extraction.net_batches import Marked
from pipeline.extraction.pace import Pace
from pipeline.extraction.window import Body, Computed, Opened, Tag, Wanted, Window
from pipeline.fetch import Fetcher
from pipeline.fetch.objects import reader_of
from pipeline.images import Preparation
from pipeline.nets.features import FeatureNet
from pipeline.records import Failure, ImageRef, NotModified
from pipeline.settings import FeatureSet, Settings
from pipeline.stores.local import typed

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

STACKS_DECODING = 3
"""Images that are decoded or wait to be, in stacks of the net: enough to fill the next stack during a pass."""


class FeatureMaker:
    """One feature set on this host.  Raises ConfigError or NetError when it cannot be loaded."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        clock: Clock,
        noted: Callable[[], None] = lambda: None,
        spill: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """noted: told of each fetch that ended, each image decoded and each pass of the net; from any thread.

        spill: this process's folder for files on their way; without one, features of open batches stay in memory.
        say: told once where a polite limit, not this machine, sets the pace.
        """
        self._settings = settings
        self._name = name
        self._set: FeatureSet = settings.sets[name]
        self._clock = clock
        self._noted = noted
        self._spill = spill
        self._pace = Pace(clock, say)
        self._threads = settings.compute.threads or len(os.sched_getaffinity(0))
        self._net: FeatureNet | KeptImages
        if self._set.keeps_images:
            self._net = kept = KeptImages(self._set)
            self._noted_image: Callable[[bytes], tuple[Matrix | bytes, str] | Failure] = kept.noted
        else:
            self._net = net = FeatureNet(self._set, threads=self._threads)
            self._noted_image = Preparation(net.preprocess, net.input_size, net.mean, net.channels).noted
        lacking = self._net.lacking
        if lacking and self._set.weights is None:
            raise ConfigError(
                f"set {name} has no weights",
                f"{self._set.net} has layers with learned weights",
                "name its .caffemodel with the setting `weights` or the option --weights",
            )
        if lacking:
            raise NetError(
                f"the weights {self._set.weights} lack layers that set {name} needs: {', '.join(lacking[:5])}",
                "the file is still being copied, was cut short, or belongs to another net",
                "wait until the copy is complete, or name the .caffemodel that belongs to the net",
            )

    @property
    def fingerprint(self) -> str:
        return self._net.fingerprint

    @property
    def net(self) -> FeatureNet | KeptImages:
        """What runs behind the window."""
        return self._net

    @property
    def engine(self) -> str:
        engine: str = str(self._net.engine)
        return engine

    @property
    def preprocessing(self) -> str:
        """What is done to an image, in one line for people."""
        return self._net.preprocessing

    @property
    def paced(self) -> dict[str, str]:
        """By host: the polite limit that set the pace of this process, and how it is lifted."""
        return self._pace.set_by

    def prepare(self, content: bytes) -> Matrix | Failure:
        """Image bytes -> (3, h, w) float32 for the net, or why not.  Raises NetError where there is no net."""
        found = self._noted_image(content)
        if isinstance(found, Failure):
            return found
        if isinstance(found[0], bytes):
            self._net.forward(np.empty((0, 0), np.float32))
        return np.asarray(found[0], np.float32)

    def _prepare_marked(self, content: bytes) -> Matrix | bytes | Marked | Failure:
        """As `prepare`, or the image that is kept; what comes of damaged bytes says so."""
        found = self._noted_image(content)
        if isinstance(found, Failure):
            return found
        made, damage = found
        return Marked(made, damage) if damage else made

    def window(
        self,
        groups: Mapping[str, Sequence[T]],
        open_batch: Callable[[T], Opened[T] | None],
        wanted: Callable[[], bool],
    ) -> Iterator[Computed[T] | None]:
        """Run batches through fetch, decoding and net; see `Window`."""
        limits = self._settings.compute
        fetching = self._settings.fetch
        with contextlib.ExitStack() as held:
            # A thread for each core to the decoders and to the net alike: preparing an image costs a tenth of a pass
            # with CaffeNet and more than the pass with a small net, and the kernel shares cores better than a fixed
            # split would.  It is the window's bounds that keep either from running away.
            running = _Noting(self._noted, 1, thread_name_prefix="net")
            decoding = _Noting(self._noted, self._threads, thread_name_prefix="decode")
            runner, decoders = held.enter_context(_working(running)), held.enter_context(_working(decoding))
            fetcher = held.enter_context(Fetcher(fetching, read_object=reader_of(self._settings.bucket, fetching)))
            self._pace.begin()

            def noted() -> None:
                self._pace.look(fetcher.held_back, max(running.busy, decoding.busy))

            yield from Window(
                groups,
                open_batch,
                fetch=stream_of(fetcher, self._noted, noted),
                prepare=self._prepare_marked,
                net=self._net,
                decoders=decoders,
                runner=runner,
                clock=self._clock,
                bounds=Bounds(
                    batches=limits.open_batches,
                    memory=limits.open_bytes,
                    batch_seconds=fetching.batch_seconds,
                    decoding=STACKS_DECODING * self._net.batch_size,
                    ahead=fetching.pending_urls,
                    spill=None if self._spill is None else held.enter_context(_scratch(self._spill)),
                    disk=limits.spill_bytes,
                ),
                wanted=wanted,
                host_of=fetcher.host_of,
                has_room=fetcher.has_room,
            ).run()

    def alone(self, task: T, refs: Sequence[ImageRef]) -> Computed[T]:
        """Run one batch in child processes, halved until what kills them is found."""
        return compute_alone(
            self._settings,
            self._name,
            task,
            refs,
            self._net.dim,
            self._noted,
            self._clock,
            self._spill,
            self.fingerprint,
        )


@contextlib.contextmanager
def _working(threads: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Threads that end with what they are at, and begin nothing more."""
    try:
        yield threads
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _scratch(spill: Path) -> Iterator[Path]:
    """A folder of one window's own."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="window-", dir=spill))
    except OSError as error:
        raise typed(error, spill) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Noting(ThreadPoolExecutor):
    """Threads that say whenever a piece of work is done.  busy: seconds of work so far, divided by the threads."""

    def __init__(self, noted: Callable[[], None], threads: int, thread_name_prefix: str) -> None:
        super().__init__(threads, thread_name_prefix)
        self._noted = noted
        self.busy = 0.0
        self._counting = threading.Lock()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        def timed() -> R:
            began = time.perf_counter()
            try:
                return fn(*args, **kwargs)
            finally:
                with self._counting:
                    self.busy += (time.perf_counter() - began) / self._max_workers

        future = super().submit(timed)
        future.add_done_callback(lambda _: self._noted())
        return future


def stream_of(
    fetcher: Fetcher, noted: Callable[[], None], looked: Callable[[], None] = lambda: None
) -> Callable[[Iterator[Wanted | None]], Iterator[tuple[Tag, Body | NotModified | Failure] | None]]:
    def stream(wanted: Iterator[Wanted | None]) -> Iterator[tuple[Tag, Body | NotModified | Failure] | None]:
        asked = ((one.tag, one.url, one.deadline, one.condition) if one else None for one in wanted)
        for ended in fetcher.changed(asked):
            if ended is not None:
                noted()
            looked()
            yield ended

    return stream
