"""A store as a person asks it who waits: first answers at the same time, and silence that costs its time once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import NotFound, PermanentError, TemporaryError
from pipeline.settings import Settings
from pipeline.stores.hurried import PIECE, Patience, brief, hurried
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Entry, Listing


class Hanging(LocalStore):
    """Answers nothing, or the first questions only."""

    def __init__(self, root: Path, answers: int = 0) -> None:
        super().__init__(root)
        self.asked = 0
        self._answers = answers

    def list(self, prefix: str, **options: Any) -> Any:
        self.asked += 1
        if self.asked > self._answers:
            threading.Event().wait()
        return super().list(prefix, **options)


def test_stores_that_hang_are_waited_for_together_and_once(tmp_path: Path) -> None:
    stores = {f"lake {number}": Hanging(tmp_path) for number in range(5)}
    began = time.monotonic()
    asked = hurried(stores, seconds=0.5)
    for name, store in asked.items():
        for _ in range(3):
            with pytest.raises(TemporaryError, match=f"{name} does not answer within") as raised:
                store.list("")
            assert raised.value.detail == repr(store), "where it is"
            assert "start it again" in raised.value.hint
    assert time.monotonic() - began < 5 * 0.5, "less than one after the other"
    assert [one.asked for one in stores.values()] == [1] * 5


def test_a_store_that_falls_silent_half_way_is_given_up_too(tmp_path: Path) -> None:
    (store,) = hurried({"the bucket": Hanging(tmp_path, answers=2)}, seconds=0.3).values()
    assert list(store.list("")) == []
    with pytest.raises(TemporaryError, match="the bucket does not answer"):
        store.list("")
    with pytest.raises(TemporaryError, match="the bucket does not answer"):
        store.get("a")


def test_what_answers_is_the_store_itself(tmp_path: Path) -> None:
    plain = LocalStore(tmp_path, fsync=False)
    (store,) = hurried({"lake": plain}).values()
    for number in range(PIECE + 5):
        plain.put(f"a/{number:05d}", b"%d" % number)
    assert [one.key for one in store.list("a/")] == [f"a/{number:05d}" for number in range(PIECE + 5)]
    assert [one.path for one in store.walk("a")][:2] == ["a/00000", "a/00001"]
    store.put("b", bytes(range(256)) * 1000)
    with store.open("b") as stream:
        stream.seek(-300, 2)
        assert stream.read() == (bytes(range(256)) * 1000)[-300:]
        stream.seek(3)
        assert stream.read(2) == b"\x03\x04"
    assert repr(store) == repr(plain)
    with pytest.raises(NotFound):
        store.get("c")
    assert store.stat("c") is None


class Pages(LocalStore):
    """A listing whose later entries never come."""

    def list(self, prefix: str, **options: Any) -> Any:
        def entries() -> Iterator[Entry]:
            yield Entry("a", 1, 0.0)
            threading.Event().wait()

        return Listing(0.0, entries() if prefix == "x" else iter(()))


def test_a_listing_that_stops_half_way_is_given_up(tmp_path: Path) -> None:
    (store,) = hurried({"lake": Pages(tmp_path)}, seconds=0.3).values()
    with pytest.raises(TemporaryError):
        list(store.list("x"))


def test_quick_answers_cost_nothing_and_slow_ones_add_up() -> None:
    at = [0.0]
    patience = Patience("lake", 5.0, lambda: at[0])

    def takes(seconds: float) -> float:
        at[0] += seconds
        return seconds

    for _ in range(100):
        assert patience(lambda: takes(0.4)) == 0.4
    for _ in range(3):
        patience(lambda: takes(2.0))
    with pytest.raises(TemporaryError):
        patience(lambda: threading.Event().wait())


def test_errors_of_the_store_arrive_as_they_are() -> None:
    def refuse() -> None:
        raise PermanentError("no ticket", "", "kinit")

    with pytest.raises(PermanentError, match="no ticket"):
        Patience("lake")(refuse)


def test_a_request_gives_up_within_seconds_and_never_later_than_was_set(settings: Settings) -> None:
    short = brief(settings)
    assert short.bucket.read_seconds <= 4
    assert short.lakes["shop"].hdfs.connect_seconds == 1.5


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate(
        {"bucket": {"url": "/b"}, "lakes": {"shop": {"url": "/lake", "hdfs": {"connect_seconds": 1.5}}}}
    )
