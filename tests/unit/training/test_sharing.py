"""Processes that train together: their connections, what they sum, and what they say of one that is gone."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, Diverged, PipelineError, SolverError, TemporaryError
from pipeline.kube.model import Recovery
from pipeline.process import memory
from pipeline.training import solver, tree
from pipeline.training.assembly import How
from pipeline.training.job import Wanted
from pipeline.training.sharing import meeting
from pipeline.training.sharing.agreement import agree, newest_of_all
from pipeline.training.sharing.exchange import Alone
from pipeline.training.sharing.meeting import Member, connect, listen
from pipeline.training.sharing.peers import Peers
from pipeline.training.sharing.processes import demand_shards, with_threads
from pipeline.training.sharing.room import Room
from pipeline.training.sharing.shards import cut
from pipeline.training.solver import Flags

TOKEN = b"of this training"


class Group:
    """Processes of one training, each as a thread of its own, over real connections."""

    def __init__(self, workers: int, shards: int, seconds: float = 20.0, hosts: int = 1) -> None:
        """hosts: at so many addresses of this one; who has another address does not see one's memory."""
        places = [f"127.0.0.{1 + rank % hosts}" for rank in range(workers)]
        self.listening = [listen(place) for place in places]
        members = [Member(places[rank], one.port, f"worker {rank}") for rank, one in enumerate(self.listening)]
        self.members = members
        self.peers = [Peers(rank, shards, members) for rank in range(workers)]
        self.pool = ThreadPoolExecutor(workers)
        self.seconds = seconds

    def meet(self) -> Group:
        self.all(lambda peers: peers.meet(self.listening[peers.rank], TOKEN, self.seconds))
        return self

    def begin(self, do: Callable[[Peers], object]) -> list[Future[Any]]:
        return [self.pool.submit(do, one) for one in self.peers]

    def all(self, do: Callable[[Peers], Any]) -> list[Any]:
        return [one.result(30) for one in self.begin(do)]

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.peers:
            one.close()
        self.pool.shutdown()


def gradients(shard: int) -> list[np.ndarray]:
    draws = np.random.default_rng(shard)
    scale = 10.0 ** draws.integers(-4, 5)
    return [np.array(draws.standard_normal(shape) * scale, np.float32) for shape in ((3, 5, 2), (1,), (700,), ())]


@pytest.mark.parametrize(("workers", "hosts"), [(1, 1), (2, 1), (2, 2), (3, 3), (4, 1), (4, 2), (5, 2), (8, 3)])
def test_any_number_of_processes_has_the_bits_of_one_and_what_each_told(workers: int, hosts: int) -> None:
    shards = 8
    whole = [one.tobytes() for one in tree.total(range(shards), gradients)]

    def once(peers: Peers) -> tuple[list[bytes], list[bytes]]:
        mine = tree.total(peers.block(shards), gradients)
        told = peers.sum(mine, f"from {peers.rank}".encode() * 100)
        return [one.tobytes() for one in mine], told

    def in_its_room(peers: Peers) -> tuple[list[bytes], list[bytes]]:
        room = peers.room([one.shape for one in gradients(0)])
        mine = tree.total(peers.block(shards), gradients, room)
        told = peers.sum(mine, f"from {peers.rank}".encode() * 100)
        return [one.tobytes() for one in room], told

    with Group(workers, shards, hosts=hosts).meet() as group:
        for number in range(4):
            for summed, told in group.all(once if number % 2 else in_its_room):
                assert summed == whole
                assert told == [f"from {rank}".encode() * 100 for rank in range(workers)]


def test_more_processes_than_numbers_sum_them_all_the_same() -> None:
    with Group(4, 4).meet() as group:

        def once(peers: Peers) -> float:
            mine = [np.array([peers.rank + 1.0], np.float32)]
            peers.sum(mine, b"")
            return float(mine[0][0])

        assert group.all(once) == [10.0] * 4


def test_a_stranger_is_sent_away_and_the_others_go_on() -> None:
    with Group(3, 8) as group:
        port = group.listening[0].port
        strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        strangers[0].sendall(b"GET / HTTP/1.0\r\n\r\n" + b"x" * 200)
        strangers[1].close()
        with ThreadPoolExecutor(1) as pool:
            knows_nothing = pool.submit(connect, group.members[0], group.members[1], 1, b"another token", 10.0)
            time.sleep(0.05)
            group.meet()
            with pytest.raises(TemporaryError, match="worker 0 does not answer"):
                knows_nothing.result(30)
        assert group.all(lambda peers: len(peers.sum([], b"x"))) == [3, 3, 3]
        strangers[0].close()


def test_a_process_that_does_not_come_is_named() -> None:
    with Group(3, 8, seconds=0.5) as group:
        first, second, _ = group.peers
        going = [group.pool.submit(one.meet, group.listening[one.rank], TOKEN, 0.5) for one in (first, second)]
        for one in going:
            with pytest.raises(TemporaryError, match="worker 2 did not come within"):
                one.result(30)


@pytest.mark.parametrize("hosts", [1, 3])
def test_a_process_that_is_gone_is_named_by_all_others(hosts: int) -> None:
    with Group(3, 8, hosts=hosts).meet() as group:
        going = [group.pool.submit(one.sum, gradients(0), b"") for one in group.peers[:2]]
        group.peers[2].close()
        for one in going:
            with pytest.raises(TemporaryError, match="worker 2 is gone"):
                one.result(30)


def test_a_process_that_hangs_is_named_by_time_though_the_others_are_slow_and_alive() -> None:
    with Group(3, 8, seconds=2.5).meet() as group:
        began = time.monotonic()
        going = [group.pool.submit(one.sum, gradients(0), b"") for one in group.peers[:2]]
        for one in going:
            with pytest.raises(TemporaryError, match="worker 2 is silent for 2 s: it hangs"):
                one.result(30)
        assert time.monotonic() - began >= 2.5


def test_a_process_that_computes_for_long_and_says_so_is_waited_for() -> None:
    with Group(3, 8, seconds=2.5).meet() as group:
        slow = group.peers[2]
        going = [group.pool.submit(one.sum, [np.ones(9, np.float32)], b"") for one in group.peers[:2]]
        ends = time.monotonic() + 4.0
        while time.monotonic() < ends:
            slow.alive()
            time.sleep(0.05)
        mine = [np.ones(9, np.float32)]
        slow.sum(mine, b"")
        assert mine[0].tolist() == [3.0] * 9
        assert [len(one.result(30)) for one in going] == [3, 3]


@pytest.mark.parametrize("kind", [Diverged, SolverError, TemporaryError])
def test_why_one_fails_is_what_all_say(kind: type[PipelineError]) -> None:
    with Group(3, 8).meet() as group:
        going = [group.pool.submit(one.sum, gradients(0), b"") for one in group.peers[:2]]
        group.peers[2].fail(kind("layer 'ip' is no number", "iteration 3", "lower the rate"))
        for one in going:
            with pytest.raises(kind, match="layer 'ip' is no number") as caught:
                one.result(30)
            assert (caught.value.detail, caught.value.hint) == ("iteration 3", "lower the rate")


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_process_of_another_net_is_refused_by_its_bytes(hosts: int) -> None:
    with Group(2, 8, hosts=hosts).meet() as group:
        going = [group.pool.submit(one.sum, [np.ones(10 + one.rank, np.float32)], b"") for one in group.peers]
        errors = [one.exception(30) for one in going]
        assert any("bytes of gradients" in str(error) for error in errors)
        assert all(isinstance(error, PipelineError) for error in errors)


@pytest.mark.parametrize(
    ("fact", "hint"), [("torch", "installation"), ("data", "same path"), ("snapshot", "--snapshot")]
)
def test_what_differs_between_processes_is_named_with_both_values(fact: str, hint: str) -> None:
    def facts(rank: int) -> dict[str, str]:
        return {"torch": "2.15", "data": "100 examples", "snapshot": "none"} | ({fact: "other"} if rank == 1 else {})

    with Group(3, 8).meet() as group:
        going = group.begin(lambda peers: agree(peers, f"worker {peers.rank}", facts(peers.rank)))
        for one in going:
            with pytest.raises(SolverError, match=f"worker 1 has another {fact} than worker 0") as caught:
                one.result(30)
            assert "other there" in caught.value.detail
            assert hint in caught.value.hint


def test_another_kind_of_cpu_is_a_warning() -> None:
    with Group(2, 8).meet() as group:
        found = group.all(lambda peers: agree(peers, f"worker {peers.rank}", {"CPU": f"kind {peers.rank}"}))
        assert (
            found == [["worker 1 has another CPU than worker 0: kind 1, kind 0; its shards have other last digits"]] * 2
        )
    assert agree(Alone(), "this one", {"CPU": "any"}) == []


def chosen(views: list[list[set[int]]], waits: int = 10**6) -> tuple[list[Any], list[str]]:
    """What each process goes on from, or why it does not.  views: of each process, look by look; the last one stays."""
    said: list[str] = []

    def choose(peers: Peers) -> object:
        mine, looks = views[peers.rank], 0

        def newest(most: int | None) -> int | None:
            seen = mine[min(looks, len(mine) - 1)]
            return max((one for one in seen if most is None or one <= most), default=None)

        def wait() -> bool:
            nonlocal looks
            looks += 1
            return looks < waits

        def say(text: str) -> None:
            if peers.rank == 0:
                said.append(text)

        try:
            return newest_of_all(peers, f"worker {peers.rank}", newest, wait, say)
        except TemporaryError as error:
            return error

    with Group(len(views), 8).meet() as group:
        return group.all(choose), said


def test_processes_wait_until_all_see_the_newest_snapshot() -> None:
    found, said = chosen([[{20, 40}], [{20}, {20}, {20, 40}], [set(), {20}, {20, 40}]])
    assert found == [40, 40, 40]
    (line,) = said
    assert "worker 0 sees iteration 40, worker 1 sees iteration 20, worker 2 sees none" in line
    assert chosen([[{20}], [{20}]]) == ([20, 20], [])
    assert chosen([[set()], [set()]]) == ([None, None], [])
    assert newest_of_all(Alone(), "this one", lambda most: 7, lambda: False, said.append) == 7


def test_where_they_never_do_they_go_on_from_the_newest_that_all_see() -> None:
    chance = np.random.default_rng(1)
    for _ in range(6):
        views = [{1, *(int(one) for one in chance.integers(1, 9, 4))} for _ in range(3)]
        assert chosen([[one] for one in views])[0] == [max(set.intersection(*views))] * 3
    assert chosen([[{20, 40}], [{20}, {20}, {20, 40}]], waits=1)[0] == [20, 20], (
        "one was asked to end, and none waits for it"
    )


def test_where_some_see_none_at_all_each_process_may_be_begun_again() -> None:
    found, _ = chosen([[{20}], [set()], [{20}]])
    for one in found:
        assert isinstance(one, TemporaryError)
        assert one.message == "worker 1 sees no snapshot, and worker 0 sees one of iteration 20"
        assert one.exit_code not in Recovery().permanent_codes


def read(net: str, iter_size: int = 1) -> solver.Solver:
    text = caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", max_iter=1, iter_size=iter_size)
    text_format.Parse(net, text.net_param)
    return solver.check(text, Path("solver.prototxt"), Flags())


DATA = (
    'layer {{ name: "d" type: "Data" top: "a" top: "b" data_param {{ source: "db" batch_size: {0} backend: LMDB }} }}'
)


def test_a_batch_is_cut_into_shards_and_counts_as_iter_size() -> None:
    found = cut(read(DATA.format(64), iter_size=2), 8)
    assert found.net.text.layer[0].data_param.batch_size == 8
    assert (found.update.iter_size, found.shards) == (16, 8)
    assert cut(found, 1) is found


def test_a_batch_that_cannot_be_cut_says_which_shards_fit() -> None:
    with pytest.raises(SolverError, match="layer 'd': a batch of 12 cannot be cut into 8 shards") as caught:
        cut(read(DATA.format(12)), 8)
    assert caught.value.hint == "give --shards 2, 3, 4, 6, 12, or another batch_size"


def test_what_a_program_feeds_cannot_be_cut() -> None:
    net = 'layer { name: "in" type: "Input" top: "a" input_param { shape { dim: 8 } } }'
    with pytest.raises(SolverError, match=r"layer 'in' \(Input\) cannot be cut into shards"):
        cut(read(net), 8)


def test_more_workers_than_shards_are_refused() -> None:
    demand_shards(8, 8, "executor")
    with pytest.raises(ConfigError, match="there are more executors than shards: 9 and 8"):
        demand_shards(9, 8, "executor")


@pytest.mark.parametrize(("workers", "given", "says", "has"), [
    (2, 0, "", 3), (4, 0, "", 1), (8, 0, "", 1), (1, 0, "", 0), (2, 5, "", 5), (2, 0, "4", 0)
])  # fmt: skip
def test_workers_share_the_cores_of_a_host_unless_somebody_says_how_many_threads_compute(
    workers: int, given: int, says: str, has: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setenv("OMP_NUM_THREADS", says)
    assert with_threads(Wanted(Path("solver.prototxt"), how=How(given)), workers).how.threads == has


@pytest.mark.parametrize("hosts", [1, 2])
def test_processes_of_one_host_see_each_others_memory_and_nothing_of_it_stays_behind(hosts: int) -> None:
    def shared() -> int:
        return Path("/proc/self/maps").read_text().count("/memfd:hathi-training")

    def handles() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = handles()
    with Group(4, 8, hosts=hosts).meet() as group:
        group.all(lambda peers: peers.sum(gradients(peers.rank), b""))
        assert shared() == (16 if hosts == 1 else 8), "each sees its own memory, and that of all others of its host"
    del group
    gc.collect()
    assert shared() == 0
    assert handles() == before


def test_memory_whose_size_could_change_is_not_taken() -> None:
    handle = memory.unnamed("another")
    os.ftruncate(handle, 64)
    with pytest.raises(PipelineError, match="worker 1 gave memory of another form"):
        Room([(16,)], None).of(handle, "worker 1")
    handle = memory.unnamed("another")
    memory.fix(handle, 128)
    with pytest.raises(PipelineError, match="worker 1 gave memory of another form"):
        Room([(16,)], None).of(handle, "worker 1")


def test_where_somebody_has_the_name_of_a_host_s_socket_processes_meet_over_tcp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meeting, "_near", lambda port: "\0hathi-training-of-another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taken:
        taken.bind("\0hathi-training-of-another")
        with Group(2, 8).meet() as group:
            assert group.all(lambda peers: peers.sum([], b"x")) == [[b"x", b"x"]] * 2
            assert [one.near for one in group.listening] == [None, None]
