"""The conformance suite that every store passes (docs/protocol.md 2).

A later store joins by a line in `LAKES` or `BUCKETS`.

`store` is each of them; `lake` is each that can do what a file system does (rename, stat, walk).
"""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.clock import random_nonce
from pipeline.errors import Exists, NotFound, PermanentError, TooLong, Unknown
from pipeline.ledger.commit import put_first
from pipeline.stores import local
from pipeline.stores.hdfs.store import TEMPORARY, HdfsStore
from pipeline.stores.local import LocalStore
from pipeline.stores.s3.store import S3Store
from pipeline.stores.store import Lake, Store
from tests.faults.harmless import harmless
from tests.servers.s3 import S3Server
from tests.simulation.memory import Disk, MemoryStore


def s3(request: pytest.FixtureRequest, _: Path) -> Store:
    """A prefix of its own in the session's bucket."""
    server: S3Server = request.getfixturevalue("s3_server")
    return S3Store(server.settings(f"s3://shared/{random_nonce()}"))


BUCKETS: dict[str, Callable[[pytest.FixtureRequest, Path], Store]] = {"s3": s3}


def without_noreplace(number: int) -> Callable[[pytest.FixtureRequest, Path], Lake]:
    """A folder on a file system as NFS, SMB, 9p and some FUSE are."""

    def made(request: pytest.FixtureRequest, folder: Path) -> Lake:
        patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
        patch.setattr(local, "_renameat2", lambda old, new: number)
        return LocalStore(folder / "store", fsync=False)

    return made


LAKES: dict[str, Callable[[pytest.FixtureRequest, Path], Lake]] = {
    "local": lambda _, folder: LocalStore(folder / "store", fsync=False),
    "local-einval": without_noreplace(errno.EINVAL),
    "local-enosys": without_noreplace(errno.ENOSYS),
    "memory": lambda _, __: MemoryStore(Disk(time.time)),
    "faulty": lambda _, folder: harmless(LocalStore(folder / "store", fsync=False)),
    "hdfs": lambda request, _: request.getfixturevalue("hdfs_server").store(),
    "hdfs-kerberos": lambda request, _: request.getfixturevalue("secure_hdfs").store(),
}


@pytest.fixture(params=[*LAKES, *BUCKETS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return {**LAKES, **BUCKETS}[request.param](request, tmp_path)


@pytest.fixture(params=[*LAKES])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return LAKES[request.param](request, tmp_path)


def keys_of(store: Store, prefix: str, **options: object) -> list[str]:
    return [entry.key for entry in store.list(prefix, **options)]  # type: ignore[arg-type]


def test_what_was_put_is_read_back(store: Store) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    with store.open("a/b") as stream:
        stream.seek(1)
        assert stream.read() == b"wo"


def test_a_file_is_put_as_its_content(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    store.put("big", tmp_path / "file")
    assert store.get("big") == b"x" * 3_000_000


def test_nothing_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.get("nope")
    with pytest.raises(NotFound):
        store.open("no/pe")
    store.delete("nope")


def test_put_new_refuses_what_exists_and_leaves_it(store: Store) -> None:
    store.put_new("k", b"first")
    with pytest.raises(Exists):
        store.put_new("k", b"second")
    assert store.get("k") == b"first"


def test_put_first_gives_back_the_winner(store: Store) -> None:
    assert put_first(store, "k", b"mine", lambda _: None) == b"mine"
    assert put_first(store, "k", b"late", lambda _: None) == b"mine"


def race(do: Callable[[int], None]) -> list[int]:
    """Sixteen threads at once; the numbers of those that were not refused."""
    winners: list[int] = []
    barrier = threading.Barrier(16)

    def run(number: int) -> None:
        barrier.wait()
        try:
            do(number)
            winners.append(number)
        except (Exists, Unknown):
            pass

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners


def test_of_sixteen_that_put_one_key_one_wins_in_each_round(store: Store) -> None:
    for round_ in range(20):

        def put(number: int, target: str = f"t/{round_}") -> None:
            store.put_new(target, b"%d" % number)

        (winner,) = race(put)
        assert store.get(f"t/{round_}") == b"%d" % winner


@pytest.mark.parametrize("inside", ["", "/inside"])
def test_of_sixteen_that_rename_to_one_name_one_wins_in_each_round(lake: Lake, inside: str) -> None:
    for round_ in range(6):
        for number in range(16):
            lake.put(f"s/{round_}/{number}{inside}", b"%d" % number)

        def rename(number: int, round_: int = round_) -> None:
            lake.rename_new(f"s/{round_}/{number}", f"t/{round_}")

        (winner,) = race(rename)
        assert lake.get(f"t/{round_}{inside}") == b"%d" % winner


def test_lists_are_in_the_order_of_keys(store: Store) -> None:
    for key in ("c/a/1", "c/a-b/1", "c/a", "c/b/x/y", "d", "c/ä", "c/a.x"):
        if key != "c/a":
            store.put(key, b"1")
    assert keys_of(store, "c/") == ["c/a-b/1", "c/a.x", "c/a/1", "c/b/x/y", "c/ä"]
    assert keys_of(store, "c/a") == ["c/a-b/1", "c/a.x", "c/a/1"]
    assert keys_of(store, "") == ["c/a-b/1", "c/a.x", "c/a/1", "c/b/x/y", "c/ä", "d"]


def test_lists_begin_after_and_end_at(store: Store) -> None:
    for number in range(9):
        store.put(f"k/{number}/x", b"")
    assert keys_of(store, "k/", after="k/3/x") == [f"k/{n}/x" for n in range(4, 9)]
    assert keys_of(store, "k/", after="k/3") == [f"k/{n}/x" for n in range(3, 9)]
    assert keys_of(store, "k/", until="k/3/x") == [f"k/{n}/x" for n in range(4)]
    assert keys_of(store, "k/", folders=True, after="k/6/") == ["k/7/", "k/8/"]


def test_folders_are_told_by_their_names_alone(store: Store) -> None:
    store.put("k/a/1", b"")
    store.put("k/a/2", b"")
    store.put("k/b", b"")
    assert keys_of(store, "k/", folders=True) == ["k/a/", "k/b"]


@given(keys=st.lists(st.text("ab./-", min_size=1, max_size=6), max_size=12), after=st.text("ab./-", max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_listing_is_sorting_and_filtering(store: Store, keys: list[str], after: str) -> None:
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


def test_deleted_keys_are_gone_and_leave_no_folder(store: Store) -> None:
    store.put("a/b/c", b"")
    store.delete("a/b/c")
    assert keys_of(store, "") == []
    assert keys_of(store, "", folders=True) == []
    store.put("a/b", b"now a file")
    assert store.get("a/b") == b"now a file"


def test_a_folder_moves_whole_and_not_into_an_existing_one(lake: Lake) -> None:
    lake.put("tmp/one/x", b"1")
    lake.put("tmp/two/x", b"2")
    lake.make_folder("root")
    lake.rename_new("tmp/one", "root/p")
    with pytest.raises(Exists):
        lake.rename_new("tmp/two", "root/p")
    assert lake.get("root/p/x") == b"1"
    assert [found.path for found in lake.walk("root")] == ["root/p/x"]
    lake.make_folder("root/empty")
    with pytest.raises(Exists):
        lake.rename_new("tmp/two", "root/empty")


def test_renaming_nothing_is_not_found(lake: Lake) -> None:
    with pytest.raises(NotFound):
        lake.rename_new("no", "where")
    with pytest.raises(NotFound):
        lake.rename_over("no", "where")


def test_rename_over_replaces(lake: Lake) -> None:
    lake.put("old", b"old")
    lake.put("token", b"new")
    lake.rename_over("token", "old")
    assert lake.get("old") == b"new"
    assert lake.stat("token") is None


def test_stat_tells_length_time_and_identity(lake: Lake) -> None:
    lake.put("f", b"abc")
    found = lake.stat("f")
    assert found is not None
    assert (found.length, found.is_folder) == (3, False)
    listing = lake.list("f")
    assert abs(listing.now - found.modified / 1000) < 60
    lake.put("f", b"abd")
    again = lake.stat("f")
    assert again is not None
    assert again.id != found.id
    assert lake.stat("nothing") is None


def test_keys_cannot_leave_the_store(store: Store) -> None:
    for key in ("../x", "a/../../x", "/etc/passwd"):
        with pytest.raises(PermanentError):
            store.put(key, b"")


def test_names_that_are_odd_but_allowed(store: Store) -> None:
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


def test_what_a_killed_writer_left_is_swept_once_it_is_old(store: Store) -> None:
    store.put("kept", b"1")
    if isinstance(store, LocalStore):
        left = store.root / ".hathi-tmp" / "left"
        left.write_bytes(b"half")
        assert store.sweep(60.0) == 0
        assert store.sweep(-60.0) == 1
        assert not left.exists()
    if isinstance(store, S3Store):
        place = {"Bucket": store.bucket, "Key": f"{store.base}left"}
        store.connection.call("create_multipart_upload", **place)
        assert store.sweep(60.0) == 0
        assert store.sweep(-60.0) == 1
    if isinstance(store, HdfsStore):
        store.put(f"{TEMPORARY}/left", b"half")
        assert store.sweep(60.0) == 0
        assert store.sweep(-60.0) == 1
    store.sweep(-60.0)
    assert keys_of(store, "") == ["kept"]


def test_a_get_under_a_cap_takes_no_more_and_says_so(store: Store) -> None:
    store.put("k", b"x" * 100_000)
    assert store.get("k", 100_000) == b"x" * 100_000
    with pytest.raises(TooLong):
        store.get("k", 99_999)
    store.put("k", b"")
    assert store.get("k", 0) == b""


def test_where_a_folder_stands_there_is_no_file_to_read(lake: Lake) -> None:
    lake.put("folder/inside", b"1")
    with pytest.raises(PermanentError):
        lake.get("folder")


def test_without_hard_links_a_folder_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(old: Path, new: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("pipeline.stores.local.os.link", link)
    store = LocalStore(tmp_path / "store", fsync=False)
    with pytest.raises(PermanentError, match="makes no hard links"):
        store.put_new("k", b"1")
    (failed,) = [one for one in store.examine("_hathi/") if not one.ok]
    assert "hard links" in failed.said


def test_a_folder_that_lets_one_be_moved_over_another_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store", fsync=False)
    assert [one.ok for one in store.examine("_hathi/")] == [True, True, True]
    assert keys_of(store, "") == []

    def careless(old: Path, new: Path) -> int:
        if new.is_dir():
            shutil.rmtree(new)
        old.rename(new)
        return 0

    monkeypatch.setattr(local, "_renameat2", careless)
    (failed,) = [one for one in store.examine("_hathi/") if not one.ok]
    assert failed.said == "a folder was moved over another one"
