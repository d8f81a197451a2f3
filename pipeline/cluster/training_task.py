"""What an executor does with its shards of a training, from one snapshot to the next.

It knows no engine: `cluster.spark_training` carries the share.  Everything that travels is a value that can be pickled.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipeline.errors import PermanentError, PipelineError
from pipeline.process.host import host_name
from pipeline.process.life import leave_no_core
from pipeline.training import job, specification, tree
from pipeline.training.job import Ended, Out
from pipeline.training.log import Log
from pipeline.training.sharing.computer import Computer
from pipeline.training.sharing.exchange import Alone, Exchange
from pipeline.training.sharing.meeting import Member, listen
from pipeline.training.sharing.peers import Peers
from pipeline.training.sharing.process import silent
from pipeline.training.sharing.processes import Share
from pipeline.training.sharing.rounds import Round

LOG = "train.log"
"""What a training on a cluster says, beside its snapshots: executors append, and the driver reads along."""


@dataclass(frozen=True)
class Worked:
    """What became of one executor's part.

    host, process: who it was.  passes: the numbers of those that it computed.  examples: of a pass.
    error: why the training cannot go on, however often it is tried.
    """

    rank: int
    host: str
    process: int
    ending: str = ""
    iteration: int = 0
    model: str = ""
    why: str = ""
    passes: tuple[int, ...] = ()
    examples: int = 0
    error: PipelineError | None = None


@dataclass(frozen=True)
class Site:
    """Where a task runs.  rank: its number.  hosts: of all tasks.  tell: gives what every task told, by number."""

    rank: int
    hosts: tuple[str, ...]
    tell: Callable[[str], list[str]]


def work(share: Share, site: Site) -> Worked:
    """Trains to the next snapshot.  Raises TemporaryError for what another try can mend: an executor that is gone."""
    leave_no_core()
    me = Worked(site.rank, site.hosts[site.rank], os.getpid())
    log = Path(share.folder, job.beside(share.prefix, LOG))
    try:
        exchange, name = _exchange(share, site)
        ended, passes = _train(share, exchange, name, log)
    except PermanentError as error:
        return replace(me, error=_by(_name(site), error))
    except PipelineError as error:
        Log(lambda line: _append(log, line))("solver.cpp:57", f"{_name(site)} ends: {error}", "E")
        raise
    return replace(
        me, ending=ended.ending.value, iteration=ended.iteration, model=str(ended.model or ""), why=ended.why,
        passes=tuple(passes), examples=share.examples,
    )  # fmt: skip


def _by(name: str, error: PermanentError) -> PermanentError:
    """Who has met it."""
    if not error.message.startswith(job.PROCESSES):
        error.message = f"{name}: {error.message}"
    return error


def _name(site: Site) -> str:
    return f"executor {site.rank} ({site.hosts[site.rank]}, process {os.getpid()})"


def _exchange(share: Share, site: Site) -> tuple[Exchange, str]:
    """Meets the other executors."""
    if len(site.hosts) == 1:
        return Alone(), _name(site)
    host = site.hosts[site.rank]
    listening = listen(host)
    told = site.tell(json.dumps({"host": host, "port": listening.port, "name": _name(site)}))
    members = [Member(**json.loads(one)) for one in told]
    peers = Peers(site.rank, share.shards, members)
    peers.meet(listening, bytes.fromhex(share.token), share.seconds)
    return peers, members[site.rank].name


def _train(share: Share, exchange: Exchange, name: str, log: Path) -> tuple[Ended, list[int]]:
    passes: list[int] = []
    with specification.in_folder(Path(share.folder)):
        out = replace(_out(exchange, name, log), taken=passes.append, signals=False)
        return job.train(share.wanted(), out), passes


def _out(exchange: Exchange, name: str, log: Path) -> Out:
    if exchange.rank:
        return silent(exchange, name)

    out = job.by_prefix(lambda line: _append(log, line), lambda read, shown: None, lambda row: None)
    return replace(out, attempts=False, exchange=exchange, name=name)


@dataclass(frozen=True)
class Part:
    """Blocks of the tree, summed as far as they are halves of one; what was told of each, by its first shard."""

    sums: dict[range, tree.Arrays]
    told: dict[int, bytes]
    error: PipelineError | None = None

    def joined(self, other: Part, shards: int) -> Part:
        """Both of them; the order of sums is the tree's."""
        sums = {**self.sums, **other.sums}
        tree.join(shards, sums)
        return Part(sums, {**self.told, **other.told}, self.error or other.error)


def part_of(share: Share, one: Round, block: range) -> Part:
    """What a task computes of a round: it keeps nets between rounds, and nothing that a round could change."""
    try:
        with specification.in_folder(Path(share.folder)):
            found, told = _computer(json.dumps(asdict(share), sort_keys=True)).compute(one, block)
        return Part({block: found}, {block.start: told})
    except PermanentError as error:
        return Part({}, {}, _by(f"executor on {host_name()} (process {os.getpid()})", error))


@functools.lru_cache(maxsize=1)
def _computer(share: str) -> Computer:
    leave_no_core()
    return Computer(Share(**json.loads(share)))


def _append(log: Path, line: str) -> None:
    """One line at the end of the log, whole: several processes may write there."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, line.encode("utf-8", "surrogateescape"))
    finally:
        os.close(handle)
