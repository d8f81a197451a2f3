"""The archive: what is kept of fetched images, and who reads it instead of asking a host; over stores in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.cli.output.summary import summary_of
from pipeline.codec.packs import PackRow, read_index, write_index
from pipeline.errors import FormatError
from pipeline.extraction.packing import Pack, Room
from pipeline.extraction.spill import Origin
from pipeline.ledger.archive import Archived, archived
from pipeline.ledger.bodies import body_of
from pipeline.ledger.layout import ArchivedBatch, Keys, ShipmentName
from pipeline.ledger.manifest import Result
from pipeline.operations.verify import verify
from pipeline.records import Failure, ImageRef, item_id_of
from pipeline.stages import operator_requests
from pipeline.stages.archived_images import ArchiveReader
from tests.simulation import world as simulated
from tests.simulation.world import World, prepare
from tests.unit.test_stages import outs, shipments, tables, url, world_of

KEYS = Keys("shop")
DAY = 86400.0
ON = {"archive": {"enabled": True}, "compute": {"free_bytes": 0}}
READ = {"archive": {"enabled": True, "read": True}}
NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def kept_world(tmp_path: Path, *lines: str, **changes: object) -> World:
    """A world whose first round is delivered, and whose images are in the archive."""
    world = world_of(tmp_path, *lines, **{**ON, **changes})
    world.run()
    return world


def in_archive(world: World) -> dict[str, bytes]:
    return {key: content for key, (content, _, _) in world.bucket.files.items() if key.startswith("shop/d/a/")}


def manifests(world: World) -> list[Archived]:
    context = world.context()
    return [body_of(Archived, world.bucket.files[e.key][0], e.key) for _, e in archived(context, KEYS.archive)]


def results(world: World) -> list[Result]:
    files = world.bucket.files
    return [body_of(Result, files[key][0], key) for key in sorted(files) if "/r/" in key and "/c/" in key]


def back_fill(world: World, **archive: object) -> None:
    """Compute the set anew with another net, a day later."""
    world.hand.at += DAY
    world.fingerprints = {**world.fingerprints, "demo": "99" * 32}
    world.asked.clear()
    context = world.context()
    for name, plan in operator_requests.newest(context, "", ["demo"]):
        operator_requests.again(context, name, plan, backfill=True)
    world.run()


def findings(world: World, *, deep: bool = False) -> list[str]:
    return [f"{one.kind} {one.where}" for one in verify(world.context(), deep=deep) if one.level != "information"]


LINES = (
    f"7,a,{url('ok', 1)}",
    f"7,b,{url('gone')}",
    f"8,a,{url('ok', 2)}",
    f"7,c,{url('junk')}",
    f"7,d,{url('ok', 3)}",
)


def test_a_batch_leaves_one_pack_and_one_index_and_no_object_an_image(tmp_path: Path) -> None:
    world = kept_world(tmp_path, *LINES)
    assert sorted(key.rpartition(".")[2] for key in in_archive(world)) == ["pack", "pack", "parquet", "parquet"]
    rows = [row for body in manifests(world) for row in read_index(in_archive(world)[body.index.key], "")]
    assert [(row.partner_id, row.url) for row in rows] == [
        (7, url("ok", 1)), (8, url("ok", 2)), (7, url("junk")), (7, url("ok", 3)),
    ]  # fmt: skip
    for body in manifests(world):
        for row in read_index(in_archive(world)[body.index.key], ""):
            assert in_archive(world)[body.pack.key][row.offset : row.offset + row.length] == row.url.encode()
    assert sum(one.archived for one in results(world)) == 4
    assert sum(one.from_archive for one in results(world)) == 0
    assert findings(world, deep=True) == []


def test_nothing_is_kept_where_nobody_asked_for_it(tmp_path: Path) -> None:
    world = world_of(tmp_path, *LINES)
    world.run()
    assert [key for key in world.bucket.files if "/a/" in key] == []


def test_equal_images_of_a_batch_lie_there_once(tmp_path: Path) -> None:
    """Two items show the same URL."""
    world = kept_world(tmp_path, *(f"7,item{n},{url('ok')}" for n in range(3)))
    (body,) = manifests(world)
    assert in_archive(world)[body.pack.key] == url("ok").encode()
    assert (body.pack.rows, body.index.rows) == (1, 3)


@pytest.mark.parametrize("refs_are_gone", [False, True], ids=["refs copied", "source read again"])
def test_a_back_fill_asks_no_host_for_what_the_archive_has(tmp_path: Path, refs_are_gone: bool) -> None:
    world = kept_world(tmp_path, *LINES)
    first = {row["external_id"]: row for row in tables(world, "features")}
    if refs_are_gone:
        for key in [key for key in world.bucket.files if key.startswith("shop/d/2")]:
            del world.bucket.files[key]
    packs = in_archive(world)
    back_fill(world)
    assert set(world.asked) == {url("gone")}, "only the image that the archive does not have is asked for"
    again = [row for row in tables(world, "features") if row["fingerprint"] != first["a"]["fingerprint"]]
    assert len(again) == 3
    old = {(row["partner_id"], row["external_id"]): row for row in tables(world, "features") if row not in again}
    for row in again:
        mine = old[(row["partner_id"], row["external_id"])]
        for name in ("url", "content_sha256", "fetched_at", "features"):
            assert row[name] == mine[name], name
    assert in_archive(world) == packs, "what came from the archive is not kept there twice"
    assert sum(one.from_archive for one in results(world)) == 4
    assert findings(world, deep=True) == []


def test_the_archive_is_read_by_retries_of_a_back_fill_and_not_by_other_shipments(tmp_path: Path) -> None:
    world = kept_world(tmp_path, f"7,a,{url('ok')}", f"7,b,{url('later-1')}")
    world.hand.at += 3700
    world.run()  # the retry brings the second image, into a pack of its own
    back_fill(world)
    assert world.asked == {}
    context = world.context()
    (name, plan), *_ = operator_requests.newest(context, "", ["demo"])
    operator_requests.again(context, name, plan)
    world.run()
    assert url("ok") in world.asked, "who ships again wants the images of today"


def test_a_torn_image_is_not_kept_and_its_retries_ask_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two items show it, so that the second one fails by what is known of the first; a third image is whole."""
    with monkeypatch.context() as torn:
        torn.setattr(
            simulated,
            "prepare",
            lambda content: Failure.of("truncated", "torn") if b"ok-5" in content else prepare(content),
        )
        world = kept_world(tmp_path, *(f"7,{name},{url('ok', 5)}" for name in "ab"), f"7,c,{url('ok', 6)}", **READ)
    (body,) = manifests(world)
    assert (body.pack.rows, body.index.rows) == (1, 1)
    assert findings(world, deep=True) == []
    world.asked.clear()
    world.hand.at += 3700
    world.run()
    assert set(world.asked) == {url("ok", 5)}
    assert len(tables(world, "features")) == 3
    assert findings(world, deep=True) == []


def test_a_second_set_reads_what_the_first_one_fetched_where_the_setting_says_so(tmp_path: Path) -> None:
    sets = {name: {"net": "n", "blob": "b", "root": f"features-{name}"} for name in ("demo", "other")}
    world = world_of(tmp_path, *LINES, sets=sets, compute=ON["compute"], archive={"enabled": True, "read": True})
    world.run()
    assert world.asked[url("ok", 1)] == 1, "the second set found it in the archive"
    assert sum(one.from_archive for one in results(world)) == 4


def lose(world: World, ending: str) -> str:
    (key, *_) = [key for key in in_archive(world) if key.endswith(ending)]
    del world.bucket.files[key]
    return key


def damage(world: World, ending: str) -> str:
    (key, *_) = [key for key in in_archive(world) if key.endswith(ending)]
    content, modified, number = world.bucket.files[key]
    world.bucket.files[key] = (bytes([content[0] ^ 255]) + content[1:], modified, number)
    return key


@pytest.mark.parametrize("how", [lose, damage])
@pytest.mark.parametrize("what", [".pack", ".parquet"])
def test_an_archive_that_lost_a_pack_is_named_and_nothing_is_lost(tmp_path: Path, how: object, what: str) -> None:
    world = kept_world(tmp_path, *LINES)
    before = len(tables(world, "features"))
    key = how(world, what)  # type: ignore[operator]
    assert any(key in one for one in findings(world, deep=True))
    world.said.clear()
    back_fill(world)
    assert len(tables(world, "features")) == 2 * before
    alarms = {text for text in world.said if text.startswith("Alert") and key in text}
    assert len(alarms) == 1, world.said
    assert len(world.asked) >= 2, "its images were fetched"
    assert len(world.asked) < 5, "the other pack was read"


def test_a_manifest_that_cannot_be_read_costs_its_images_alone(tmp_path: Path) -> None:
    world = kept_world(tmp_path, *LINES)
    key = next(key for key in world.bucket.files if key.startswith("shop/a/"))
    world.bucket.files[key] = (b"{}", *world.bucket.files[key][1:])
    world.bucket.write("shop/a/what/is/this", b"")
    back_fill(world)
    assert len(tables(world, "features")) == 6
    assert any(key in text for text in world.said)
    assert [one for one in findings(world) if key in one] == [f"archive_lost {key}"]
    world.said.clear()
    assert world.pruner().prune() == 0
    assert any("shop/a/what/is/this" in text for text in world.said)


def test_a_batch_that_runs_alone_takes_its_images_from_the_archive(tmp_path: Path) -> None:
    world = kept_world(tmp_path, f"7,a,{url('ok', 1)}", f"7,bang,{url('bang')}", f"7,c,{url('ok', 2)}")
    while world.run():
        pass
    assert sorted(out.reasons.get("poison", 0) for out in outs(world)) == [1]
    back_fill(world)
    assert len([row for row in tables(world, "features") if row["fingerprint"] == "99" * 32]) == 2
    assert world.asked == {}


def test_a_summary_tells_of_the_archive(tmp_path: Path) -> None:
    world = world_of(tmp_path, *LINES, **ON)
    turns = world.turns()
    turns.take("ship")
    said = summary_of("compute", turns.take("compute"), world.settings, "shop")
    assert ", 4 kept in the archive" in said
    world.run()
    world.hand.at += DAY
    world.fingerprints = {**world.fingerprints, "demo": "99" * 32}
    context = world.context()
    ((name, plan),) = operator_requests.newest(context, "", ["demo"])
    operator_requests.again(context, name, plan, backfill=True)
    turns = world.turns()
    turns.take("aggregate")
    assert ", 4 images from the archive" in summary_of("compute", turns.take("compute"), world.settings, "shop")


def origin(content: bytes) -> Origin:
    return Origin(hashlib.sha256(content).digest(), NOON, '"e"', None)


def ref(number: int, where: str = "http://h/") -> ImageRef:
    return ImageRef(-7, 2**64 - 1 - number, f"x{number}", f"{where}{number}", b"", number)


def test_what_has_no_room_on_the_local_disk_is_left_out_and_counted(tmp_path: Path) -> None:
    room = Room(tmp_path, 10, 0)
    first, second = room.pack(), room.pack()
    first.add(ref(1), b"123456", origin(b"123456"))
    second.add(ref(2), b"654321", origin(b"654321"))
    second.add(ref(3), b"1234", origin(b"1234"))
    first.add(ref(4), b"123456", origin(b"123456"))
    assert (first.images, len(first.rows), first.left_out) == (1, 2, 0)
    assert (second.images, second.left_out) == (1, 1)
    first.drop()
    second.add(ref(2), b"654321", origin(b"654321"))
    second.close()
    assert second.path.read_bytes() == b"1234654321"
    assert hashlib.sha256(b"1234654321").hexdigest() == second.sha256
    assert not first.path.exists()
    full = Room(tmp_path, 1 << 40, 1 << 60).pack()
    full.add(ref(1), b"1", origin(b"1"))
    assert (full.left_out, full.rows) == (1, [])


def test_an_image_that_its_url_holds_is_not_kept(tmp_path: Path) -> None:
    pack = Room(tmp_path, 100, 0).pack()
    pack.add(ref(1, "data:image/png;base64,"), b"1", origin(b"1"))
    assert pack.rows == []


def test_an_index_is_read_as_it_was_written_and_what_is_none_is_refused(tmp_path: Path) -> None:
    rows = [PackRow(-7, 2**64 - 1, "http://ü", b"\1" * 32, 5, 6, "jpeg", NOON, None, "yesterday")]
    written = write_index(tmp_path / "i", rows)
    content = (tmp_path / "i").read_bytes()
    assert read_index(content, "here") == rows
    assert (written.rows, written.size) == (1, len(content))
    assert read_index(_empty(tmp_path), "here") == []
    damaged: Mapping[str, bytes] = {
        "short": content[:-9],
        "nothing": b"",
        "other": _other(tmp_path),
        "negative": _negative(tmp_path, rows[0]),
    }
    for some in damaged.values():
        with pytest.raises(FormatError, match="here is not the index of a pack"):
            read_index(some, "here")


def _empty(folder: Path) -> bytes:
    write_index(folder / "none", [])
    return (folder / "none").read_bytes()


def _other(folder: Path) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table({"url": ["x"]}), folder / "other")
    return (folder / "other").read_bytes()


def _negative(folder: Path, row: PackRow) -> bytes:
    write_index(folder / "negative", [replace(row, offset=-1)])
    return (folder / "negative").read_bytes()


def test_keys_of_the_archive_are_read_as_they_are_spelt(tmp_path: Path) -> None:
    world = kept_world(tmp_path, *LINES)
    name = ShipmentName.parse(min(shipments(world)))
    one = ArchivedBatch(name, 3, 12)
    assert KEYS.archived(one) == f"shop/a/{name}/00003.012"
    assert ArchivedBatch.parse(str(one)) == one
    for text in ("", f"{name}/3.1", f"{name}/00003.012.x", "x/00003.012", f"{name}/00003"):
        with pytest.raises(ValueError, match="not"):
            ArchivedBatch.parse(text)


def test_a_pack_is_a_file_of_this_user_alone(tmp_path: Path) -> None:
    pack: Pack = Room(tmp_path, 100, 0).pack()
    pack.add(ref(1), b"1", origin(b"1"))
    assert pack.path.stat().st_mode & 0o777 == 0o600


def keys_of_archive(world: World) -> list[str]:
    return [key for key in world.bucket.files if key.startswith(("shop/a/", "shop/d/a/"))]


def two_days(tmp_path: Path, **limits: object) -> tuple[World, list[str], list[str]]:
    """A world with the images of two snapshots, ten days apart; the keys of the older and of the newer ones."""
    world = kept_world(tmp_path, f"7,a,{url('ok', 1)}")
    first = keys_of_archive(world)
    world.hand.at += 10 * DAY
    world.put_refs("a.csv", f"partner_id,external_id,url\n7,b,{url('ok', 2)}\n")
    world.hand.at += 10
    world.run()
    second = [key for key in keys_of_archive(world) if key not in first]
    world.settings = world.settings.model_copy(
        update={"archive": world.settings.archive.model_copy(update=limits)}  # type: ignore[arg-type]
    )
    return world, first, second


def test_images_go_by_age_the_key_before_its_files_and_all_else_stays(tmp_path: Path) -> None:
    world, first, second = two_days(tmp_path, days=5.0)
    gone: list[str] = []
    world.bucket.watch = lambda what, key, content: gone.append(key)
    world.pruner().prune()
    assert sorted(gone) == sorted(first)
    assert gone[0].startswith("shop/a/")
    assert sorted(keys_of_archive(world)) == sorted(second)
    assert findings(world, deep=True) == []
    assert world.pruner().prune() == 0


def test_images_go_by_size_the_oldest_first_until_the_rest_fits(tmp_path: Path) -> None:
    world, first, second = two_days(tmp_path)
    world.pruner().prune()
    size = sum(len(content) for content in in_archive(world).values())
    for most, left in ((size, first + second), (size - 1, second), (0, [])):
        archive = world.settings.archive.model_copy(update={"max_bytes": most})
        world.settings = world.settings.model_copy(update={"archive": archive})
        world.pruner().prune()
        assert sorted(keys_of_archive(world)) == sorted(left)


def test_no_image_of_a_version_that_is_at_work_goes(tmp_path: Path) -> None:
    """Its own retry waits, or a back-fill of it: the images are wanted just now."""
    world, _, second = two_days(tmp_path, max_bytes=0)
    context = world.context()
    ((name, plan),) = operator_requests.newest(context, "", ["demo"])
    operator_requests.again(context, name, plan, backfill=True)
    world.pruner().prune()
    assert sorted(keys_of_archive(world)) == sorted(second)
    world.fingerprints = {**world.fingerprints, "demo": "99" * 32}
    world.asked.clear()
    world.run()
    assert world.asked == {}
    world.pruner().prune()
    assert keys_of_archive(world) == []


def test_what_was_written_anew_stays_while_another_gateway_may_be_at_it(tmp_path: Path) -> None:
    """A request to forget has written files, and puts their key only now."""
    world, first, second = two_days(tmp_path, days=5.0)
    name = min(shipments(world))
    late = f"shop/d/a/{name}/0123456789abcdef/00000.001.pack"
    world.bucket.write(late, b"x")
    world.pruner().prune()
    assert sorted(keys_of_archive(world)) == sorted([*first, *second, late])
    world.settings = world.settings.model_copy(
        update={"archive": world.settings.archive.model_copy(update={"days": 12.0})}
    )
    world.hand.at += 8 * DAY
    world.pruner().prune()
    assert sorted(keys_of_archive(world)) == sorted(second)


def test_what_no_key_of_the_archive_names_goes_after_orphan_days(tmp_path: Path) -> None:
    """Of a box that was killed before its key, and of one that came second."""
    world = kept_world(tmp_path, *LINES)
    mine = keys_of_archive(world)
    name = min(shipments(world))
    for batch in (0, 7):
        world.bucket.write(f"shop/d/a/{name}/0123456789abcdef/{batch:05d}.000.pack", b"x")
    assert [one.kind for one in verify(world.context()) if "/a/" in one.where] == ["unnamed_data"]
    world.hand.at += 6 * DAY
    world.pruner().prune()
    assert len(keys_of_archive(world)) == len(mine) + 2
    world.hand.at += 2 * DAY
    world.pruner().prune()
    assert keys_of_archive(world) == mine


def test_two_boxes_at_one_batch_leave_one_pack(tmp_path: Path) -> None:
    """The second one's images are the same: its files go, and the key stands as it was."""
    world = kept_world(tmp_path, f"7,a,{url('ok', 1)}")
    before = {key: world.bucket.files[key][0] for key in keys_of_archive(world)}
    (key,) = [key for key in world.bucket.files if "/r/" in key]
    name = ShipmentName.parse(key.split("/")[2])
    for gone in (key, KEYS.out(name), KEYS.done(name)):
        del world.bucket.files[gone]
    world.bucket.write(KEYS.open_hint("00000000T000000Z", name), b"")
    world.run()
    assert [key for key in world.bucket.files if "/r/" in key] == [key]
    assert {key: world.bucket.files[key][0] for key in keys_of_archive(world)} == before


def test_a_pack_that_prune_deleted_meanwhile_is_no_alarm(tmp_path: Path) -> None:
    """Between the look at the index and the pack both go, the key first."""
    world = kept_world(tmp_path, f"7,a,{url('ok', 1)}", f"7,b,{url('ok', 2)}")
    (name,) = shipments(world).values()
    refs = [ImageRef(7, item_id_of(one), one, url("ok", n), b"", 0) for n, one in ((1, "a"), (2, "b"))]
    for keys, alarms in (([".pack"], 1), ([".000", ".pack", ".parquet"], 0)):
        world.said.clear()
        reader = ArchiveReader(world.context(), tmp_path)
        found = reader.images(name, refs)
        assert found is not None
        assert found.take(1) == (url("ok", 2).encode(), found_origin(world, 2))
        assert found.take(1) is None, "an image is given out once"
        stands = dict(world.bucket.files)
        for key in keys_of_archive(world):
            if key.endswith(tuple(keys)):
                del world.bucket.files[key]
        again = reader.images(name, refs)
        assert again is not None
        assert len(again) == 0
        assert len(world.said) == alarms
        reader.close()
        (tmp_path / "archive.sqlite").unlink()
        world.bucket.files.update(stands)


def found_origin(world: World, number: int) -> Origin:
    (body,) = manifests(world)
    (row,) = [r for r in read_index(in_archive(world)[body.index.key], "") if r.url == url("ok", number)]
    return Origin(row.sha256, row.fetched_at, '"0"', None, resource=hashlib.sha256(row.url.encode()).digest())
