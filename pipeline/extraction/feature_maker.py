"""A feature set at work: fetcher, decoders and net behind the window."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from pipeline.clock import Clock
from pipeline.codec.shards import Matrix
from pipeline.errors import ConfigError, NetError
from pipeline.extraction.isolation import compute_alone
from pipeline.extraction.memory_budget import Bounds
from pipeline.extraction.net_batches import Marked
from pipeline.extraction.window import Body, Computed, Opened, Tag, Wanted, Window
from pipeline.fetch import Fetcher
from pipeline.fetch.objects import reader_of
from pipeline.images import Preparation
from pipeline.nets.features import FeatureNet
from pipeline.records import Failure, ImageRef
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
    ) -> None:
        """noted: told of each fetch that ended, each image decoded and each pass of the net; from any thread.

        spill: this process's folder for files on their way; without one, features of open batches stay in memory.
        """
        self._settings = settings
        self._name = name
        self._set: FeatureSet = settings.sets[name]
        self._clock = clock
        self._noted = noted
        self._spill = spill
        self._threads = settings.compute.threads or len(os.sched_getaffinity(0))
        self._net = FeatureNet(self._set, threads=self._threads)
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
        self._preparation = Preparation(self._net.preprocess, self._net.input_size, self._net.mean)

    @property
    def fingerprint(self) -> str:
        return self._net.fingerprint

    @property
    def net(self) -> FeatureNet:
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

    def prepare(self, content: bytes) -> Matrix | Failure:
        """Image bytes -> (3, h, w) float32 for the net, or why not."""
        return self._preparation(content)

    def _prepare_marked(self, content: bytes) -> Matrix | Marked | Failure:
        """As `prepare`; what comes of damaged bytes says so."""
        found = self._preparation.noted(content)
        if isinstance(found, Failure):
            return found
        planes, damage = found
        return Marked(planes, damage) if damage else planes

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
            runner = held.enter_context(_working(_Noting(self._noted, 1, thread_name_prefix="net")))
            decoders = held.enter_context(_working(_Noting(self._noted, self._threads, thread_name_prefix="decode")))
            fetcher = held.enter_context(Fetcher(fetching, read_object=reader_of(self._settings.bucket, fetching)))
            yield from Window(
                groups,
                open_batch,
                fetch=stream_of(fetcher, self._noted),
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
    """Threads that say whenever a piece of work is done."""

    def __init__(self, noted: Callable[[], None], threads: int, thread_name_prefix: str) -> None:
        super().__init__(threads, thread_name_prefix)
        self._noted = noted

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self._noted())
        return future


def stream_of(
    fetcher: Fetcher, noted: Callable[[], None]
) -> Callable[[Iterator[Wanted | None]], Iterator[tuple[Tag, Body | Failure] | None]]:
    def stream(wanted: Iterator[Wanted | None]) -> Iterator[tuple[Tag, Body | Failure] | None]:
        for ended in fetcher.stream((one.tag, one.url, one.deadline) if one else None for one in wanted):
            if ended is not None:
                noted()
            yield ended

    return stream
