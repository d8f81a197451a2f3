"""The other processes of a training that is shared on one host: children of the one that a person began."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, TemporaryError
from pipeline.process.channel import Message
from pipeline.process.child import Child, Ended, python_of
from pipeline.training import solver
from pipeline.training.assembly import How
from pipeline.training.job import Wanted
from pipeline.training.requests import Action
from pipeline.training.sharing.connection import HINT
from pipeline.training.sharing.exchange import Alone, Exchange
from pipeline.training.sharing.meeting import Member, listen
from pipeline.training.sharing.peers import PATIENCE_SECONDS, Peers
from pipeline.training.sharing.shards import batch_of, cut
from pipeline.training.solver import Flags

_HERE = "127.0.0.1"
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Share:
    """What another process of a training has to know of what process 0 wants.

    folder: what paths are relative to.  token: of this training.  prefix: of its snapshots.  examples: of a pass.
    seconds: the patience of all with each other.  settings: secrets in clear; never logged.
    """

    solver: str
    folder: str
    flags: Mapping[str, Any]
    how: Mapping[str, Any]
    snapshot: str
    again: bool
    until: int
    data_threads: int
    token: str
    prefix: str
    examples: int
    check: bool = True
    seconds: float = PATIENCE_SECONDS
    settings: str = field(default="", repr=False)

    @property
    def shards(self) -> int:
        return int(self.how["shards"])

    def wanted(self) -> Wanted:
        """As a process that writes nothing has it: signals are process 0's affair."""
        given = self.flags["weights"]
        flags = Flags(**{**self.flags, "stages": tuple(self.flags["stages"]), "weights": given and tuple(given)})
        return Wanted(
            Path(self.solver), flags, How(**self.how), Path(self.snapshot) if self.snapshot else None, self.again,
            self.until or None, Action.NONE, Action.NONE, self.data_threads, self.check, self.settings,
        )  # fmt: skip


def share_of(wanted: Wanted) -> Share:
    """In the current folder, with a new token.  Raises SolverError for a solver or a batch that is refused."""
    read = cut(solver.read(wanted.solver, wanted.flags), wanted.how.shards)
    return Share(
        str(wanted.solver), str(Path.cwd()), asdict(wanted.flags), asdict(wanted.how), str(wanted.snapshot or ""),
        wanted.again, wanted.until or 0, wanted.data_threads, secrets.token_hex(32),
        read.snapshots.prefix, batch_of(read.net), wanted.check, settings=wanted.settings,
    )  # fmt: skip


def with_threads(wanted: Wanted, workers: int) -> Wanted:
    """The same, where nobody says how many threads compute: each worker has its part of the cores of this host."""
    if workers < 2 or wanted.how.threads or os.environ.get("OMP_NUM_THREADS"):
        return wanted
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    return replace(wanted, how=replace(wanted.how, threads=threads))


@contextlib.contextmanager
def together(share: Share, workers: int) -> Iterator[Exchange]:
    """The exchange of process 0; the others run for as long as this lasts, and die with this process.

    Raises ConfigError for more processes than shards, and TemporaryError for a process that does not begin.
    """
    demand_shards(workers, share.shards, "worker")
    if workers == 1:
        yield Alone()
        return
    with contextlib.ExitStack() as held:
        heard: queue.SimpleQueue[tuple[int, Message | Ended]] = queue.SimpleQueue()
        children = []
        for rank in range(1, workers):
            child = held.enter_context(Child(python_of("pipeline.training.sharing.process")))
            child.hear({"share": asdict(share), "rank": rank}, partial(_put, heard, rank))
            children.append(child)
        listening = listen(_HERE)
        members = {0: Member(_HERE, listening.port, own_name(0))}
        while len(members) < workers:
            rank, said = _next(heard)
            if isinstance(said, Ended):
                raise TemporaryError(f"worker {rank} of this training could not begin", f"it {said.story}", HINT)
            if "failed" in said:
                raise TemporaryError(f"worker {rank}: {said['failed']['message']}", said["failed"]["detail"], HINT)
            members[rank] = Member(_HERE, said["port"], f"worker {rank} (process {children[rank - 1].pid})")
        ordered = [members[rank] for rank in range(workers)]
        for child in children:
            child.channel.send(members=[asdict(one) for one in ordered])
        peers = Peers(0, share.shards, ordered)
        peers.meet(listening, bytes.fromhex(share.token), share.seconds)
        yield peers


def own_name(rank: int) -> str:
    """What messages call this process."""
    return f"worker {rank} (process {os.getpid()})"


def _put(heard: queue.SimpleQueue[tuple[int, Message | Ended]], rank: int, one: Message | Ended) -> None:
    heard.put((rank, one))


def _next(heard: queue.SimpleQueue[tuple[int, Message | Ended]]) -> tuple[int, Message | Ended]:
    try:
        return heard.get(timeout=_START_SECONDS)
    except queue.Empty:
        raise TemporaryError(f"a worker did not begin within {_START_SECONDS:.0f} s", "", HINT) from None


def demand_shards(workers: int, shards: int, noun: str) -> None:
    """Raises ConfigError for more workers than there are shards to compute."""
    if workers > shards:
        raise ConfigError(
            f"there are more {noun}s than shards: {workers} and {shards}",
            "a shard is computed by one of them, so that some would have nothing to do",
            f"give at most {shards} {noun}s, or more --shards",
        )
