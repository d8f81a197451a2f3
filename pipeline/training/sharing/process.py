"""A process that computes its shards of a training for the one that began it: it writes nothing, and dies with it."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.process.channel import Channel
from pipeline.process.life import live
from pipeline.training import job, specification
from pipeline.training.job import Out
from pipeline.training.metrics import Metrics
from pipeline.training.sharing.exchange import Exchange
from pipeline.training.sharing.meeting import Member, listen
from pipeline.training.sharing.peers import Peers
from pipeline.training.sharing.processes import Share
from pipeline.training.snapshot import ByPrefix


def work(channel: Channel) -> None:
    """Until the training ends."""
    first, _ = channel.receive()
    share = Share(**first["share"])
    listening = listen("127.0.0.1")
    channel.send(port=listening.port)
    told, _ = channel.receive()
    members = [Member(**one) for one in told["members"]]
    peers = Peers(first["rank"], share.shards, members)
    peers.meet(listening, bytes.fromhex(share.token), share.seconds)
    with specification.in_folder(Path(share.folder)):
        job.train(share.wanted(), silent(peers, members[peers.rank].name))


def silent(exchange: Exchange, name: str) -> Out:
    """Of a process that says and writes nothing, save the batch that made it diverge, beside the snapshots."""
    return Out(
        lambda line: None,
        lambda read: Metrics(None),
        lambda read: ByPrefix(read.snapshots.prefix, read.snapshots.hdf5),
        lambda read, file: job.beside(read.snapshots.prefix, f"{os.getpid()}_{file}"),
        attempts=False,
        predictions=False,
        exchange=exchange,
        name=name,
    )


if __name__ == "__main__":
    live(work)
