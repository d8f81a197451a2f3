"""Whatever lies at a source and is not read is counted and named; what stands there as it is written is a path."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.config_check import check
from pipeline.errors import ConfigError, NotAFile, NotFound
from pipeline.sources.each_file import A_FOLDER, UNKNOWN
from pipeline.sources.found import NAMED, Left, Named
from pipeline.sources.paths import pattern
from pipeline.stores.keys_as_files import KeysAsFiles
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Entry, Listing
from tests.simulation.world import settings_of
from tests.unit.sources import Shore


def shore(tmp_path: Path, path: str = "refs", **settings: Any) -> Shore:
    return Shore(tmp_path / "lake", path, **settings)


def files(named: Named) -> list[str]:
    return [one.snapshot.source for one in named.found]


@pytest.mark.parametrize("path", ["refs", "refs/*", "refs/**", "re*/*"])
def test_files_whose_names_tell_no_format_are_counted_and_named(tmp_path: Path, path: str) -> None:
    lake = shore(tmp_path, path)
    for name in ("a.csv", "part-00000", "b.bak", "c.csv.tmp", "README", "_SUCCESS", ".a.csv.crc", "done"):
        lake.put(f"refs/{name}")
    named = lake.look()
    assert files(named) == ["refs/a.csv"]
    assert named.left.first == {
        f"refs/{name}": UNKNOWN for name in ("README", "b.bak", "c.csv.tmp", "done", "part-00000")
    }
    lake.source = lake.source.model_copy(update={"format": "csv"})
    lake.anew()
    assert (len(lake.look().found), lake.look().left) == (6, Left())


def test_a_file_that_is_named_and_whose_name_tells_no_format_is_left_out_each_time(tmp_path: Path) -> None:
    lake = shore(tmp_path, "refs/part-00000")
    lake.put("refs/part-00000")
    for _ in range(2):
        assert lake.look().left.first == {"refs/part-00000": UNKNOWN}


def test_of_very_many_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    for number in range(NAMED + 5):
        lake.put(f"refs/part-{number:05d}")
    left = lake.look().left
    assert (left.number, len(left.first)) == (NAMED + 5, NAMED)
    assert left.plus(left).number == 2 * (NAMED + 5)


NEAR = ["feed 2/refs.csv", "feed 2.csv", "aXb/refs.csv"]
"""What the names below would match as patterns."""
NAMES = ["feed [2024]", "feed [2024-01]", "a*b", "what?", "{a,b}", "[!x]", "[", "x]y", "a**b", "100%"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_exists_is_a_path_whatever_signs_it_holds(tmp_path: Path, name: str) -> None:
    for path, wanted in (
        (f"{name}/refs.csv", [f"{name}/refs.csv"]),
        (f"{name}.csv", [f"{name}.csv"]),
        (name, [f"{name}/other.csv", f"{name}/refs.csv"]),
        (f"{name}/r*.csv", [f"{name}/refs.csv"]),
        (f"{name}/**", [f"{name}/other.csv", f"{name}/refs.csv"]),
    ):
        lake = shore(tmp_path, path)
        for one in (
            f"{name}/refs.csv",
            f"{name}/other.csv",
            f"{name}.csv",
            "feed 2/refs.csv",
            "feed 2.csv",
            "aXb/refs.csv",
        ):
            lake.put(one)
        assert files(lake.look()) == wanted, path
        folder = shore(tmp_path, f"{name}", convention="success")
        folder.put(f"{name}/_SUCCESS")
        assert files(folder.look()) == [name]


@pytest.mark.parametrize(
    "path",
    [
        "refs/d*.csv",
        "none*.csv",
        "none/*/x.csv",
        "refs/[z-a].csv",
        "refs/[.csv",
        "**/none",
        "refs/{a,b}.csv",
        "re*s/x*",
    ],
)
def test_a_pattern_that_matches_nothing_is_a_trouble(tmp_path: Path, path: str) -> None:
    lake = shore(tmp_path, path)
    lake.put("refs/a.csv")
    os.mkfifo(lake.folder / "refs/d.csv")
    try:
        named = lake.sources.look(lake.now)
    except ConfigError:  # pragma: no cover
        pytest.fail("one source's trouble is its own")
    (why,) = named.troubles.values()
    assert path in why
    assert not named.found


def test_a_pattern_that_matches_folders_says_that_it_does_not_look_into_them(tmp_path: Path) -> None:
    lake = shore(tmp_path, "refs/2024-*")
    lake.put("refs/2024-01/a.csv")
    named = lake.look()
    assert "matches only folders" in named.troubles["refs/2024-*"]
    lake.put("refs/2024-02.csv")
    named = lake.look()
    assert (files(named), named.left.first) == (["refs/2024-02.csv"], {"refs/2024-01": A_FOLDER})


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("[2024-01]", "2", "x"),
        ("[a-c]", "b", "d"),
        ("[!a-c]", "d", "b"),
        ("[^a]", "b", "a"),
        ("[]x]", "]", "y"),
        ("[\\d]", "d", "7"),
        ("[a-]", "-", "b"),
        ("[&&||~~--]", "&", "a"),
        ("x[", "x[", "x"),
        ("[z-a]?", "no such", "z"),
        ("(a|b).{2}+", "(a|b).{2}+", "a"),
    ],
)
def test_a_class_is_a_shells_and_never_an_error_of_regular_expressions(glob: str, yes: str, no: str) -> None:
    assert bool(pattern(glob).fullmatch(yes)) is (yes != "no such")
    assert not pattern(glob).fullmatch(no)
    assert not pattern(glob).fullmatch("/")


def test_nothing_there_is_told_and_no_trouble(tmp_path: Path) -> None:
    lake = shore(tmp_path, ours=("refs/out/",))
    (lake.folder / "refs").mkdir()
    assert "the folder is empty" in lake.look().later.first["refs"]
    lake.put("refs/out/x/a.csv")
    assert "it holds only deliveries of Hathi" in lake.look().later.first["refs"]
    lake.put("refs/a.csv")
    assert lake.look() == Named(lake.look().found)


def test_what_is_read_later_is_told(tmp_path: Path) -> None:
    lake = shore(tmp_path, settle_seconds=60)
    lake.put("refs/a.csv")
    assert lake.look().later.first == {"refs/a.csv": "it changed less than 60 s ago"}
    days = shore(tmp_path, "in/%Y/%m/%d", convention="success")
    days.put("in/2023/11/14/a.csv")
    assert days.look().later.first == {"in/2023/11/14": "it has no _SUCCESS yet"}
    (tmp_path / "lake" / "new").mkdir()
    assert "no folder of these days" in str(shore(tmp_path, "new/%Y/%m/%d", convention="success").look().later)
    assert "there is no folder gone" in shore(tmp_path, "gone", convention="success").look().troubles["gone"]
    assert "nothing matches" in shore(tmp_path, "new/*/x", convention="success").look().troubles["new/*/x"]


def odd(folder: Path, outside: Path) -> dict[str, str]:
    """One of everything that is no file of the folder, and a word of why each is passed over."""
    outside.mkdir()
    (outside / "secret.csv").write_text("url\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "out.csv").symlink_to(outside / "secret.csv")
    (folder / "out").symlink_to(outside)
    (folder / "passwd.txt").symlink_to("/etc/passwd")
    (folder / "nothing.csv").symlink_to("no such")
    (folder / "circle.csv").symlink_to("circle.csv")
    (folder / "up").symlink_to("../..")
    os.mkfifo(folder / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(folder)  # the path of a socket is short
        one.bind("socket.csv")
        os.chdir(here)
    (folder / "device.csv").symlink_to("/dev/zero")
    with open(os.fsencode(folder) + b"/caf\xe9.csv", "w"):
        pass
    return {
        "out.csv": "leads out", "out": "leads out", "passwd.txt": "leads out", "nothing.csv": "does not exist",
        "circle.csv": "circle", "up": "leads out", "pipe.csv": "a pipe", "socket.csv": "a socket",
        "device.csv": "leads out", "caf\\udce9.csv": "not UTF-8",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["refs", "refs/**", "refs/*"])
def test_what_is_no_file_of_the_lake_is_passed_over_named_and_never_read(tmp_path: Path, path: str) -> None:
    wanted = odd(tmp_path / "lake" / "refs", tmp_path / "outside")
    lake = shore(tmp_path, path)
    lake.put("refs/a.csv")
    (lake.folder / "refs/latest").symlink_to(".")
    (lake.folder / "refs/again").symlink_to(lake.folder / "refs")
    lake.put("refs/.versions/3/hidden.csv")
    (lake.folder / "refs/current.csv").symlink_to(".versions/3/hidden.csv")
    named = lake.look()
    assert files(named) == ["refs/a.csv", "refs/current.csv"]
    if path == "refs/*":
        assert {one: why for one, why in named.left.first.items() if why == A_FOLDER} != {}
        wanted = {name: why for name, why in wanted.items() if name not in ("circle.csv", "caf\\udce9.csv")}
    for name, why in wanted.items():
        assert why in named.left.first[f"refs/{name}"], name
    for name in ("out.csv", "passwd.txt", "device.csv", "out/secret.csv"):
        with pytest.raises(NotAFile, match="leads out of the lake by a link"):
            lake.lake.store.open(f"refs/{name}")
        with pytest.raises(NotAFile):
            lake.lake.store.stat(f"refs/{name}")
    with pytest.raises(NotAFile, match="is a pipe"):  # and nobody waits for whoever writes there
        lake.lake.store.get("refs/pipe.csv")


def test_a_setting_has_links_followed_each_folder_once(tmp_path: Path) -> None:
    odd(tmp_path / "lake" / "refs", tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(tmp_path / "lake")
    (tmp_path / "outside" / "self").symlink_to(".")
    store = LocalStore(tmp_path / "lake", links=True)
    told: dict[str, str] = {}
    found = [one.path for one in store.walk("refs", told.__setitem__)]
    assert found == ["refs/out/secret.csv", "refs/out.csv", "refs/passwd.txt"]
    assert told["refs/up"] == told["refs/out/back"] == "a link to a folder above it, which leads in a circle"
    assert store.get("refs/out.csv") == b"url\n"
    with pytest.raises(NotAFile, match="is a device"):
        store.open("refs/device.csv")


def test_two_loops_cost_no_more_than_one(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put("refs/p/a.csv")
    for name in ("one", "two", "three"):
        (lake.folder / "refs/p" / name).symlink_to("..")
    named = lake.look()
    assert (files(named), named.left) == (["refs/p/a.csv"], Left())
    assert [one.key for one in lake.lake.store.list("refs/") if not one.unread] == ["refs/p/a.csv"]


def test_one_entry_that_cannot_be_read_is_its_own_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = shore(tmp_path)
    for name in ("a/x.csv", "b/x.csv", "c/x.csv", "d.csv"):
        lake.put(f"refs/{name}")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("refs/b"):
            raise PermissionError(13, "Permission denied")
        if str(path).endswith("refs/c"):
            raise FileNotFoundError(2, "gone since it was listed")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    named = lake.look()
    assert files(named) == ["refs/a/x.csv", "refs/d.csv"]
    assert named.left.first == {"refs/b": "this user may not read it"}
    assert named.may_name("refs/b/x.csv")
    assert not named.may_name("refs/bb/x.csv")


@pytest.mark.parametrize(("name", "levels", "whole"), [("d", 1100, True), ("d" * 200, 25, False)])
def test_a_path_as_deep_or_as_long_as_can_be_is_an_entry_like_any_other(
    tmp_path: Path, name: str, levels: int, whole: bool
) -> None:
    lake = shore(tmp_path)
    lake.put("refs/a.csv")
    handle = os.open(lake.folder / "refs", os.O_PATH)
    try:
        for _ in range(levels):
            os.mkdir(name, dir_fd=handle)
            inner = os.open(name, os.O_PATH, dir_fd=handle)
            os.close(handle)
            handle = inner
        os.close(os.open("b.csv", os.O_WRONLY | os.O_CREAT, dir_fd=handle))
        named = lake.look()
        assert len(named.found) == (2 if whole else 1)
        assert ("File name too long" in str(named.left.first)) is not whole
    finally:
        os.close(handle)
        subprocess.run(["rm", "-rf", lake.folder], check=True)  # pytest's own way to delete it is not made for this


def test_a_file_that_becomes_a_link_after_it_was_listed_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("secret")
    store = LocalStore(tmp_path / "lake")
    for name, what in (("refs/a.csv", "refs/a.csv"), ("refs/b/c.csv", "refs/b")):
        (tmp_path / "lake" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lake" / name).write_text("x")
        real = os.path.realpath(tmp_path / "lake" / name)
        place = tmp_path / "lake" / what
        place.rename(tmp_path / f"away-{place.name}")
        place.symlink_to(tmp_path / "secret" if what == name else tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "_real", lambda *_, real=real: (real, os.path.realpath(tmp_path / "lake")))
            with pytest.raises((NotAFile, NotFound)):
                store.open(name)


@pytest.mark.parametrize(
    "verb", ["put", "put_new", "delete", "make_folder", "delete_folder", "rename_new", "rename_over"]
)
def test_nothing_is_written_through_a_link_that_leads_out_of_the_lake(tmp_path: Path, verb: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "features").symlink_to(outside)
    (lake / "inside").mkdir()
    (lake / "near").symlink_to("inside")
    store = LocalStore(lake, fsync=False)
    store.put("near/x", b"1")
    arguments: dict[str, tuple[Any, ...]] = {
        "put": ("features/precious", b"2"), "put_new": ("features/new", b"2"), "delete": ("features/precious",),
        "make_folder": ("features/a/b",), "delete_folder": ("features/precious",),
        "rename_new": ("near/x", "features/y"), "rename_over": ("near/x", "features/precious"),
    }  # fmt: skip
    with pytest.raises(NotAFile, match="leads out of the lake by a link"):
        getattr(store, verb)(*arguments[verb])
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious": "x"}
    allowed = LocalStore(lake, fsync=False, links=True)
    allowed.put("features/new", b"2")
    assert (outside / "new").read_bytes() == b"2"


def test_the_folder_of_temporary_files_is_no_way_out_either(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "mine").mkdir()
    precious = tmp_path / "mine" / "precious"
    precious.write_text("x")
    (tmp_path / "lake" / ".hathi-tmp").symlink_to(tmp_path / "mine")
    store = LocalStore(tmp_path / "lake", fsync=False, now=lambda: 4e9)
    for write in (lambda: store.sweep(1.0), lambda: store.put("x", b"")):
        with pytest.raises(NotAFile):
            write()
    assert precious.exists()


TABLES: dict[str, list[str]] = {
    "a Delta table": ["_delta_log/00000000000000000000.json", "part-0.parquet", "day=1/part-1.parquet"],
    "a Hudi table": [".hoodie/hoodie.properties", "day=1/x.parquet"],
    "an Iceberg table": ["metadata/v1.metadata.json", "metadata/snap-1.avro", "data/x.parquet"],
    "a Paimon table": ["schema/schema-0", "snapshot/LATEST", "bucket-0/data-1.orc"],
    "a transactional table of Hive": ["delta_0000001_0000001_0000/bucket_00000", "base_0000002/b.orc"],
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("where", ["refs", "refs/deep/er", "refs/x=1"])
def test_a_table_formats_folder_is_named_and_refused_and_all_else_goes_on(
    tmp_path: Path, kind: str, where: str
) -> None:
    lake = shore(tmp_path)
    for name in TABLES[kind]:
        lake.put(f"{where}/{name}")
    named = lake.look()
    assert not named.found
    assert kind in named.troubles[where]
    assert "write the valid rows as Parquet files" in named.troubles[where]
    if where != "refs":
        lake.put("refs/a.csv")
        lake.put("refs/metadata/notes.json")
        lake.put("refs/data/b.csv")
        assert files(lake.look()) == ["refs/a.csv", "refs/data/b.csv", "refs/metadata/notes.json"]
    folders = shore(tmp_path, where, convention="success")
    folders.put(f"{where}/_SUCCESS")
    named = folders.look()
    assert (kind in str(named.troubles), named.found) == (True, ())


def test_an_iceberg_table_is_known_by_what_its_metadata_say_where_the_name_does_not(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put("refs/metadata/00001.json", '{"format-version": 2, "table-uuid": "u"}')
    lake.put("refs/data/x.parquet")
    assert "an Iceberg table" in lake.look().troubles["refs"]


@pytest.mark.parametrize(
    "path", ["t/*.parquet", "t/day=1", "t/day=1/*.parquet", "t*/p*", "t/day=1/hour=2/**", "t/*/x.parquet"]
)  # fmt: skip
def test_a_pattern_or_a_partition_within_a_table_is_refused_as_well(tmp_path: Path, path: str) -> None:
    lake = shore(tmp_path, path)
    for name in ("_delta_log/0.json", "part-0.parquet", "day=1/x.parquet", "day=1/hour=2/x.parquet"):
        lake.put(f"t/{name}")
    named = lake.look()
    assert ("a Delta table" in named.troubles["t"], named.found) == (True, ())
    if not path.endswith(("t", "*")):
        folders = shore(tmp_path, "t/*", convention="success")
        folders.put("t/day=1/_SUCCESS")
        named = folders.look()
        assert ("a Delta table" in named.troubles["t"], named.found) == (True, ())


def test_a_partition_of_no_table_costs_one_look_upwards(tmp_path: Path) -> None:
    lake = shore(tmp_path, "t/day=1")
    lake.put("t/day=1/x.parquet")
    assert files(lake.look()) == ["t/day=1/x.parquet"]
    first = lake.asked["stat"]
    lake.look()
    assert (first, lake.asked) == (4, {"stat": 1, "walk": 1})


def test_a_check_of_the_configuration_names_what_ship_would_not_read(tmp_path: Path) -> None:
    lake = shore(tmp_path)
    lake.put("refs/_delta_log/0.json")
    lake.put("more/part-00000")
    sources = [{"path": path} for path in ("refs", "more", "gone", "none*.csv", "more/[x")]
    settings = settings_of(lakes={"shop": {"url": f"file://{tmp_path}/lake", "sources": sources}})
    found = [f"{one.key} {one.text}" for one in check(settings, ("ship",), costly=False) if ".sources." in one.key]
    words = [
        "a Delta table",
        "not read: more/part-00000",
        "no refs at gone",
        "nothing matches none*",
        "nothing matches more",
    ]
    for number, word in enumerate(words):
        assert [one for one in found if f".{number}.path" in one and word in one], (number, found)


def test_keys_that_are_no_paths_lead_nowhere() -> None:
    class Bucket:
        def list(self, prefix: str, **_: Any) -> Listing:
            keys = [
                "p/../../etc/x.csv",
                "p/./a.csv",
                "p//b.csv",
                "p/..",
                "p/_tmp/1.csv",
                "p/_tmp/2.csv",
                "p/ok.csv",
                "p/z/",
            ]
            return Listing(0.0, iter([Entry(key, 1, 0.0) for key in keys if key.startswith(prefix)]))

    told: list[tuple[str, str]] = []
    found = [one.path for one in KeysAsFiles(Bucket()).walk("p", lambda *what: told.append(what))]  # type: ignore[arg-type]
    assert found == ["p/ok.csv"]
    assert [path for path, why in told if "is no path" in why] == ["p/../../etc/x.csv", "p/./a.csv", "p//b.csv", "p/.."]
    assert [path for path, why in told if not why] == ["p/_tmp"]
