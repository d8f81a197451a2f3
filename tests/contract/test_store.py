"""The conformance suite that every store passes (PROTOCOL 2).  A later store joins by a line in `stores`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.clock import random_nonce
from pipeline.errors import Exists, NotFound, PermanentError
from pipeline.stores.commit import put_first
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Lake
from tests.simulation.memory import Disk, MemoryStore


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    makers: dict[str, Callable[[], Lake]] = {
        "local": lambda: LocalStore(tmp_path / "store", fsync=False),
        "memory": lambda: MemoryStore(Disk(time.time)),
    }
    return makers[request.param]()


def keys_of(store: Lake, prefix: str, **options: object) -> list[str]:
    return [entry.key for entry in store.list(prefix, **options)]  # type: ignore[arg-type]


def test_what_was_put_is_read_back(store: Lake) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    with store.open("a/b") as stream:
        stream.seek(1)
        assert stream.read() == b"wo"


def test_a_file_is_put_as_its_content(store: Lake, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    store.put("big", tmp_path / "file")
    assert store.get("big") == b"x" * 3_000_000


def test_nothing_there_is_not_found(store: Lake) -> None:
    with pytest.raises(NotFound):
        store.get("nope")
    with pytest.raises(NotFound):
        store.open("no/pe")
    store.delete("nope")


def test_put_new_refuses_what_exists_and_leaves_it(store: Lake) -> None:
    store.put_new("k", b"first")
    with pytest.raises(Exists):
        store.put_new("k", b"second")
    assert store.get("k") == b"first"


def test_put_first_gives_back_the_winner(store: Lake) -> None:
    assert put_first(store, "k", b"mine", lambda _: None) == b"mine"
    assert put_first(store, "k", b"late", lambda _: None) == b"mine"


@pytest.mark.parametrize("verb", ["put_new", "rename_new", "rename_new_folder"])
def test_of_sixteen_racers_one_wins_in_each_round(store: Lake, verb: str) -> None:
    for round_ in range(20):
        winners: list[int] = []
        barrier = threading.Barrier(16)

        def race(number: int, round_: int, barrier: threading.Barrier, won: list[int]) -> None:
            source = f"s/{round_}/{number}"
            if verb == "rename_new":
                store.put(source, b"%d" % number)
            elif verb == "rename_new_folder":
                store.put(f"{source}/inside", b"%d" % number)
            barrier.wait()
            try:
                if verb == "put_new":
                    store.put_new(f"t/{round_}", b"%d" % number)
                else:
                    store.rename_new(source, f"t/{round_}")
                won.append(number)
            except Exists:
                pass

        threads = [threading.Thread(target=race, args=(number, round_, barrier, winners)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        where = f"t/{round_}/inside" if verb == "rename_new_folder" else f"t/{round_}"
        assert store.get(where) == b"%d" % winners[0]


def test_lists_are_in_the_order_of_keys(store: Lake) -> None:
    for key in ("c/a/1", "c/a-b/1", "c/a", "c/b/x/y", "d", "c/ä", "c/a.x"):
        if key != "c/a":
            store.put(key, b"1")
    assert keys_of(store, "c/") == ["c/a-b/1", "c/a.x", "c/a/1", "c/b/x/y", "c/ä"]
    assert keys_of(store, "c/a") == ["c/a-b/1", "c/a.x", "c/a/1"]
    assert keys_of(store, "") == ["c/a-b/1", "c/a.x", "c/a/1", "c/b/x/y", "c/ä", "d"]


def test_lists_begin_after_and_end_at(store: Lake) -> None:
    for number in range(9):
        store.put(f"k/{number}/x", b"")
    assert keys_of(store, "k/", after="k/3/x") == [f"k/{n}/x" for n in range(4, 9)]
    assert keys_of(store, "k/", after="k/3") == [f"k/{n}/x" for n in range(3, 9)]
    assert keys_of(store, "k/", until="k/3/x") == [f"k/{n}/x" for n in range(4)]
    assert keys_of(store, "k/", folders=True, after="k/6/") == ["k/7/", "k/8/"]


def test_folders_are_told_by_their_names_alone(store: Lake) -> None:
    store.put("k/a/1", b"")
    store.put("k/a/2", b"")
    store.put("k/b", b"")
    assert keys_of(store, "k/", folders=True) == ["k/a/", "k/b"]


@given(keys=st.lists(st.text("ab./-", min_size=1, max_size=6), max_size=12), after=st.text("ab./-", max_size=6))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_listing_is_sorting_and_filtering(store: Lake, keys: list[str], after: str) -> None:
    """The order and the meaning of prefix and after, against the obvious definition."""
    top = random_nonce()
    made: set[str] = set()
    for key in keys:
        parts = key.split("/")
        full = f"{top}/{key}"
        if any(part in ("", ".", "..") for part in parts):
            continue
        if any(other.startswith(full + "/") or full.startswith(other + "/") for other in made):
            continue
        store.put(full, b"")
        made.add(full)
    assert keys_of(store, f"{top}/") == sorted(made)
    assert keys_of(store, f"{top}/", after=f"{top}/{after}") == [key for key in sorted(made) if key > f"{top}/{after}"]


def test_deleted_keys_are_gone_and_leave_no_folder(store: Lake) -> None:
    store.put("a/b/c", b"")
    store.delete("a/b/c")
    assert keys_of(store, "") == []
    assert keys_of(store, "", folders=True) == []
    store.put("a/b", b"now a file")
    assert store.get("a/b") == b"now a file"


def test_a_folder_moves_whole_and_not_into_an_existing_one(store: Lake) -> None:
    store.put("tmp/one/x", b"1")
    store.put("tmp/two/x", b"2")
    store.make_folder("root")
    store.rename_new("tmp/one", "root/p")
    with pytest.raises(Exists):
        store.rename_new("tmp/two", "root/p")
    assert store.get("root/p/x") == b"1"
    assert [found.path for found in store.walk("root")] == ["root/p/x"]
    store.make_folder("root/empty")
    with pytest.raises(Exists):
        store.rename_new("tmp/two", "root/empty")


def test_renaming_nothing_is_not_found(store: Lake) -> None:
    with pytest.raises(NotFound):
        store.rename_new("no", "where")
    with pytest.raises(NotFound):
        store.rename_over("no", "where")


def test_rename_over_replaces(store: Lake) -> None:
    store.put("old", b"old")
    store.put("token", b"new")
    store.rename_over("token", "old")
    assert store.get("old") == b"new"
    assert store.stat("token") is None


def test_stat_tells_length_time_and_identity(store: Lake) -> None:
    store.put("f", b"abc")
    found = store.stat("f")
    assert found is not None
    assert (found.length, found.is_folder) == (3, False)
    listing = store.list("f")
    assert abs(listing.now - found.modified / 1000) < 60
    store.put("f", b"abd")
    again = store.stat("f")
    assert again is not None
    assert again.id != found.id
    assert store.stat("nothing") is None


def test_keys_cannot_leave_the_store(store: Lake) -> None:
    for key in ("../x", "a/../../x", "/etc/passwd"):
        with pytest.raises(PermanentError):
            store.put(key, b"")


def test_names_that_are_odd_but_allowed(store: Lake) -> None:
    for name in ("with space", "100%", "a+b", "c#d", "é/ü", "semi;colon?x=y"):
        store.put(f"odd/{name}", name.encode())
    assert {key.removeprefix("odd/") for key in keys_of(store, "odd/")} == {
        "with space",
        "100%",
        "a+b",
        "c#d",
        "é/ü",
        "semi;colon?x=y",
    }


def test_what_a_killed_writer_left_is_swept_once_it_is_old(store: Lake) -> None:
    store.put("kept", b"1")
    if isinstance(store, LocalStore):
        left = store.root / ".hathi-tmp" / "left"
        left.write_bytes(b"half")
        assert store.sweep(60.0) == 0
        assert store.sweep(-60.0) == 1
        assert not left.exists()
    store.sweep(-60.0)
    assert keys_of(store, "") == ["kept"]
