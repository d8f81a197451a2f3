"""What a window takes on: queues for hosts, memory and disk for what waits, each image through the net once."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.codec.shards import Matrix
from pipeline.errors import TemporaryError
from pipeline.extraction.memory_budget import Bounds
from pipeline.extraction.window import Computed, Opened, Tag, Wanted, Window
from pipeline.records import Failure, ImageRef
from tests.simulation.world import AtOnce, Fetched, HandClock, feature
from tests.unit.window_stand import SAME, Stand


def host_of(url: str) -> str:
    """The path's first part, without its number: batches a0 and a1 are of host a."""
    return url.split("/")[3][:1]


def kept_waiting(stand: Stand, host: str) -> None:
    """Give the stand's window a fetcher whose queue for that host takes two."""
    stand.has_room = lambda url: host_of(url) != host or sum(host_of(w.url) == host for w in stand.web.waiting) < 2


def test_a_host_whose_queue_is_full_keeps_only_its_own_batches_waiting() -> None:
    stand = Stand({"a": [["ok"] * 6] * 2, "b": [["ok"] * 6] * 2}, host_of=host_of)
    kept_waiting(stand, "a")
    stand.web.answers = 0
    window = stand.window().run()
    next(window)
    assert Counter(map(host_of, stand.web.seen)) == {"a": 2, "b": 6}
    stand.web.answers = 1000
    assert sum(len(computed.rows) for computed in window if computed is not None) == 24


def test_lanes_share_what_the_fetcher_takes() -> None:
    stand = Stand({group: [["ok"] * 50] for group in "abcd"}, ahead=80)
    stand.web.answers = 0
    next(stand.window().run())
    assert Counter(map(host_of, stand.web.seen)) == dict.fromkeys("abcd", 20)


def test_a_lane_that_does_not_get_on_leaves_what_others_give_back_to_them() -> None:
    stand = Stand({"a": [["ok"] * 100], "b": [["ok"] * 100]}, ahead=40)
    stand.web.hangs = lambda url: host_of(url) == "a"
    window = stand.window().run()
    done = next(computed for computed in window if computed is not None)
    assert (done.task, len(done.rows)) == ("b0", 100)
    assert Counter(map(host_of, stand.web.seen)) == {"a": 20, "b": 100}


def test_batches_of_two_shipments_of_one_host_are_fetched_one_after_the_other() -> None:
    stand = Stand({"a": [["ok"] * 30], "b": [["ok"] * 30]}, ahead=20, host_of=lambda url: "shop")
    stand.run()
    assert [host_of(url) for url in stand.web.seen] == ["a"] * 30 + ["b"] * 30


def test_the_batch_that_is_opened_next_is_of_the_host_with_the_least_to_do() -> None:
    stand = Stand({"a": [["ok"] * 4] * 2, "b": [["ok"] * 4] * 2, "c": [["ok"] * 4] * 2}, max_batches=3)
    stand.web.hangs = lambda url: url.endswith("/a0/ok-3")
    stand.run()
    assert stand.opened == ["a0", "b0", "c0", "b1", "c1", "a1"]


def test_a_batch_that_waits_for_its_turn_does_not_use_up_its_time() -> None:
    stand = Stand({"a": [["ok"] * 20] * 2}, ahead=16, host_of=lambda url: "shop")
    stand.web.hangs = lambda url: True
    began = stand.hand.at
    ended = {computed.task: stand.hand.at - began for computed in stand.window().run() if computed}
    assert ended == {"a0": pytest.approx(60, abs=2), "a1": pytest.approx(120, abs=4)}


def test_a_batch_ends_at_its_deadline_though_its_host_takes_nothing() -> None:
    stand = Stand({"a": [["ok"] * 20]})
    stand.web.hangs = lambda url: True
    stand.has_room = lambda url: len(stand.web.seen) < 2
    began = stand.hand.at
    (done,) = stand.run().values()
    assert stand.hand.at - began == pytest.approx(60, abs=2)
    reasons = Counter((row.reason, row.detail, row.retriable) for row in done.failures)
    assert reasons == {("timeout", "a stub's deadline", True): 2, ("host_busy", "batch deadline", True): 18}


def test_equal_bytes_in_a_batch_pass_the_net_once_and_each_row_is_its_own() -> None:
    stand = Stand({"a": [["same", "ok", "same", "inline", "same"] * 3]})
    stand.refs["a0"] = [ref._replace(content=SAME) if ref.content else ref for ref in stand.refs["a0"]]
    (done,) = stand.run().values()
    assert sum(count for count, _ in stand.net.passes) == 4
    assert sorted(row.external_id for row in done.rows) == sorted(ref.external_id for ref in stand.refs["a0"])
    for row, vector in zip(done.rows, done.matrix, strict=True):
        kind = stand.refs["a0"][int(row.external_id.rpartition("-")[2])]
        assert np.array_equal(vector, feature(kind.url.encode() if "/ok-" in kind.url else SAME))


def test_equal_bytes_that_are_on_their_way_for_another_batch_are_waited_for() -> None:
    stand = Stand({"a": [["same"] * 2], "b": [["same"]], "c": [["same", "ok", "ok", "ok"]]})
    done = stand.run()
    assert [len(done[task].rows) for task in ("a0", "b0", "c0")] == [2, 1, 4]
    assert sum(count for count, _ in stand.net.passes) == 4


def test_equal_bytes_that_are_no_image_fail_alike_and_are_looked_at_once() -> None:
    looked: list[bytes] = []

    def prepare(content: bytes) -> Matrix | Failure:
        looked.append(content)
        return Failure.of("decode", "jpeg: broken")

    (done,) = Stand({"a": [["same"] * 5]}, prepare=prepare).run().values()
    assert [row.reason for row in done.failures] == ["decode"] * 5
    assert looked == [SAME]


@dataclass
class Hung:
    """Batches of which one URL each hangs while the others come at once: their features lie about."""

    spill: Path
    batches: int = 200
    size: int = 30
    memory: int = 8 * 2**20
    disk: int = 1 << 30
    dim: int = 4096
    batch_size: int = 16

    def __post_init__(self) -> None:
        self.hand = HandClock()
        self.opened = self.most_spilled = 0
        self.rows = 0

    def forward(self, batch: Matrix) -> Matrix:
        return np.repeat(batch[:, :1], self.dim, axis=1)

    def fetch(self, wanted: Iterator[Wanted | None]) -> Iterator[tuple[Tag, Fetched | Failure] | None]:
        hung: list[Wanted] = []
        for one in wanted:
            if one is None:
                files = list(self.spill.iterdir()) if self.spill.exists() else []
                self.most_spilled = max(self.most_spilled, sum(file.stat().st_size for file in files))
                self.hand.sleep(1.0)
                yield None
                while hung and hung[0].deadline <= self.hand.at:
                    yield hung.pop(0).tag, Failure.of("timeout", "batch deadline")
            elif one.url.endswith("/0"):
                hung.append(one)
            else:
                yield (
                    one.tag,
                    Fetched(one.url.encode(), one.url.encode().rjust(32), datetime.fromtimestamp(self.hand.at, UTC)),
                )

    def window(self) -> Window[int]:
        return Window(
            {f"host {number}": [number] for number in range(self.batches)},
            self.open_batch,
            fetch=self.fetch,
            prepare=lambda content: np.frombuffer(content.rjust(32)[-4:], np.uint8).astype(np.float32),
            net=self,
            decoders=AtOnce(),
            runner=AtOnce(),
            clock=self.hand.clock(),
            bounds=Bounds(
                batches=1000,
                memory=self.memory,
                batch_seconds=60.0,
                decoding=self.batch_size,
                spill=self.spill,
                disk=self.disk,
            ),
        )

    def open_batch(self, number: int) -> Opened[int]:
        self.opened += 1
        return Opened(number, [ImageRef(number, at, "", f"http://{number}/{at}", b"", at) for at in range(self.size)])

    def take(self, computed: Computed[int]) -> None:
        self.rows += len(computed.rows)
        assert computed.matrix.shape == (self.size - 1, self.dim)
        assert [row.reason for row in computed.failures] == ["timeout"]
        for row, vector in zip(computed.rows, computed.matrix, strict=True):
            assert (vector == float(row.url.encode()[-4])).all()


def test_features_of_many_batches_that_wait_for_one_url_each_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    hung = Hung(tmp_path)
    window = hung.window()
    most = 0
    stream = window.run()
    tracemalloc.start()
    try:
        for computed in stream:
            most = max(most, window.held)
            if computed is not None:
                hung.take(computed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    features = 4 * hung.dim * (hung.size - 1) * hung.batches
    one_batch = 4 * hung.dim * hung.size
    assert hung.rows == (hung.size - 1) * hung.batches
    assert hung.opened == hung.batches
    assert most <= hung.memory + one_batch
    assert peak < hung.memory + 8 * one_batch < features / 5
    assert hung.most_spilled > features - hung.memory
    assert list(tmp_path.iterdir()) == []


def test_no_batch_is_opened_whose_features_the_disk_might_not_take(tmp_path: Path) -> None:
    hung = Hung(tmp_path, batches=40, memory=2 * 2**20, disk=4 * 2**20)
    one_batch = (4 * hung.dim + 400) * hung.size
    most_open = 0
    ended = 0
    for computed in hung.window().run():
        most_open = max(most_open, hung.opened - ended)
        if computed is not None:
            ended += 1
            hung.take(computed)
    assert ended == 40
    assert most_open == (6 * 2**20) // (one_batch + 30 * 720)
    assert 0 < hung.most_spilled <= 4 * 2**20


def test_a_full_disk_ends_the_window_with_a_typed_error_and_leaves_no_file(tmp_path: Path) -> None:
    hung = Hung(tmp_path, batches=40, memory=2**20)
    for number in range(40):
        (tmp_path / f"batch-{number}").symlink_to("/dev/full")
    with pytest.raises(TemporaryError, match="disk is full"):
        list(hung.window().run())
    assert len(list(tmp_path.iterdir())) == 39
