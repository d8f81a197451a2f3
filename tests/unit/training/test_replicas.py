"""Workers that somebody else began: what their environment says, how they meet, and which attempt writes."""

from __future__ import annotations

import os
import shutil
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, Diverged, PipelineError, TemporaryError
from pipeline.training.sharing.connection import PeerLost, failed, words
from pipeline.training.sharing.fence import claim
from pipeline.training.sharing.redis import Redis
from pipeline.training.sharing.replicas import Replica, gather, meet, replica_of
from tests.environment import environ
from tests.kube import training
from tests.servers.demand import Server, free_port

TORCHS = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "chief",
    "MASTER_PORT": "2222",
    "RUN_ID": "r.3",
    "HATHI_ATTEMPT": "3",
}


def test_the_environment_is_torchs_or_caffe2s() -> None:
    found = replica_of(TORCHS)
    assert (found.rank, found.size, found.address, found.port, found.attempt) == (1, 2, "chief", 2222, 3)
    seeds = replica_of({"SHARD_ID": "0", "NUM_SHARDS": "4", "RUN_ID": "7", "REDIS_HOST": "redis", "REDIS_PORT": "6380"})
    assert (seeds.rank, seeds.size, seeds.redis) == (0, 4, ("redis", 6380))
    assert replica_of({"RANK": "0", "WORLD_SIZE": "1"}).size == 1


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "RANK or SHARD_ID has to be a number"),
        ({"RANK": "0"}, "WORLD_SIZE or NUM_SHARDS"),
        ({**TORCHS, "RANK": "-1"}, "RANK or SHARD_ID has to be a number"),
        ({**TORCHS, "RANK": "2"}, "RANK is 2 of 2 workers"),
        ({**TORCHS, "MASTER_PORT": "ssh"}, "MASTER_PORT has to be a number"),
        ({**TORCHS, "MASTER_ADDR": ""}, "does not say how the workers find each other"),
        ({**TORCHS, "REDIS_HOST": "redis", "RUN_ID": ""}, "has no RUN_ID"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replica_of(environ)


def together(first: Replica, size: int) -> list[list[bytes]]:
    """All workers meet and sum once: what each was told.  Raises what one of them raises."""

    def work(rank: int) -> list[bytes]:
        peers = meet(replace(first, rank=rank, size=size), 8, 20.0)
        try:
            mine = np.full(3, rank + 1, np.float32)
            told = peers.sum([mine], str(rank).encode())
            assert mine.tolist() == [sum(range(1, size + 1))] * 3
            return told
        finally:
            peers.close()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))


def test_workers_meet_by_the_address_of_the_first() -> None:
    first = Replica(0, 3, "r", address="127.0.0.1", port=free_port())
    assert together(first, 3) == [[b"0", b"1", b"2"]] * 3


def test_workers_meet_by_a_shared_folder(tmp_path: Path) -> None:
    (tmp_path / "hathi").mkdir()
    (tmp_path / "hathi" / "r").write_text("half a li")
    assert together(Replica(0, 2, "r.1", nfs=str(tmp_path)), 2) == [[b"0", b"1"]] * 2
    assert (tmp_path / "hathi" / "r.1").is_file()
    named = Replica(0, 2, "r.2", address="r-2-0.r.team.svc.invalid", nfs=str(tmp_path))
    assert together(named, 2) == [[b"0", b"1"]] * 2, "a name that a Service would make is not needed"


def test_who_does_not_know_the_secret_is_sent_away() -> None:
    first = Replica(0, 2, "r", address="127.0.0.1", port=free_port(), secret="ours")
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(gather, first, 3.0)
        with pytest.raises(PeerLost, match="worker 0 did not come"):
            gather(replace(first, rank=1, secret="theirs"), 2.0)
        with pytest.raises(PeerLost, match="worker 1 did not come"):
            chief.result(20.0)


def test_a_name_that_never_comes_and_a_port_that_is_taken_are_told() -> None:
    with pytest.raises(PeerLost, match=r"has no address: nobody\.invalid"):
        gather(Replica(1, 2, "r", address="nobody.invalid", port=1), 0.3)
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as taken:
        port = int(taken.server_address[1])
        with pytest.raises(TemporaryError, match=f"port {port}") as caught:
            gather(Replica(0, 2, "r", address="127.0.0.1", port=port), 1.0)
    assert not isinstance(caught.value, PeerLost), "nobody else is at fault"


def test_what_another_worker_told_is_its_error_or_the_loss_of_it() -> None:
    import json

    for error, kind in (
        (Diverged("x"), Diverged),
        (TemporaryError("full disk"), PeerLost),
        (PipelineError("x"), PeerLost),
    ):
        assert type(failed(json.loads(words(error)))) is kind


@contextmanager
def redis(answer: Callable[[list[bytes]], bytes]) -> Iterator[int]:
    """A server of RESP arrays."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            count = int(self.rfile.readline()[1:])
            words = []
            for _ in range(count):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2])
            self.wfile.write(answer(words))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


def test_redis_is_asked_and_told_as_its_protocol_says() -> None:
    kept: dict[bytes, bytes] = {}

    def answer(words: list[bytes]) -> bytes:
        if words[0] == b"SET":
            assert words[3:] == [b"EX", b"60"]
            kept[words[1]] = words[2]
            return b"+OK\r\n"
        value = kept.get(words[1])
        return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)

    with redis(answer) as port:
        one = Redis("127.0.0.1", port, 0.0)
        assert one.get("hathi/r") == ""
        one.put("hathi/r", "10.0.0.1:5", 60)
        assert one.get("hathi/r") == "10.0.0.1:5"
        assert one.own_address == "127.0.0.1"
    with redis(lambda words: b"-NOAUTH Authentication required.\r\n") as port:
        with pytest.raises(ConfigError, match="refuses GET") as caught:
            Redis("127.0.0.1", port, 0.0).get("x")
        assert caught.value.detail == "NOAUTH Authentication required."
    with pytest.raises(PeerLost, match="Redis does not answer"):
        Redis("127.0.0.1", port, 0.0).get("x")


def test_of_two_attempts_the_later_one_writes(tmp_path: Path) -> None:
    def beside(name: str) -> Path:
        return tmp_path / "snapshots" / f"net_{name}"

    first = claim(beside, 0)
    first(100)
    again = claim(beside, 0)
    third = claim(beside, 2)
    third(120)
    for one in (first, again):
        with pytest.raises(TemporaryError, match="attempt 0 of this training has been given up, and attempt 2"):
            one(140)
    with pytest.raises(TemporaryError):
        claim(beside, 1)
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["net_attempt-2"]


def worker(folder: Path, rank: int, where: Replica) -> Server:
    """`hathi train --on replicas`, as a pod begins it."""
    words = ["hathi", "train", "solver.prototxt", "--on", "replicas", "--patience", "60"]
    own = {
        "RANK": str(rank), "WORLD_SIZE": str(where.size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(where.port),
        "RUN_ID": f"r.{where.attempt}", "HATHI_ATTEMPT": str(where.attempt), "OMP_WAIT_POLICY": "passive",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    return Server.start(words, log=folder / f"worker-{rank}.log", env=environ(**own), cwd=folder)


def test_workers_that_see_a_snapshot_later_than_the_others_wait_for_it(tmp_path: Path) -> None:
    """As on a network file system that keeps folders in a cache: each worker has a folder of its own here."""
    chief = training.folder_of(tmp_path / "chief", 60)
    once = worker(chief, 0, Replica(0, 1, "r", 0, "", free_port()))
    assert once.process.wait(120) == 0, once.last_words()
    undisturbed = training.weights(chief, 60)
    late = tmp_path / "late"
    shutil.copytree(chief, late)
    for folder, seen in ((chief, 40), (late, 20)):
        for path in folder.glob("s_iter_*"):
            if int(path.name.split("_")[2].split(".")[0]) > seen:
                path.unlink()
    where = Replica(0, 2, "r", 1, "", free_port())
    both = [worker(folder, rank, where) for rank, folder in enumerate((chief, late))]
    both[0].until(lambda: "newest snapshot differs" in both[0].last_words(), "they see that they differ")
    for path in sorted(chief.glob("s_iter_40.*")):  # the manifest comes last
        shutil.copy(path, late / f"{path.name}.new")
        (late / f"{path.name}.new").replace(late / path.name)
    assert [one.process.wait(120) for one in both] == [0, 0], both[0].last_words()
    assert "this training goes on at iteration 40" in both[0].log.read_text()
    assert training.weights(chief, 60) == undisturbed
