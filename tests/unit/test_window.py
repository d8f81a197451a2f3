"""The window over a stub web, a net of arithmetic and a clock that stands still."""

from __future__ import annotations

import hashlib
import math
import random
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import Clock
from pipeline.records import Failure, ImageRef
from pipeline.settings import Settings
from pipeline.stages.features import FeatureMaker
from pipeline.stages.window import PARTIAL_SECONDS, STACKS_AHEAD, Computed, Matrix, Opened, Prepare, Tag, Wanted, Window
from sample import random_features
from tests.simulation.world import DIM, AtOnce, Fetched, HandClock, StubNet, answer, feature, prepare

BATCH = StubNet.batch_size
ROOT = Path(__file__).parents[2]


def refs_of(batch: str, kinds: Sequence[str]) -> list[ImageRef]:
    """Refs whose URL says what comes of them; `inline` has its bytes with it, `neither` nothing."""
    made = []
    for place, kind in enumerate(kinds):
        url = f"http://shop.example/{batch}/{kind}-{place}" if kind not in ("inline", "neither") else ""
        content = f"{batch}/inline-{place}".encode() if kind == "inline" else b""
        made.append(ImageRef(7, place, f"{batch}-{place}", url, content, place))
    return made


class Web:
    """Takes what the window has for it, then ends one URL; `pick` says which of those that wait."""

    def __init__(self, clock: HandClock, pick: random.Random | None = None, tick: float = 0.1) -> None:
        self.waiting: list[Wanted] = []
        self.seen: list[str] = []
        self.closed = False
        self.answers: float = math.inf
        """How many it gives; from then on only time goes by."""
        self._clock = clock
        self._pick = pick
        self._tick = tick

    def fetch(self, wanted: Iterator[Wanted | None]) -> Iterator[tuple[Tag, Fetched | Failure] | None]:
        try:
            more = True
            while more or self.waiting:
                more = more and self._take(wanted)
                if self.waiting and self.answers > 0:
                    self.answers -= 1
                    yield self._end(self.waiting.pop(self._pick.randrange(len(self.waiting)) if self._pick else 0))
                elif more or self.waiting:
                    self._clock.sleep(self._tick)
                    yield None
        finally:
            self.closed = True

    def _take(self, wanted: Iterator[Wanted | None]) -> bool:
        """False once there is no more."""
        for one in wanted:
            if one is None:
                return True
            self.waiting.append(one)
            self.seen.append(one.url)
        return False

    def _end(self, one: Wanted) -> tuple[Tag, Fetched | Failure]:
        got = answer(one.url, {})
        if isinstance(got, Failure):
            return one.tag, got
        return one.tag, Fetched(got, hashlib.sha256(got).digest(), datetime.fromtimestamp(self._clock.at, UTC))


class CountingNet(StubNet):
    """Remembers how many images came in each pass, and when."""

    def __init__(self, clock: HandClock) -> None:
        self.passes: list[tuple[int, float]] = []
        self._clock = clock

    def forward(self, batch: Matrix) -> Matrix:
        self.passes.append((len(batch), self._clock.at))
        return super().forward(batch)


@dataclass
class Stand:
    """A window and everything around it; batches are named by their group and a number."""

    kinds: dict[str, list[list[str]]]
    """For each group the kinds of the refs of its batches."""
    max_batches: int = 8
    max_bytes: int = 1 << 30
    pick: random.Random | None = None
    threads: Executor = field(default_factory=AtOnce)
    prepare: Prepare = prepare
    taken_by_others: frozenset[str] = frozenset()
    opened: list[str] = field(default_factory=list)
    waiting_at_opening: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    most_open: int = 0

    def __post_init__(self) -> None:
        self.hand = HandClock()
        self.web = Web(self.hand, self.pick)
        self.net = CountingNet(self.hand)
        self.refs = {
            f"{group}{number}": refs_of(f"{group}{number}", kinds)
            for group, batches in self.kinds.items()
            for number, kinds in enumerate(batches)
        }

    def window(self) -> Window[str]:
        return Window(
            {group: [f"{group}{number}" for number in range(len(batches))] for group, batches in self.kinds.items()},
            self.open_batch,
            fetch=self.web.fetch,
            prepare=self.prepare,
            net=self.net,
            decoders=self.threads,
            runner=self.threads,
            clock=self.hand.clock(),
            max_batches=self.max_batches,
            max_bytes=self.max_bytes,
            batch_seconds=60.0,
            decoding=8,
        )

    def open_batch(self, task: str) -> Opened[str] | None:
        if task in self.taken_by_others:
            return None
        self.opened.append(task)
        self.waiting_at_opening.append(len(self.web.waiting))
        self.most_open = max(self.most_open, len(self.opened) - len(self.ended))
        return Opened(task, self.refs[task])

    def run(self) -> dict[str, Computed[str]]:
        done: dict[str, Computed[str]] = {}
        for computed in self.window().run():
            if computed is not None:
                assert computed.task not in done
                done[computed.task] = computed
                self.ended.append(computed.task)
        return done


def test_batches_of_a_group_are_opened_in_order_and_the_next_when_less_than_a_batch_waits() -> None:
    stand = Stand({"a": [["ok"] * 6] * 4})
    done = stand.run()
    assert stand.opened == ["a0", "a1", "a2", "a3"]
    assert stand.waiting_at_opening == [0, 5, 5, 5]
    assert all(len(computed.rows) == 6 for computed in done.values())


def test_many_groups_are_fetched_at_the_same_time_and_share_the_passes_of_the_net() -> None:
    stand = Stand({group: [["ok"] * 2] for group in "abcdef"})
    stand.run()
    assert stand.waiting_at_opening == [0, 2, 4, 6, 8, 10]
    assert [count for count, _ in stand.net.passes] == [BATCH] * 3


def test_features_are_those_of_the_bytes_and_each_row_says_where_they_came_from() -> None:
    stand = Stand({"a": [["ok", "gone", "nan", "junk"]]})
    (computed,) = stand.run().values()
    (row,) = computed.rows
    assert np.array_equal(computed.matrix, [feature(row.url.encode())])
    assert (row.external_id, row.content_sha256) == ("a0-0", hashlib.sha256(row.url.encode()).digest())
    assert sorted((failed.external_id, failed.reason) for failed in computed.failures) == [
        ("a0-1", "http_4xx"), ("a0-2", "not_finite"), ("a0-3", "not_image"),
    ]  # fmt: skip


def test_no_more_batches_are_open_than_is_allowed() -> None:
    stand = Stand({group: [["ok"] * 3] * 2 for group in "abcde"}, max_batches=2)
    assert len(stand.run()) == 10
    assert stand.most_open == 2


def test_no_batch_is_opened_once_the_open_ones_hold_the_bytes_that_are_allowed() -> None:
    stand = Stand({group: [["ok"] * 3] * 2 for group in "abcde"}, max_bytes=600)
    assert len(stand.run()) == 10
    assert stand.most_open == 2  # each holds about 450


def test_a_batch_that_somebody_else_has_is_passed_over() -> None:
    stand = Stand({"a": [["ok"]] * 3, "b": [["ok"]]}, taken_by_others=frozenset({"a0", "a2"}))
    assert sorted(stand.run()) == ["a1", "b0"]


def test_an_image_that_waits_alone_goes_to_the_net_after_a_while() -> None:
    stand = Stand({"a": [["ok"] * 2]})
    stand.web.answers = 1
    window = stand.window().run()
    began = stand.hand.at
    for _ in range(20):
        assert next(window) is None
    assert [count for count, _ in stand.net.passes] == [1]
    assert stand.net.passes[0][1] - began == pytest.approx(PARTIAL_SECONDS, abs=0.2)
    window.close()


def test_what_the_net_raises_is_the_trouble_of_the_batches_in_that_stack_and_of_no_other() -> None:
    stand = Stand({"a": [["ok", "bang"]], "b": [["ok", "ok"]], "c": [["ok"] * 4]})
    done = stand.run()
    assert {task: computed.trouble for task, computed in done.items()} == {
        "a0": "the net raised RuntimeError", "b0": "the net raised RuntimeError", "c0": "",
    }  # fmt: skip
    assert [len(done[task].rows) for task in ("a0", "b0", "c0")] == [0, 0, 4]


def test_a_picture_that_breaks_its_preparation_is_the_trouble_of_its_batch_alone() -> None:
    def breaks(content: bytes) -> Matrix | Failure:
        if b"/bang" in content:
            raise ValueError("no such shape")
        return prepare(content)

    done = Stand({"a": [["ok", "bang"]], "b": [["ok", "ok"]]}, prepare=breaks).run()
    assert {task: computed.trouble for task, computed in done.items()} == {
        "a0": "preparing an image raised ValueError", "b0": "",
    }  # fmt: skip


def test_inline_images_need_no_fetch_and_batches_of_them_do_not_pile_up() -> None:
    stand = Stand({"a": [["inline"] * BATCH] * 30})
    done = stand.run()
    assert stand.web.seen == []
    assert len(done) == 30
    assert all(len(computed.rows) == BATCH for computed in done.values())
    assert stand.most_open <= STACKS_AHEAD + 3  # those in the net, two that are decoded, and the one just opened


def test_a_ref_without_url_and_bytes_is_a_failure_and_an_empty_batch_ends_at_once() -> None:
    done = Stand({"a": [["neither"]], "b": [[]]}).run()
    assert [failed.reason for failed in done["a0"].failures] == ["bad_ref"]
    assert (done["b0"].rows, done["b0"].failures) == ([], [])
    assert done["b0"].matrix.shape == (0, DIM)


def test_closing_in_the_middle_closes_the_stream_of_urls() -> None:
    stand = Stand({"a": [["ok"] * 9] * 3})
    window = stand.window().run()
    next(window)
    window.close()
    assert stand.web.closed


KINDS = st.sampled_from(["ok", "ok", "ok", "gone", "down", "junk", "nan", "inline", "neither", "bang"])


@given(
    kinds=st.dictionaries(st.sampled_from("abcd"), st.lists(st.lists(KINDS, max_size=9), max_size=4), max_size=4),
    seed=st.integers(0, 1000),
    max_batches=st.integers(1, 5),
    threads=st.booleans(),
)
def test_every_ref_of_every_batch_ends_once_whatever_the_order(
    kinds: dict[str, list[list[str]]], seed: int, max_batches: int, threads: bool
) -> None:
    with ThreadPoolExecutor(2) as pool:
        stand = Stand(kinds, max_batches, pick=random.Random(seed), threads=pool if threads else AtOnce())
        done = stand.run()
    assert set(done) == set(stand.refs)
    assert stand.most_open <= max_batches
    for task, refs in stand.refs.items():
        computed = done[task]
        if computed.trouble:
            assert (len(computed.rows), len(computed.matrix), len(computed.failures)) == (0, 0, 0)
            continue
        ended = [row.external_id for row in [*computed.rows, *computed.failures]]
        assert sorted(ended) == sorted(ref.external_id for ref in refs)
        for row, vector in zip(computed.rows, computed.matrix, strict=True):
            content = row.url.encode() or next(ref.content for ref in refs if ref.external_id == row.external_id)
            assert np.array_equal(vector, feature(content))


def test_no_thread_is_left_when_a_window_at_work_is_closed(tmp_path: Path) -> None:
    random_features.write(tmp_path / "random.caffemodel")
    settings = Settings.model_validate(
        {
            "state": str(tmp_path),
            "bucket": {"url": str(tmp_path)},
            "sets": {
                "demo": {
                    "net": str(ROOT / "sample" / "random_features.prototxt"),
                    "weights": str(tmp_path / "random.caffemodel"),
                    "blob": "features",
                    "root": "features",
                }
            },
            "fetch": {"allow_private": True},
        }
    )
    maker = FeatureMaker(settings, "demo", Clock())
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        refs = [ImageRef(7, place, "", f"{url}{place}.jpg", b"", place) for place in range(9)]
        stream = maker.window({"a": [refs]}, lambda part: Opened(part, part), lambda: True)
        assert next(stream) is None
        silent.accept()[0].close()
        assert {thread.name for thread in set(threading.enumerate()) - before} >= {"fetch"}
        deque((next(stream) for _ in range(2)), maxlen=0)
        stream.close()
    assert set(threading.enumerate()) == before
