"""The four stages over stores in memory: what is delivered, what follows from it, and what is not done twice."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import Index, PartnerManifest
from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.ledger.manifest import End, Out, Plan, Result
from pipeline.records import item_id_of, signed
from pipeline.settings import FeatureSet
from tests.simulation.world import World, feature, settings_of

HEADER = "partner_id,external_id,url\n"


def world_of(tmp_path: Path, *lines: str, **changes: object) -> World:
    world = World(tmp_path, settings_of(**changes))
    world.put_refs("a.csv", HEADER + "".join(f"{line}\n" for line in lines))
    world.hand.at += 10
    return world


def url(kind: str, number: int = 0) -> str:
    return f"http://shop.example/{kind}-{number}"


def tables(world: World, kind: str) -> list[dict[str, object]]:
    """All delivered rows of a kind, each with the shipment that delivered it."""
    rows: list[dict[str, object]] = []
    for path, content in sorted(world.delivered().items()):
        if f"/{kind}/" in path:
            for row in pq.read_table(io.BytesIO(content)).to_pylist():
                rows.append({**row, "shipment": path.split("/")[1]})
    return rows


def shipments(world: World) -> dict[str, ShipmentName]:
    names = {key.split("/")[2] for key in world.bucket.files if key.startswith("shop/c/")}
    return {name: ShipmentName.parse(name) for name in names}


def outs(world: World) -> list[Out]:
    return [
        body_of(Out, content, key)
        for key, (content, _, _) in sorted(world.bucket.files.items())
        if key.startswith("shop/c/") and key.endswith("/out")
    ]


def test_refs_become_features_and_failures_where_consumers_look(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,SKU-1,{url('ok', 1)}", f"7,SKU-2,{url('gone')}", f"9,SKU-1,{url('ok', 2)}")
    world.run()
    features = tables(world, "features")
    assert [(r["partner_id"], r["item_id"], r["external_id"]) for r in features] == [
        (7, signed(item_id_of("SKU-1")), "SKU-1"),
        (9, signed(item_id_of("SKU-1")), "SKU-1"),
    ]
    assert features[0]["features"] == pytest.approx(feature(url("ok", 1).encode()))
    assert [(r["reason"], r["retriable"], r["detail"]) for r in tables(world, "failures")] == [
        ("http_4xx", False, "status 404")
    ]
    name = features[0]["shipment"]
    paths = sorted(path.removeprefix(f"features/{name}/") for path in world.delivered() if f"/{name}/" in path)
    assert paths == [
        "7/_SUCCESS", "7/_manifest.json", "7/cnn_features.txt.gz",
        "7/failures/part-00000.parquet", "7/features/part-00000.parquet",
        "9/_SUCCESS", "9/_manifest.json", "9/cnn_features.txt.gz", "9/features/part-00000.parquet",
    ]  # fmt: skip
    text = gzip.decompress(world.delivered()[f"features/{name}/7/cnn_features.txt.gz"]).decode()
    numbers = " ".join(str(round(1e6 * float(v))) for v in feature(url("ok", 1).encode()))
    assert text == f"7 {item_id_of('SKU-1')} {numbers}\n"


def test_a_second_run_has_nothing_to_do_and_writes_nothing(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    before = (dict(world.bucket.files), dict(world.lake.files))
    assert world.run(world.turns("another.process")) == 0
    assert (world.bucket.files, world.lake.files) == before


def test_nothing_is_left_open_when_all_is_delivered(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(20)))
    world.run()
    assert [key for key in world.bucket.files if "/h/" in key] == []
    assert len(tables(world, "features")) == 20
    assert not any("_tmp" in path for path in world.lake.files)


def test_a_long_file_becomes_parts_of_a_bounded_number_of_batches(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(20)))
    world.run()
    parts = sorted(shipments(world).values())
    assert [name.part for name in parts] == [0, 1, 2, 3]
    ends = [body_of(End, world.bucket.files[Keys("shop").end(name)][0], "") for name in parts]
    assert [(end.batches, end.refs) for end in ends] == [(2, 6), (2, 6), (2, 6), (1, 2)]
    assert ends[-1].next is None


def test_an_added_file_is_computed_alone(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.put_refs("b.csv", f"{HEADER}7,b,{url('ok', 2)}\n")
    asked = dict(world.asked)
    world.hand.at += 1
    world.run()
    assert {u: n - asked.get(u, 0) for u, n in world.asked.items() if n != asked.get(u, 0)} == {url("ok", 2): 1}
    assert len(shipments(world)) == 2


def test_a_changed_file_is_shipped_again_under_a_greater_name(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.put_refs("a.csv", f"{HEADER}7,a,{url('ok', 2)}\n")
    world.run()
    newest = max(tables(world, "features"), key=lambda row: str(row["shipment"]))
    assert newest["url"] == url("ok", 2)


def test_a_file_changed_within_its_second_takes_the_next_round(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    at = world.hand.at - 10
    world.run()
    world.lake.now = lambda: at
    world.put_refs("a.csv", f"{HEADER}7,a,{url('ok', 22)}\n")
    world.run()
    assert sorted(name.round for name in shipments(world).values()) == [0, 1]
    newest = max(tables(world, "features"), key=lambda row: str(row["shipment"]))
    assert newest["url"] == url("ok", 22)


def test_a_version_that_goes_back_is_refused_loudly_and_once(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.lake.now = lambda: world.hand.at - 100_000
    world.put_refs("a.csv", f"{HEADER}7,a,{url('ok', 2)}\n")
    world.run()
    assert len(shipments(world)) == 1
    assert any("went back" in text for text in world.said)


def test_a_version_far_in_the_future_is_refused_loudly(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.hand.at -= 2 * 86400
    world.run()
    assert shipments(world) == {}
    assert any("more than a day in the future" in text for text in world.said)


def test_retriable_failures_are_tried_again_when_due_and_given_up_after_four_tries(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('down')}", f"7,b,{url('ok')}")
    world.run()
    assert [(r["reason"], r["retriable"]) for r in tables(world, "failures")] == [("http_5xx", True)]
    assert world.run() == 0, "nothing is due yet"
    for generation, delay in enumerate((3600, 86400, 259200), start=1):
        world.hand.at += delay - 60
        assert world.run() == 0
        world.hand.at += 120
        assert world.run() > 0
        assert max(name.generation for name in shipments(world).values()) == min(generation + 1, 3)
    rows = sorted(tables(world, "failures"), key=lambda row: str(row["shipment"]))
    assert [row["retriable"] for row in rows] == [True, True, True, False]
    assert "gave up after 4 tries" in str(rows[-1]["detail"])
    world.hand.at += 10 * 86400
    assert world.run() == 0
    assert world.asked[url("down")] == 4
    assert world.asked[url("ok")] == 1
    assert [key for key in world.bucket.files if "/h/open/" in key] == []


def test_a_host_that_recovers_gets_its_feature_in_the_child(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('later-1')}")
    world.run()
    assert tables(world, "features") == []
    world.hand.at += 3700
    world.run()
    (row,) = tables(world, "features")
    assert ShipmentName.parse(str(row["shipment"])).generation == 1


def test_duplicates_are_counted_and_the_last_feature_wins(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,a,{url('ok', 2)}", f"7,a,{url('gone')}", f"7,b,{url('gone')}")
    world.run()
    assert [row["url"] for row in tables(world, "features")] == [url("ok", 2)]
    (out,) = outs(world)
    assert (out.refs, out.features, out.failures, out.duplicates) == (4, 1, 1, 2)


def test_ids_that_differ_in_letter_case_or_percent_coding_are_one_item_counted_apart_and_named(tmp_path: Path) -> None:
    names = ["dQw4w9", "DQW4W9", "a b", "a%20b", "c", "c"]
    world = world_of(tmp_path, *(f"7,{name},{url('ok', n)}" for n, name in enumerate(names)))
    world.run()
    (out,) = outs(world)
    assert (out.refs, out.features, out.failures, out.duplicates, out.alike) == (6, 3, 0, 3, 2)
    assert sorted(out.alike_ids) == [(7, "a b", "a%20b"), (7, "dQw4w9", "DQW4W9")]
    (said,) = [text for text in world.said if "letter case" in text]
    assert "dQw4w9 and DQW4W9 of partner 7" in said
    assert "as_written" in said


def test_ids_as_they_are_written_are_items_of_their_own(tmp_path: Path) -> None:
    names = ["dQw4w9", "DQW4W9", "a b", "a%20b"]
    world = World(
        tmp_path,
        settings_of(lakes={"shop": {"url": "/nowhere/lake", "sources": [{"path": "refs", "ids": "as_written"}]}}),
    )
    world.put_refs("a.csv", HEADER + "".join(f"7,{name},{url('ok', n)}\n" for n, name in enumerate(names)))
    world.hand.at += 10
    world.run()
    (out,) = outs(world)
    assert (out.refs, out.features, out.duplicates, out.alike) == (4, 4, 0, 0)
    assert sorted(str(row["external_id"]) for row in tables(world, "features")) == sorted(names)


@pytest.mark.parametrize("value", ["__HIVE_DEFAULT_PARTITION__", "__hive_default_partition__", "null", "NULL", ""])
@pytest.mark.parametrize("partner", [5, None])
def test_a_folder_whose_partner_is_hives_null_is_as_an_empty_cell(
    tmp_path: Path, value: str, partner: int | None
) -> None:
    source = {"path": "refs", "partner_id": partner}
    world = World(tmp_path, settings_of(lakes={"shop": {"url": "/nowhere/lake", "sources": [source]}}))
    world.put_refs(f"Partner_ID={value}/a.csv", f"external_id,url\na,{url('ok', 1)}\nb,{url('ok', 2)}\n")
    world.hand.at += 10
    world.run()
    assert [row["partner_id"] for row in tables(world, "features")] == ([5, 5] if partner else [])
    (end,) = [body_of(End, body, key) for key, (body, _, _) in world.bucket.files.items() if key.endswith("/end")]
    assert [one.why for one in end.rejections] == ([] if partner else ["the partner id is empty"] * 2)


def test_the_law_holds_from_rows_to_delivered_rows(tmp_path: Path) -> None:
    lines = [f"7,item{n},{url('ok', n)}" for n in range(9)]
    lines += ["x,bad-partner,http://u/", f"7,,{url('ok', 99)}", f"7,gone,{url('gone')}", f"8,item1,{url('junk')}"]
    world = world_of(tmp_path, *lines)
    world.run()
    ends = [body_of(End, content, key) for key, (content, _, _) in world.bucket.files.items() if key.endswith("/end")]
    assert sum(end.rows for end in ends) == 13
    assert sum(end.rejected for end in ends) == 2
    assert {one.row for end in ends for one in end.rejections}
    assert sum(out.refs for out in outs(world)) == 11
    delivered = len(tables(world, "features")) + len(tables(world, "failures"))
    assert delivered == sum(out.features + out.failures for out in outs(world)) == 11


def test_a_file_with_no_good_ref_is_accounted_for(tmp_path: Path) -> None:
    world = world_of(tmp_path, "x,a,http://u/", "x,b,http://u/")
    world.put_refs("no_url.csv", "partner_id,name\n1,2\n")
    world.put_refs("empty.csv", "")
    world.run()
    ends = {
        body_of(Plan, world.bucket.files[key.replace("/end", "/plan")][0], key).snapshot.source: body_of(
            End, content, key
        )
        for key, (content, _, _) in world.bucket.files.items()
        if key.endswith("/end")
    }
    assert (ends["refs/a.csv"].rows, ends["refs/a.csv"].rejected) == (2, 2)
    assert ends["refs/no_url.csv"].rejected == 1
    assert "url" in ends["refs/no_url.csv"].rejections[0].why
    assert ends["refs/empty.csv"].rows == ends["refs/empty.csv"].rejected
    assert [key for key in world.bucket.files if "/h/open/" in key] == []
    assert world.run() == 0


def test_two_sets_side_by_side_never_mix(tmp_path: Path) -> None:
    sets = {
        "demo": FeatureSet(net="n", blob="b", root="features"),
        "other": FeatureSet(net="n", blob="b", root="features2"),
    }
    world = world_of(tmp_path, f"7,a,{url('ok')}", sets=sets)
    world.run()
    roots = {key.split("/")[0] for key in world.lake.files if key.endswith("_SUCCESS")}
    assert roots == {"features", "features2"}
    for key, (content, _, _) in world.bucket.files.items():
        if "/r/" in key:
            result = body_of(Result, content, key)
            assert key.split("/")[3] == result.fingerprint[:12]
    assert len({out.fingerprint for out in outs(world)}) == 2


def test_a_net_that_raises_is_a_strike_then_the_batch_runs_alone_and_one_item_is_poison(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,b,{url('bang')}", f"7,c,{url('ok', 2)}")
    turns = world.turns()
    for _ in range(6):
        world.run(turns)
        world.hand.at += 1
    assert len(tables(world, "features")) == 2
    assert [row["reason"] for row in tables(world, "failures")] == ["poison"]
    assert any("strike" in text for text in world.said)


def test_a_feature_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('nan')}")
    world.run()
    assert [row["reason"] for row in tables(world, "failures")] == ["not_finite"]


def test_the_index_names_every_delivery_with_its_hashes(tmp_path: Path) -> None:
    import hashlib

    world = world_of(tmp_path, *(f"{p},item{n},{url('ok', n)}" for n in range(4) for p in (1, 2)))
    world.run()
    index = body_of(Index, world.lake.files["features/outputByPartner"][0], "")
    folders = {path.rpartition("/")[0] for path in world.delivered() if path.endswith("_SUCCESS")}
    assert {f"features/{one.folder}" for one in index.deliveries} == folders
    for one in index.deliveries:
        for file in one.files:
            content = world.lake.files[f"features/{one.folder}/{file.name}"][0]
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    assert set(index.partners) == {"1", "2"}


def test_damaged_refs_are_never_used(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    turns = world.turns()
    turns.take("ship")
    (key,) = [key for key in world.bucket.files if key.endswith(".pb")]
    content, when, serial = world.bucket.files[key]
    world.bucket.files[key] = (content[:-1] + b"X", when, serial)
    turns.take("compute")
    assert not any("/r/" in key for key in world.bucket.files)
    assert any("SHA-256" in text for text in world.said)


def test_foreign_and_newer_objects_are_left_alone_and_named_once(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.bucket.write("shop/c/not-a-shipment/plan", b"?")
    world.bucket.write("shop/h/open/00000000T000000Z/what", b"")
    strange = "20250101T000000Z.000.00000.0-0123456789ab"
    world.bucket.write(f"shop/h/open/00000000T000000Z/{strange}", b"")
    world.bucket.write(f"shop/c/{strange}/plan", b'{"format": 99}')
    world.run()
    assert len(tables(world, "features")) == 1
    assert world.bucket.files[f"shop/c/{strange}/plan"][0] == b'{"format": 99}'
    assert any("newer Hathi" in text for text in world.said)


def test_a_file_replaced_while_it_is_read_is_void_and_what_is_there_now_is_shipped(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(9)))
    real = world.forms.open_refs
    replaced = []

    def open_and_replace(*arguments: Any) -> Any:
        if not replaced:
            replaced.append(True)
            world.hand.at += 1
            world.put_refs("a.csv", f"{HEADER}7,only,{url('ok', 77)}\n")
        return real(*arguments)

    world.forms = replace(world.forms, open_refs=open_and_replace)
    world.run()
    assert any("is void" in text and "changed while it was read" in text for text in world.said)
    newest = max(tables(world, "features"), key=lambda row: str(row["shipment"]))
    assert newest["url"] == url("ok", 77)
    assert [key for key in world.bucket.files if "/h/open/" in key] == []


def test_a_file_that_is_missing_is_waited_for_and_then_void(tmp_path: Path) -> None:
    world = world_of(
        tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(9)), ship={"batch_refs": 3, "refs_per_run": 3}
    )
    turns = world.turns()
    turns.take("ship")
    content = world.lake.files.pop("refs/a.csv")
    turns.take("ship")
    assert any("is missing" in text for text in world.said)
    world.hand.at += 86400 - 60
    turns.take("ship")
    assert not any("is void" in text for text in world.said)
    world.hand.at += 120
    turns.take("ship")
    assert any("is void" in text for text in world.said)
    world.lake.files["refs/a.csv"] = content
    world.settings = settings_of()
    world.run()
    assert len(tables(world, "features")) == 9, "it came back as it was, and is shipped in a new round"


def test_a_clock_that_jumps_back_changes_nothing_of_what_is_delivered(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(9)), f"7,d,{url('down')}")
    turns = world.turns()
    turns.take("ship")
    world.hand.at -= 7200
    for stage in ("compute", "aggregate", "deliver", "ship"):
        turns.take(stage)
    world.hand.at += 7300
    world.run()
    assert len(tables(world, "features")) == 9
    world.hand.at += 4000
    world.run()
    assert world.asked[url("down")] == 2


def test_caps_stop_a_run_and_the_next_goes_on_where_it_stopped(tmp_path: Path) -> None:
    world = world_of(
        tmp_path, *(f"7,item{n},{url('ok', n)}" for n in range(20)), ship={"batch_refs": 3, "refs_per_run": 4}
    )
    turns = world.turns()
    shipped = []
    while (tally := turns.take("ship")).worked:
        shipped.append(tally.counts.refs)
    assert sum(shipped) == 20
    assert max(shipped) == 6, "a batch that was begun is finished"
    world.run()
    assert len(tables(world, "features")) == 20


def test_partners_take_turns_and_the_most_lagging_comes_first(tmp_path: Path) -> None:
    from pipeline.ledger.manifest import Reading, Snapshot, SourceFile
    from pipeline.sources.found import Found
    from pipeline.stages import snapshots

    def found(path: str, version: str, partner: int) -> Found:
        file = SourceFile(path=path, length=1, modified=1)
        return Found(Snapshot(source=path, version=version, files=(file,)), Reading(partner_id=partner))

    settings = settings_of()
    seen = [found(f"giant{n}", f"2025010{n}T000000Z", 1) for n in range(1, 5)] + [found("small", "20250102T000000Z", 2)]
    new, refused = snapshots.plan(seen, settings.sets, "shop", snapshots.Known(frozenset()), settings.ship, 1.9e9, 0)
    assert refused == []
    assert [one.plan.snapshot.source for one in new] == ["giant1", "small", "giant2", "giant3", "giant4"]
    few, _ = snapshots.plan(seen, settings.sets, "shop", snapshots.Known(frozenset()), settings.ship, 1.9e9, 254)
    assert len(few) == 2, "no new snapshot beyond 256 due shipments"


def test_the_manifest_says_that_features_are_float16_and_the_fingerprint_stays(tmp_path: Path) -> None:
    line, prints = f"7,a,{url('ok')}", set()
    for numbers in ("float32", "float16"):
        sets = {"demo": FeatureSet(net="n", blob="b", root="features", parquet_numbers=numbers)}
        (tmp_path / numbers).mkdir()
        world = world_of(tmp_path / numbers, line, sets=sets)
        world.run()
        (path,) = (path for path in world.delivered() if path.endswith("_manifest.json"))
        body = body_of(PartnerManifest, world.delivered()[path], path)
        assert body.numbers == numbers
        prints.add(body.fingerprint)
    assert len(prints) == 1
