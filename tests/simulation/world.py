"""A small world for the stages: one lake and one bucket in memory, a clock that stands still, a net of arithmetic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.clock import Clock, Process
from pipeline.codec.codecs import Forms
from pipeline.codec.shards import Matrix
from pipeline.extraction.isolation import Part, halve
from pipeline.extraction.memory_budget import Bounds
from pipeline.extraction.window import Computed, Opened, Tag, Wanted, Window
from pipeline.ledger.protocol import Context
from pipeline.operations.prune import Pruner
from pipeline.process.child import Ended
from pipeline.records import BREAKER_OPEN, Failure, ImageRef, NotModified
from pipeline.settings import FeatureSet, Settings
from pipeline.stages.following import Asked
from pipeline.stages.loop import LakeStages
from tests.simulation.memory import Disk, MemoryStore

T = TypeVar("T")
DIM = 4
START = 1_700_000_000.0
STAGES = ("ship", "compute", "aggregate", "deliver")


@dataclass
class HandClock:
    """Time as the test moves it; monotonic and wall time are one."""

    at: float = START

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, monotonic=lambda: self.at, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.at += seconds


class AtOnce(Executor):
    """Runs what is submitted before submit returns."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass(frozen=True)
class Fetched:
    """What the stub web gives."""

    content: bytes
    sha256: bytes
    fetched_at: datetime
    etag: str | None = None
    last_modified: str | None = None
    final_url: str = ""


def answer(url: str, asked: dict[str, int]) -> bytes | Failure:
    """What a URL of the stub web gives: its last path part says what."""
    asked[url] = asked.get(url, 0) + 1
    kind, _, rest = url.rpartition("/")[2].partition("-")
    if kind == "gone":
        return Failure.of("http_4xx", "status 404")
    if kind == "down":
        return Failure.of("http_5xx", "status 503")
    if kind == "unasked":
        return Failure.of("host_busy", BREAKER_OPEN)
    if kind == "later" and asked[url] <= int(rest.partition("-")[0]):
        return Failure.of("timeout", "no answer in time")
    return url.encode()


@dataclass
class Hosts:
    """Hosts whose images change, and that are asked whether they did."""

    revisions: dict[str, int] = field(default_factory=dict)
    """Of images that changed: how often."""
    tagged: Callable[[str], bool] = lambda url: "/ok-" in url
    """Whether a host names the tag of its image."""
    sent: list[str] = field(default_factory=list)
    """URLs whose image was sent."""

    def image(self, url: str, revision: int | None = None) -> bytes:
        """The bytes of one, now or at a revision."""
        number = self.revisions.get(url, 0) if revision is None else revision
        return f"{url}#{number}".encode() if number else url.encode()

    def tag(self, url: str) -> str:
        return f'"{self.revisions.get(url, 0)}"' if self.tagged(url) else ""

    def unchanged(self, wanted: Wanted) -> bool:
        """Whether the host says so."""
        known = wanted.condition
        return known is not None and bool(known.etag) and known.etag == self.tag(wanted.url)


class StubNet:
    """Features from a hash of the bytes; `nan` in them gives NaN, `bang` raises."""

    dim = DIM
    batch_size = 4

    def forward(self, batch: Matrix) -> Matrix:
        if (batch[:, 0] == -1).any():
            raise RuntimeError("bang")
        out = np.array(batch, np.float32)
        out[batch[:, 0] == -2] = np.nan
        return out


def prepare(content: bytes) -> Matrix | Failure:
    """Four numbers from the bytes."""
    if b"/bang" in content:
        return np.full(DIM, -1, np.float32)
    if b"/nan" in content:
        return np.full(DIM, -2, np.float32)
    if b"/junk" in content:
        return Failure.of("not_image", "no known format")
    return feature(content)


def feature(content: bytes) -> Matrix:
    """The feature of some bytes: length 1."""
    raw = np.frombuffer(hashlib.sha256(content).digest()[:DIM], np.uint8).astype(np.float32) + 1
    return (raw / np.linalg.norm(raw)).astype(np.float32)


@dataclass
class StubServed:
    """A feature set whose web and net are the stubs above."""

    fingerprint: str
    clock: Clock
    asked: dict[str, int] = field(default_factory=dict)
    engine: str = "stub"
    preprocessing: str = "none"
    paced: Mapping[str, str] = field(default_factory=dict)
    max_batches: int = 8
    hosts: Hosts = field(default_factory=Hosts)
    salt: bytes = b""
    """What this set's features depend on beside the image."""
    computed: list[bytes] = field(default_factory=list)
    """Images that were prepared for the net."""

    def _prepare(self, content: bytes) -> Matrix | Failure:
        self.computed.append(content)
        return prepare(self.salt + content)

    def window(
        self,
        groups: Mapping[str, Sequence[T]],
        open_batch: Callable[[T], Opened[T] | None],
        wanted: Callable[[], bool],
    ) -> Iterator[Computed[T] | None]:
        yield from Window(
            groups,
            open_batch,
            fetch=self._fetch,
            prepare=self._prepare,
            net=StubNet(),
            decoders=AtOnce(),
            runner=AtOnce(),
            clock=self.clock,
            bounds=Bounds(batches=self.max_batches, memory=1 << 30, batch_seconds=60.0, decoding=8),
            wanted=wanted,
        ).run()

    def _fetch(self, wanted: Iterator[Wanted | None]) -> Iterator[tuple[Tag, Fetched | NotModified | Failure] | None]:
        for one in wanted:
            if one is None:
                self.clock.sleep(1.0)
                yield None
                continue
            got = answer(one.url, self.asked)
            if isinstance(got, Failure):
                yield one.tag, got
                continue
            if self.hosts.unchanged(one):
                yield one.tag, NotModified(one.url)
                continue
            self.hosts.sent.append(one.url)
            image, tag = self.hosts.image(one.url), self.hosts.tag(one.url)
            when = datetime.fromtimestamp(self.clock.now(), UTC)
            yield one.tag, Fetched(image, hashlib.sha256(image).digest(), when, tag, final_url=one.url)

    def alone(self, task: T, refs: Sequence[ImageRef]) -> Computed[T]:
        def child(part: Sequence[ImageRef]) -> Part | Ended:
            if any("/bang" in ref.url for ref in part):
                return Ended(-9)
            computed = [c for c in self.window({"": [part]}, lambda p: Opened(p, p), lambda: True) if c]
            if not computed:
                return Part((), np.empty((0, DIM), np.float32), ())
            return Part(tuple(computed[0].rows), computed[0].matrix, tuple(computed[0].failures))

        return halve(child, task, refs, DIM, self.clock)


def settings_of(**changes: Any) -> Settings:
    """One lake, one set, which computes each image that it is given; batches of 3 refs, parts of 2 batches."""
    values: dict[str, Any] = {
        "state": "/nowhere",
        "bucket": {"url": "/nowhere/bucket"},
        "lakes": {"shop": {"url": "/nowhere/lake", "sources": [{"path": "refs"}]}},
        "sets": {"demo": {"net": "n", "blob": "b", "root": "features", "reuse": False}},
        "ship": {"batch_refs": 3, "batches_per_shipment": 2},
    }
    values.update(changes)
    return Settings.model_validate(values)


@dataclass
class World:
    """Stores, clock, and the turns of one host."""

    spill: Path
    settings: Settings = field(default_factory=settings_of)
    hand: HandClock = field(default_factory=HandClock)
    fingerprints: dict[str, str] = field(default_factory=lambda: {"demo": "ab" * 32, "other": "cd" * 32})
    said: list[str] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)
    forms: Forms = field(default_factory=Forms)
    hosts: Hosts = field(default_factory=Hosts)
    computed: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bucket = Disk(lambda: self.hand.at)
        self.lake = Disk(lambda: self.hand.at)
        self._nonces = 0

    def nonce(self) -> str:
        self._nonces += 1
        return f"{self._nonces:016x}"

    def put_refs(self, name: str, text: str) -> None:
        """A ref file on the lake, as of now."""
        self.lake.write(f"refs/{name}", text.encode())

    def context(self, name: str = "box.one") -> Context:
        process = Process(name=name, clock=self.hand.clock(), nonce=self.nonce)
        return Context(
            lake_name="shop",
            bucket=MemoryStore(self.bucket),  # type: ignore[arg-type]
            lake=MemoryStore(self.lake),  # type: ignore[arg-type]
            settings=self.settings,
            process=process,
            spill=self.spill,
            forms=self.forms,
            say=self.said.append,
            once=lambda key, text: self.said.append(text),
        )

    def serve(self, asked: Asked, feature_set: FeatureSet) -> StubServed:
        served = StubServed(self.fingerprints[str(asked)], self.hand.clock(), self.asked)
        served.hosts, served.computed = self.hosts, self.computed
        return served

    def turns(self, name: str = "box.one") -> LakeStages:
        return LakeStages(self.context(name), self.serve, strict=True)

    def pruner(self, name: str = "box.one") -> Pruner:
        turns = self.turns(name)
        return Pruner(turns.context, turns.look)

    def run(self, turns: LakeStages | None = None, stages: Sequence[str] = STAGES) -> int:
        """Until nothing is due; how many tasks that took."""
        turns = turns or self.turns()
        tasks = idle = 0
        while True:
            tallies = [turns.take(stage) for stage in stages]
            did = sum(tally.tasks for tally in tallies)
            tasks += did
            idle = 0 if did else idle + 1
            if idle >= max(1, *(tally.polls_to_see_all for tally in tallies)):
                return tasks

    def delivered(self) -> dict[str, bytes]:
        """Everything under the root, by path."""
        return {key: content for key, (content, _, _) in self.lake.files.items() if key.startswith("features/")}
