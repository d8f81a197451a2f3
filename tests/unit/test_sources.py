"""Sources as ship lives with them: formats, changes while they are read, and troubles that are told once."""

from __future__ import annotations

import base64
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, orc
from pyarrow import parquet as pq

from pipeline.codec.codecs import Forms
from pipeline.codec.image_refs import decode
from pipeline.errors import TemporaryError
from pipeline.ledger.bodies import body_of
from pipeline.ledger.layout import Keys
from pipeline.ledger.manifest import Batch, End, Plan, Reading, Snapshot, SourceFile
from pipeline.operations.prune import Pruner
from pipeline.records import ImageRef
from pipeline.sources.troubles import Troubles
from pipeline.stores.local import LocalStore
from tests.simulation.folders import Folders
from tests.simulation.world import feature, settings_of
from tests.unit.sources import DAY, NOW

KEYS = Keys("shop")


def world_of(tmp_path: Path, *sources: dict[str, Any], **ship_settings: Any) -> Folders:
    (tmp_path / "spill").mkdir()
    (tmp_path / "bucket").mkdir()
    (tmp_path / "lake").mkdir()
    lakes = {"shop": {"url": str(tmp_path / "lake"), "sources": list(sources)}}
    world = Folders(tmp_path / "spill", settings_of(lakes=lakes, ship={"batch_refs": 3, **ship_settings}))
    world.hand.at = NOW
    return world


SUCCESS = {"path": "in/%Y/%m/%d", "convention": "success"}
INDEX = {"path": "index", "convention": "index"}
TODAY = "in/2023/11/14"


def put(world: Folders, path: str, content: bytes | str = "", at: float | None = None) -> Path:
    where = world.top / "lake" / path
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_bytes(content.encode() if isinstance(content, str) else content)
    stamp(world, where, at)
    return where


def stamp(world: Folders, where: Path, at: float | None = None) -> None:
    when = world.hand.at if at is None else at
    os.utime(where, (when, when))


def refs(world: Folders) -> list[ImageRef]:
    """All refs of the bucket that a batch names."""
    found: list[ImageRef] = []
    for path in sorted((world.top / "bucket").glob("shop/c/*/b/*")):
        data = body_of(Batch, path.read_bytes(), str(path)).data
        found += decode((world.top / "bucket" / data.key).read_bytes(), 0)
    return found


def ends(world: Folders) -> list[End]:
    found = sorted((world.top / "bucket").glob("shop/c/*/end"))
    return [body_of(End, path.read_bytes(), str(path)) for path in found]


def test_folders_in_all_formats_reach_the_bucket_with_the_partner_of_their_path(tmp_path: Path) -> None:
    """The path says 7; a row's own partner wins; a file under no number is one rejected row."""
    world = world_of(tmp_path, SUCCESS)
    top = world.top / "lake" / TODAY
    table = pa.table({"external_id": ["a", "b"], "url": ["http://shop.example/ok-1", "http://shop.example/ok-2"]})
    own = table.append_column("partner_id", pa.array([8, None], pa.int64()))
    for folder in ("partner=7/x", "partner_id%3D9", "partner=seven"):
        (top / folder).mkdir(parents=True)
    pq.write_table(table, top / "partner=7/x/a.parquet")
    orc.write_table(table, str(top / "partner=7/b.orc"))
    csv.write_csv(table, top / "partner=7/c.csv")
    (top / "partner=7/d.jsonl").write_text(json.dumps({"external_id": "a", "url": "http://shop.example/ok-1"}) + "\n")
    (top / "partner=7/e.pb").write_bytes(Forms().encode([ImageRef(0, 3, "", "http://shop.example/ok-3", b"", 0)]))
    pq.write_table(own, top / "partner_id%3D9/own.parquet")
    pq.write_table(own, top / "partner=seven/own.parquet")
    for file in top.rglob("*.*"):
        stamp(world, file)
    put(world, f"{TODAY}/_SUCCESS")
    tally = world.turns().take("ship")
    assert sorted(ref.partner_id for ref in refs(world)) == [7] * 8 + [8, 9]
    assert (tally.counts.refs, tally.counts.rows, tally.counts.rejected, tally.problems) == (10, 11, 1, 0)
    (end,) = ends(world)
    assert "partner 'seven' in its folder's name is not a number" in end.rejections[0].why


def test_files_whose_names_tell_no_format_are_read_as_what_they_are_or_rejected_by_name(tmp_path: Path) -> None:
    world = world_of(tmp_path, SUCCESS)
    table = pa.table({"external_id": ["c"], "url": ["http://shop.example/ok-1"]})
    put(world, f"{TODAY}/part-00000", "external_id,url\na,http://shop.example/ok-1\n")
    put(world, f"{TODAY}/part-00001", gzip.compress(b'{"url": "http://shop.example/ok-1", "sku": "b"}\n'))
    pq.write_table(table, world.top / "lake" / TODAY / "part-00002")
    stamp(world, world.top / "lake" / TODAY / "part-00002")
    put(world, f"{TODAY}/part-00003", "a page of words\n")
    put(world, f"{TODAY}/_SUCCESS")
    tally = world.turns().take("ship")
    assert sorted(ref.external_id for ref in refs(world)) == ["a", "b", "c"]
    assert (tally.counts.refs, tally.counts.rows, tally.counts.rejected) == (3, 4, 1)
    (end,) = ends(world)
    assert "is not known" in end.rejections[0].why
    assert end.rejections[0].file.endswith("part-00003")


JPEG = [b"\xff\xd8\xff" + bytes([number]) * 70_000 for number in range(6)]


@pytest.mark.parametrize("form", ["pb", "parquet", "orc", "jsonl"])
def test_images_travel_as_bytes_and_cut_batches_by_their_bytes(tmp_path: Path, form: str) -> None:
    """From the lake through ship to compute: the features are those of the bytes themselves."""
    world = world_of(tmp_path, SUCCESS, batch_refs=1000, batch_bytes=150_000)
    path = put(world, f"{TODAY}/partner=7/images.{form}")
    names = [f"i{number}" for number in range(6)]
    if form == "pb":
        path.write_bytes(Forms().encode(ImageRef(7, n, names[n], "", JPEG[n], n) for n in range(6)))
    elif form == "jsonl":
        rows = ({"external_id": names[n], "content": base64.b64encode(JPEG[n]).decode()} for n in range(6))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        table = pa.table({"external_id": names, "content": pa.array(JPEG, pa.binary())})
        pq.write_table(table, path) if form == "parquet" else orc.write_table(table, str(path))
    stamp(world, path)
    put(world, f"{TODAY}/_SUCCESS")
    turns = world.turns()
    turns.take("ship")
    assert [(ref.external_id, ref.content) for ref in refs(world)] == list(zip(names, JPEG, strict=True))
    sizes = [len(list(decode(file.read_bytes(), 0))) for file in sorted((world.top / "bucket").glob("shop/d/*/*/*.pb"))]
    assert sizes == [2, 2, 2], "two images of 70 KB to a batch of 150 KB"
    world.run(turns)
    tables = [pq.read_table(file) for file in (world.top / "lake/features").glob("*/7/features/*.parquet")]
    made = {row["external_id"]: row["features"] for table in tables for row in table.to_pylist()}
    assert made == {name: pytest.approx(feature(content)) for name, content in zip(names, JPEG, strict=True)}
    assert world.asked == {}, "nothing was fetched"


def test_an_index_of_delimited_protobuf_without_a_telling_name_is_shipped(tmp_path: Path) -> None:
    world = world_of(tmp_path, INDEX)
    content = Forms().encode(ImageRef(0, n, "", f"http://shop.example/ok-{n}", b"", 0) for n in range(5))
    put(world, "out/7/part-r-00000", content)
    text = "external_id,url\na,http://shop.example/ok-9\n"
    put(world, "out/7/part-r-00001.csv", text)
    size = len(content) + len(text)
    entry = {"jobTimeStamp": int(NOW * 1000), "outputFolder": "out/7", "files": ["part-r-00000", "part-r-00001.csv"]}
    put(world, "index", json.dumps({"outputByPartner": {"7": {**entry, "outputSize": size}}}))
    tally = world.turns().take("ship")
    assert (tally.problems, tally.counts.refs, tally.counts.rejected) == (0, 6, 0)
    assert {ref.partner_id for ref in refs(world)} == {7}


def index(world: Folders, partner: int, job: float, content: str, name: str = "a.csv") -> None:
    put(world, f"out/{partner}/{name}", content)
    entry = {"jobTimeStamp": int(job * 1000), "outputFolder": f"out/{partner}", "files": [name], "outputSize": None}
    put(world, "index", json.dumps({"outputByPartner": {str(partner): entry}}))


def test_a_job_time_stamp_that_goes_back_is_refused_though_its_files_are_newer(tmp_path: Path) -> None:
    world = world_of(tmp_path, INDEX)
    index(world, 7, NOW - 3600, "external_id,url\na,http://shop.example/ok-1\n")
    turns = world.turns()
    assert turns.take("ship").counts.refs == 1
    world.hand.at += 600
    index(world, 7, NOW - 7200, "external_id,url\na,http://shop.example/ok-2\n")
    for process in (turns, world.turns("a.new.process")):
        tally = process.take("ship")
        assert (tally.counts.refs, tally.problems) == (0, 1)
    assert any("its jobTimeStamp went back from 20231114T211320Z to 20231114T201320Z" in said for said in world.said)
    world.hand.at += 600
    index(world, 7, NOW, "external_id,url\na,http://shop.example/ok-3\n")
    assert turns.take("ship").counts.refs == 1


def test_a_file_replaced_while_it_is_shipped_is_void_and_what_is_there_now_is_shipped(tmp_path: Path) -> None:
    world = world_of(tmp_path, SUCCESS, refs_per_run=3)
    rows = "external_id,url\n" + "".join(f"i{n},http://shop.example/ok-{n}\n" for n in range(9))
    put(world, f"{TODAY}/deep/a.csv", rows)
    put(world, f"{TODAY}/_SUCCESS")
    turns = world.turns()
    assert turns.take("ship").counts.refs == 3
    world.hand.at += 5
    put(world, f"{TODAY}/deep/a.csv", "external_id,url\nnew,http://shop.example/ok-99\n")
    for _ in range(8):
        turns.take("ship")
    assert [end.void is not None for end in ends(world)] == [True, False]
    assert refs(world)[-1].external_id == "new"
    assert any("changed while it was read" in said for said in world.said)


def test_a_trouble_is_told_once_and_again_when_it_changed_and_when_it_is_over(tmp_path: Path) -> None:
    world = world_of(tmp_path, INDEX, SUCCESS)
    put(world, "index", b'{"outputByPartner": {"7": ')
    put(world, f"{TODAY}/a.csv", "external_id,url\na,http://shop.example/ok-1\n")
    put(world, f"{TODAY}/_SUCCESS")
    turns = world.turns()
    tallies = [turns.take("ship") for _ in range(5)]
    assert [tally.problems for tally in tallies] == [1] * 5
    assert tallies[0].counts.refs == 1, "the other source goes on"
    assert len([said for said in world.said if "the index index cannot be read: not JSON" in said]) == 1
    assert "not JSON" in turns.source_troubles["index"]
    world.hand.at += 60
    put(world, "index", b"[]")
    turns.take("ship")
    turns.take("ship")
    assert len([said for said in world.said if "not an index" in said]) == 1
    world.hand.at += 60
    put(world, "index", b"{}")
    assert turns.take("ship").problems == 0
    assert dict(turns.source_troubles) == {}
    assert world.said[-1].startswith("source index can be read again; this is over: source index: ")
    assert "not an index" in world.said[-1]
    lines = len(world.said)
    turns.take("ship")
    assert len(world.said) == lines


def test_a_store_that_is_down_is_told_once_for_all_shipments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake answers lists and no more: each shipment fails in each poll."""
    world = world_of(tmp_path, {"path": "refs"})
    for number in range(5):
        world.put_refs(f"{number}.csv", "external_id,url\na,http://shop.example/ok-1\n")
    turns = world.turns()

    def down(self: LocalStore, key: str) -> Any:
        raise TemporaryError("the NameNode does not answer", key.rpartition("/")[0], "is it running?")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "open", down)
        assert [turns.take("ship").problems for _ in range(4)] == [5] * 4
    (told,) = [said for said in world.said if "NameNode" in said]
    assert told.startswith("ship ")
    assert told.endswith(": the NameNode does not answer | refs | is it running?; the next turn tries it again")
    assert turns.take("ship").counts.refs == 5
    assert world.said[-1] == "ship works again; this is over: the NameNode does not answer"


def test_a_source_that_is_down_is_a_trouble_of_its_own_and_what_is_open_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_of(tmp_path, INDEX, {"path": "refs"}, refs_per_run=3)
    world.put_refs("a.csv", "external_id,url\n" + "".join(f"i{n},http://shop.example/ok-{n}\n" for n in range(9)))
    index(world, 7, NOW, "external_id,url\na,http://shop.example/ok-1\n")
    turns = world.turns()
    real = LocalStore.stat

    def stat(self: LocalStore, path: str) -> Any:
        if path == "index":
            raise TemporaryError("no answer")
        return real(self, path)

    monkeypatch.setattr(LocalStore, "stat", stat)
    assert [turns.take("ship").counts.refs for _ in range(3)] == [3, 3, 3]
    assert dict(turns.source_troubles) == {"index": "no answer"}
    assert world.said.count("source index: no answer") == 1


def shipped_refs(world: Folders) -> list[str]:
    """External ids of the refs of shipments that are not void."""
    void = {path.parent.name for path in (world.top / "bucket").glob("shop/c/*/end")
            if body_of(End, path.read_bytes(), "").void is not None}  # fmt: skip
    found: list[str] = []
    for path in sorted((world.top / "bucket").glob("shop/c/*/b/*")):
        if path.parent.parent.name not in void:
            data = body_of(Batch, path.read_bytes(), str(path)).data
            found += [one.external_id for one in decode((world.top / "bucket" / data.key).read_bytes(), 0)]
    return found


@pytest.mark.parametrize("batches", [1, 100], ids=["a later part is void", "the first part is void"])
@pytest.mark.parametrize("how", ["gone", "another file"])
def test_a_file_that_comes_back_as_it_was_is_shipped_by_the_process_that_saw_it_go(
    tmp_path: Path, how: str, batches: int
) -> None:
    world = world_of(tmp_path, {"path": "refs"}, refs_per_run=3, gone_seconds=60, batches_per_shipment=batches)
    world.put_refs("a.csv", "external_id,url\n" + "".join(f"i{n},http://shop.example/ok-{n}\n" for n in range(9)))
    turns = world.turns()
    turns.take("ship")
    here, away = tmp_path / "lake" / "refs" / "a.csv", tmp_path / "away"
    here.rename(away)
    if how == "another file":
        here.write_text("external_id,url\nother,http://shop.example/ok-1\n")
        stamp(world, here, NOW - DAY)
    for _ in range(3):
        world.hand.at += 100
        turns.take("ship")
        for hint in (tmp_path / "bucket").glob("shop/h/gone/*"):
            stamp(world, hint, NOW)  # a folder dates what is written by its own clock
    assert any(one.void for one in ends(world))
    if how == "another file":
        here.unlink()
        turns.take("ship")
    away.rename(here)
    for _ in range(12):
        world.hand.at += 100
        turns.take("ship")
    assert {f"i{n}" for n in range(9)} <= set(shipped_refs(world))
    assert not turns.source_troubles


def test_what_is_known_to_be_covered_does_not_grow_with_what_is_no_longer_there(tmp_path: Path) -> None:
    world = world_of(tmp_path, {"path": "refs"})
    turns = world.turns()
    for number in range(5):
        world.hand.at += 10
        world.put_refs("a.csv", f"external_id,url\ni{number},http://shop.example/ok-1\n")
        turns.take("ship")
        turns.take("ship")
    assert len(turns._shipping._shipper._covered) == 1


def test_the_ledger_of_a_source_that_cannot_be_seen_is_kept(tmp_path: Path) -> None:
    world = world_of(tmp_path, SUCCESS, {**SUCCESS, "path": "x/*"})
    put(world, f"{TODAY}/a.csv", "external_id,url\na,http://shop.example/ok-1\n")
    put(world, f"{TODAY}/_SUCCESS")
    put(world, "x/partner=7/a.csv", "external_id,url\na,http://shop.example/ok-2\n")
    put(world, "x/partner=7/_SUCCESS")
    turns = world.turns()
    world.run(turns)
    assert len(ends(world)) == 2
    world.hand.at += 500 * DAY
    for plan in (world.top / "bucket").glob("shop/c/**/*"):
        stamp(world, plan, NOW)
    (world.top / "lake/x/partner=7/loop").symlink_to("loop")
    Pruner(turns.context, turns.look).prune()
    left = [body_of(Plan, path.read_bytes(), "") for path in (world.top / "bucket").glob("shop/c/*/plan")]
    assert [plan.snapshot.source for plan in left] == ["x/partner=7"], "the day of the other one is long swept"


def test_the_names_of_shipments_are_what_they_always_were() -> None:
    """What a snapshot says beyond its files does not change what its shipments are called."""
    file = SourceFile(path="refs/a.csv", length=3, modified=1_700_000_000_000, id=5)
    plain = Snapshot(source="refs/a.csv", version="20231114T221320Z", files=(file,))
    more = Snapshot(
        source="refs/a.csv", version="20231114T221320Z", files=(file.model_copy(update={"partner": "7", "id": 0}),),
        group="refs/*", job_time="20231114T000000Z",
    )  # fmt: skip
    assert plain.digest() == more.digest()
    assert plain.digest()[:12] == "f00bdec1bfff"


def test_a_plan_that_was_written_before_partners_stood_in_paths_is_read() -> None:
    body = {
        "format": 1, "nonce": "n", "lake": "shop", "set": "demo", "snapshot_digest": "d", "batch_refs": 1,
        "batch_bytes": 1, "batches": 1, "due": "00000000T000000Z",
        "snapshot": {"source": "a", "version": "20231114T221320Z",
                     "files": [{"path": "a", "length": 1, "modified": 1}]},
    }  # fmt: skip
    plan = body_of(Plan, json.dumps(body).encode(), "plan")
    assert (plan.snapshot.files[0].partner, plan.snapshot.group, plan.reading) == ("", "", Reading())


def test_troubles_are_told_when_they_come_change_and_end() -> None:
    said: list[str] = []
    troubles = Troubles(said.append)
    for now in ({"a": "1 | x"}, {"a": "1 | x"}, {"a": "2", "b": "3"}, {"b": "3"}, {}, {"a": "1"}):
        troubles.see(now)
    assert said == [
        "source a: 1 | x",
        "source a: 2",
        "source b: 3",
        "source a has another problem; this is over: source a: 1",
        "source a can be read again; this is over: source a: 2",
        "source b can be read again; this is over: source b: 3",
        "source a: 1",
    ]
    assert dict(troubles.now) == {"a": "1"}


def test_what_is_left_out_is_said_once_and_counted_in_each_turn(tmp_path: Path) -> None:
    world = world_of(tmp_path, {"path": "refs"}, {"path": "more"})
    world.put_refs("a.csv", "external_id,url\na,http://shop.example/ok-1\n")
    put(world, "refs/b.bak", "x")
    put(world, "more/c", "x")
    (tmp_path / "lake" / "refs" / "latest").symlink_to(".")
    turns = world.turns()
    for _ in range(3):
        tally = turns.take("ship")
        assert (turns.named.left.number, tally.problems) == (2, 0)
    assert [text.split(": ")[0].split()[-1] for text in world.said if "does not read" in text] == [
        "refs/b.bak",
        "more/c",
    ]
    assert [one.refs for one in ends(world)] == [1]


def test_a_table_is_the_trouble_of_its_own_folder_and_what_was_shipped_before_stays_known(tmp_path: Path) -> None:
    world = world_of(tmp_path, {"path": "refs"}, {"path": "more"})
    world.put_refs("a.csv", "external_id,url\na,http://shop.example/ok-1\n")
    put(world, "refs/t/b.csv", "external_id,url\nb,http://shop.example/ok-2\n")
    put(world, "more/c.csv", "external_id,url\nc,http://shop.example/ok-3\n")
    turns = world.turns()
    world.run(turns)
    put(world, "refs/t/_delta_log/0.json", "{}")
    assert turns.take("ship").problems == 1
    assert list(turns.source_troubles) == ["refs/t"]
    named = turns.named
    assert {one.snapshot.source for one in named.found} == {"refs/a.csv", "more/c.csv"}
    assert named.may_name("refs/t/b.csv"), "prune keeps what it knows of it"
    (tmp_path / "lake" / "refs" / "t" / "_delta_log" / "0.json").unlink()
    (tmp_path / "lake" / "refs" / "t" / "_delta_log").rmdir()
    assert turns.take("ship").problems == 0
    assert len(ends(world)) == 3, "and nothing is shipped twice"


def test_a_list_without_a_row_is_named(tmp_path: Path) -> None:
    world = world_of(tmp_path, {"path": "refs"})
    world.put_refs("a.csv", "external_id,url\n")
    world.turns().take("ship")
    assert "refs/a.csv has no rows" in world.said
