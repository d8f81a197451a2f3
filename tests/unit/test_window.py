"""The window over a stub web: what is opened and when, what the net sees, how it ends."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import Clock
from pipeline.codec.shards import Matrix
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.extraction.net_batches import LONGEST_SECONDS, PARTIAL_SECONDS, STACKS_AHEAD, Marked
from pipeline.extraction.spill import Features, Origin
from pipeline.extraction.window import Opened
from pipeline.records import Failure, ImageRef
from pipeline.settings import Settings
from sample import random_features
from tests.simulation.world import DIM, AtOnce, StubNet, feature, prepare
from tests.unit.window_stand import SAME, Stand

BATCH = StubNet.batch_size
ROOT = Path(__file__).parents[2]


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
    stand = Stand({group: [["ok"] * 3] * 2 for group in "abcde"}, max_bytes=10_000)
    assert len(stand.run()) == 10
    assert stand.most_open == 2  # half of it is for refs, and a batch of them holds about 2,200


def test_a_batch_that_somebody_else_has_is_passed_over() -> None:
    stand = Stand({"a": [["ok"]] * 3, "b": [["ok"]]}, taken_by_others=frozenset({"a0", "a2"}))
    assert sorted(stand.run()) == ["a1", "b0"]


def test_an_image_for_which_alone_its_batch_waits_goes_to_the_net_after_a_while() -> None:
    stand = Stand({"a": [["ok"]], "b": [["ok"]]})
    stand.web.answers = 1
    window = stand.window().run()
    began = stand.hand.at
    first = next(computed for computed in window if computed)
    assert first.task == "a0"
    assert [count for count, _ in stand.net.passes] == [1]
    assert stand.net.passes[0][1] - began == pytest.approx(PARTIAL_SECONDS, abs=0.2)
    window.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("every", "passes"), [(5.0, [BATCH, BATCH]), (20.0, [2])])
def test_images_whose_batch_waits_for_its_host_share_a_pass(every: float, passes: list[int]) -> None:
    """A host gives an image now and then: a pass for each of them would cost as much as one for a full stack."""
    stand = Stand({"a": [["ok"] * 12]})
    stand.web.answers = 0
    window = stand.window().run()
    began = stand.hand.at
    ended = 0
    while stand.hand.at - began < 55.0:
        if (stand.hand.at - began) // every > ended:
            ended, stand.web.answers = ended + 1, 1
        assert next(window) is None
    assert [count for count, _ in stand.net.passes] == passes
    assert stand.net.passes[0][1] - began <= every + LONGEST_SECONDS + 0.5
    window.close()  # type: ignore[attr-defined]


def test_what_the_net_raises_is_the_trouble_of_the_batches_in_that_stack_and_of_no_other() -> None:
    stand = Stand({"a": [["ok", "bang"]], "b": [["ok", "ok"]], "c": [["ok"] * 4]})
    done = stand.run()
    assert {task: computed.trouble for task, computed in done.items()} == {
        "a0": "the net failed with RuntimeError", "b0": "the net failed with RuntimeError", "c0": "",
    }  # fmt: skip
    assert [len(done[task].rows) for task in ("a0", "b0", "c0")] == [0, 0, 4]


@pytest.mark.parametrize(
    ("raised", "reason"),
    [(ValueError("no such shape"), "decode"), (MemoryError(), "too_many_pixels"), (KeyError(3), "decode")],
)
def test_a_picture_that_breaks_its_preparation_is_a_failure_and_all_others_have_features(
    raised: Exception, reason: str
) -> None:
    def breaks(content: bytes) -> Matrix | Failure:
        if b"/bang" in content:
            raise raised
        return prepare(content)

    done = Stand({"a": [["ok", "bang"]], "b": [["ok", "ok"]]}, prepare=breaks).run()
    assert {task: (computed.trouble, len(computed.rows)) for task, computed in done.items()} == {
        "a0": ("", 1), "b0": ("", 2),
    }  # fmt: skip
    (failed,) = done["a0"].failures
    assert (failed.reason, failed.detail) == (reason, f"preparing the image failed with {type(raised).__name__}")


def test_a_picture_that_is_prepared_in_another_shape_never_meets_the_others_in_a_stack() -> None:
    def odd(content: bytes) -> Matrix | Failure:
        found = prepare(content)
        return np.concatenate([found, found]) if b"/bang" in content and not isinstance(found, Failure) else found

    done = Stand({"a": [["ok", "bang", "ok"]], "b": [["ok", "ok"]]}, prepare=odd).run()
    assert [(computed.trouble, len(computed.rows)) for _, computed in sorted(done.items())] == [("", 2), ("", 2)]
    assert [row.reason for row in done["a0"].failures] == ["decode"]


def test_what_was_said_of_damage_stands_with_each_feature_of_those_bytes_and_with_no_other() -> None:
    def marks(content: bytes) -> Matrix | Marked | Failure:
        found = prepare(content)
        return Marked(found, "torn") if content == SAME and not isinstance(found, Failure) else found

    done = Stand({"a": [["ok", "same", "same", "ok"]], "b": [["same", "ok"]]}, prepare=marks).run()
    for name, wanted in (("a0", [None, "torn", "torn", None]), ("b0", ["torn", None])):
        rows = sorted(done[name].rows, key=lambda row: row.ordinal)
        assert [row.damage for row in rows] == wanted


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
    window.close()  # type: ignore[attr-defined]
    assert stand.web.closed


KINDS = st.sampled_from(["ok", "ok", "ok", "same", "same", "gone", "down", "junk", "nan", "inline", "neither", "bang"])


@settings(deadline=None)
@given(
    kinds=st.dictionaries(st.sampled_from("abcd"), st.lists(st.lists(KINDS, max_size=9), max_size=4), max_size=4),
    seed=st.integers(0, 1000),
    max_batches=st.integers(1, 5),
    max_bytes=st.sampled_from([1, 10_000, 1 << 30]),
    ahead=st.sampled_from([1, 20_000]),
    threads=st.booleans(),
)
def test_every_ref_of_every_batch_ends_once_whatever_the_order(
    kinds: dict[str, list[list[str]]], seed: int, max_batches: int, max_bytes: int, ahead: int, threads: bool
) -> None:
    with ThreadPoolExecutor(2) as pool, TemporaryDirectory() as spill:
        stand = Stand(kinds, max_batches, max_bytes, Path(spill), ahead=ahead, pick=random.Random(seed))
        stand.threads = pool if threads else AtOnce()
        done = stand.run()
        assert list(Path(spill).iterdir()) == []
    assert set(done) == set(stand.refs)
    assert stand.most_open <= max_batches
    for task, refs in stand.refs.items():
        computed = done[task]
        if computed.trouble:
            assert (len(computed.rows), len(computed.matrix), len(computed.failures)) == (0, 0, 0)
            continue
        ended = [row.external_id for row in (*computed.rows, *computed.failures)]  # type: ignore[attr-defined]
        assert sorted(ended) == sorted(ref.external_id for ref in refs)
        for row, vector in zip(computed.rows, computed.matrix, strict=True):
            content = row.url.encode() or next(ref.content for ref in refs if ref.external_id == row.external_id)
            content = SAME if "/same-" in row.url else content
            assert np.array_equal(vector, feature(content))


def test_no_thread_and_no_file_is_left_when_a_window_at_work_is_closed(tmp_path: Path) -> None:
    random_features.write(tmp_path / "random.caffemodel")
    chosen = Settings.model_validate(
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
    spill = tmp_path / "spill"
    spill.mkdir()
    maker = FeatureMaker(chosen, "demo", Clock(), spill=spill)
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        refs = [ImageRef(7, place, "", f"{url}{place}.jpg", b"", place) for place in range(9)]
        stream = maker.window({"a": [refs]}, lambda part: Opened(part, part), lambda: True)
        assert next(stream) is None
        silent.accept()[0].close()
        assert {thread.name for thread in set(threading.enumerate()) - before} >= {"fetch"}
        assert len(list(spill.iterdir())) == 1
        deque((next(stream) for _ in range(2)), maxlen=0)
        stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) == before
    assert list(spill.iterdir()) == []


def test_what_was_said_of_damage_survives_the_disk(tmp_path: Path) -> None:
    features = Features(3, tmp_path / "batch")
    when = datetime(2026, 1, 1, tzinfo=UTC)
    for place, damage in enumerate((None, "Corrupt JPEG data", "")):
        slot = features.add(np.full(3, place, np.float32))
        features.name(place, slot, Origin(bytes(32), when, None, "yesterday", damage))
        features.spill()
    rows, _ = features.take([ImageRef(7, place, "", "", b"", place) for place in range(3)])
    assert [row.damage for row in rows] == [None, "Corrupt JPEG data", ""]
