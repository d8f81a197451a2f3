"""The fetcher behind the window of open batches, against hosts that hang."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.codec.shards import Shard, write_features
from pipeline.extraction.feature_maker import stream_of
from pipeline.extraction.memory_budget import Bounds
from pipeline.extraction.window import Computed, Opened, Window
from pipeline.fetch import Fetcher
from pipeline.records import ImageRef
from tests.integration.fetch.asking import Hand, limits
from tests.integration.fetch.hostile import JPEG, Hostile, Visit, answer
from tests.simulation.world import AtOnce, StubNet, feature, prepare


@contextmanager
def window(
    hand: Hand,
    batches: dict[str, list[str]],
    seconds: float,
    spill: Path | None = None,
    memory: int = 1 << 30,
    **changes: Any,
) -> Iterator[Window[str]]:
    """A window whose groups have one batch each, of these URLs."""

    def refs_of(name: str) -> Opened[str]:
        return Opened(name, [ImageRef(1, at, "", url, b"", at) for at, url in enumerate(batches[name])])

    with Fetcher(limits(**changes), clock=hand.clock, seed=1) as fetcher:
        yield Window(
            {name: [name] for name in batches},
            refs_of,
            fetch=stream_of(fetcher, lambda: None),
            prepare=prepare,
            net=StubNet(),
            decoders=AtOnce(),
            runner=AtOnce(),
            clock=hand.clock,
            bounds=Bounds(batches=8, memory=memory, batch_seconds=seconds, decoding=8, spill=spill, disk=1 << 30),
            host_of=fetcher.host_of,
            has_room=fetcher.has_room,
        )


def reasons(computed: Computed[str]) -> Counter[tuple[str, str, bool]]:
    return Counter((row.reason, row.detail, row.retriable) for row in computed.failures)


def test_a_batch_with_urls_that_hang_ends_at_its_deadline_and_keeps_no_other_waiting(
    server: Hostile, hand: Hand
) -> None:
    with Hostile() as dead:
        urls = [dead.url(f"/hang?{n}") if n % 10 == 0 else server.url(f"/ok.jpg?a{n}") for n in range(60)]
        batches = {"a": urls, "b": [server.url(f"/ok.jpg?b{n}") for n in range(30)]}
        done: dict[str, tuple[Computed[str], float]] = {}
        with window(hand, batches, seconds=40.0) as one:
            for computed in one.run():
                if computed is not None:
                    done[computed.task] = (computed, hand.passed())
                elif "b" in done and dead.busy == 4:
                    hand.turn(5.0)
    first, last = done["b"], done["a"]
    assert (len(first[0].rows), len(first[0].failures)) == (30, 0)
    assert len(last[0].rows) == 54
    assert reasons(last[0]) == {("timeout", "batch deadline", True): 4, ("host_busy", "batch deadline", True): 2}
    assert first[1] < 40.0 <= last[1] < 60.0


def test_a_host_that_answers_nothing_at_all_is_given_up_after_one_deadline_on_each_connection(
    server: Hostile, hand: Hand
) -> None:
    with Hostile() as dead:
        urls = [dead.url(f"/hang?{n}") if n % 2 else server.url(f"/ok.jpg?{n}") for n in range(60)]
        done: list[Computed[str]] = []
        with window(hand, {"a": urls}, seconds=1800.0, total_seconds=60.0) as one:
            for computed in one.run():
                if computed is not None:
                    done.append(computed)
                elif dead.busy == 4:
                    hand.turn(10.0)
    assert len(done[0].rows) == 30
    assert reasons(done[0]) == {
        ("timeout", "waiting for headers", True): 4, ("host_busy", "breaker open", True): 26,
    }  # fmt: skip
    assert hand.passed() < 120.0


@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_a_shard_says_of_each_feature_what_a_later_fetch_can_be_spared_by(
    server: Hostile, hand: Hand, tmp_path: Path, memory: int
) -> None:
    async def bare(visit: Visit) -> None:
        await visit.send(answer(JPEG + b"2"))

    server.extra["/bare"] = bare
    urls = [server.url("/ok.jpg"), server.url("/bare"), server.url("/ok.jpg?again")]
    with window(hand, {"a": urls}, seconds=60.0, spill=tmp_path, memory=memory) as one:
        (computed,) = [found for found in one.run() if found is not None]
    write_features(tmp_path / "shard", computed.rows, computed.matrix)
    rows, matrix = Shard(tmp_path / "shard").features(0, StubNet.dim)
    said = [(row.url, row.etag, row.last_modified, row.content_sha256) for row in rows]
    when, digest = "Wed, 21 Oct 2015 07:28:00 GMT", sha256(JPEG).digest()
    assert said == [
        (urls[0], '"v1"', when, digest), (urls[1], None, None, sha256(JPEG + b"2").digest()),
        (urls[2], '"v1"', when, digest),
    ]  # fmt: skip
    assert all(abs(row.fetched_at.timestamp() - hand.clock.now()) < 60 for row in rows)
    assert np.array_equal(matrix, [feature(JPEG), feature(JPEG + b"2"), feature(JPEG)])
