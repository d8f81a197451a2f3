"""`why` tells what happened to an item, where its row is, and what comes next."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hathi
from pipeline.cli import main as command_line
from pipeline.cli import why as command
from pipeline.operations.why import Story, items_of_url, question_of, story
from pipeline.operations.why.story import Chapter
from pipeline.records import item_id_of, item_id_of_url
from pipeline.settings import FeatureSet
from pipeline.stages import operator_requests
from tests.simulation.folders import HEADER, Folders, hold, url, world_of

DAY = 86400.0


def told(world: Folders, item: str, partner: int = 7) -> Story:
    return story(world.context("box.why"), question_of(partner, item))


def only(world: Folders, item: str) -> Chapter:
    (chapter,) = told(world, item).chapters
    return chapter


def text_of(found: Story) -> str:
    return "\n".join(command._lines(found))


def test_a_feature_is_told_from_its_row_to_what_consumers_see(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(5)))
    world.run()
    found = told(world, "i4")
    (chapter,) = found.chapters
    (ref,) = chapter.refs
    assert (chapter.source, chapter.kind, chapter.set, chapter.next) == ("refs/a.csv", "source", "demo", "")
    assert (ref.batch, ref.file, ref.first_row, ref.last_row) == (1, "refs/a.csv", 3, -1)
    assert (ref.url, ref.external_id, ref.outcome.kind) == (url("ok", 4), "i4", "feature")
    assert [(one.number, one.process, one.ended) for one in ref.tries] == [(1, "box.one", "")]
    assert chapter.folder == f"features/{chapter.shipment}/7"
    assert [row.url for row in chapter.delivered] == [url("ok", 4)]
    (seen,) = found.consumers_see()
    assert (seen.set, seen.shipment, seen.outcome.kind) == ("demo", chapter.shipment, "feature")
    assert only(world, "i0").refs[0].last_row == 2


def test_the_item_is_found_by_its_id_and_both_readings_of_digits_are_tried(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,123,{url('ok', 2)}")
    world.run()
    assert only(world, str(item_id_of("a"))).refs[0].external_id == "a"
    found = told(world, "123")
    assert set(found.items.values()) == {"item id", "external id"}
    assert found.chapters[0].refs[0].url == url("ok", 2)
    assert "123 (item id) or " in text_of(found)
    minus = str(item_id_of("a") - 2**64)
    assert item_id_of("a") in question_of(7, minus).items, "as Parquet shows it"


def test_a_final_failure_says_what_its_reason_means(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('gone')}")
    world.run()
    chapter = only(world, "a")
    (row,) = chapter.delivered
    assert (row.reason, row.detail, row.retriable) == ("http_4xx", "status 404", False)
    assert row.meaning == "the host answered 4xx; the detail holds the status"
    assert chapter.next.startswith("nothing: the failure is final")
    assert "no feature, but http_4xx" in text_of(told(world, "a"))


def test_a_retriable_failure_says_when_it_is_tried_again_and_then_how_that_went(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('later', 1)}", f"7,b,{url('down')}")
    world.run()
    parent, child = told(world, "a").chapters
    assert parent.next == f"is tried again at {clock(child.next)} UTC, in {child.shipment}"
    assert child.next == f"is tried again at {clock(child.next)} UTC"
    assert (child.kind, child.parent, child.generation) == ("retry", parent.shipment, 1)
    assert (child.refs[0].file, child.refs[0].outcome.kind) == ("", "")
    world.hand.at += 3700
    world.run()
    parent, child = told(world, "a").chapters
    assert parent.next == f"was tried again in {child.shipment}"
    assert (child.delivered[0].kind, child.next) == ("feature", "")
    assert told(world, "a").consumers_see()[0].shipment == child.shipment
    for _ in range(2):
        world.hand.at += 4 * DAY
        world.run()
    *_, last = told(world, "b").chapters
    assert last.generation == 3
    assert "gave up after 4 tries" in last.delivered[0].detail
    assert last.next.startswith("nothing: the failure is final")


def clock(text: str) -> str:
    """The time in a line."""
    return text.partition(" at ")[2].partition(" UTC")[0]


def test_of_duplicates_it_says_which_won(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,a,{url('ok', 2)}", f"7,A,{url('gone')}")
    world.run()
    chapter = only(world, "a")
    assert [(ref.url, ref.wins) for ref in chapter.refs] == [
        (url("ok", 1), False),
        (url("ok", 2), True),
        (url("gone"), False),
    ]
    assert [row.url for row in chapter.delivered] == [url("ok", 2)]
    text = text_of(told(world, "a"))
    assert "of these it wins" in text
    assert "a duplicate: its id differs from a in letter case or percent-coding only" in text


def test_an_id_that_is_hashed_as_it_is_written_is_found() -> None:
    asked = question_of(7, "SKU-1", as_written=True)
    assert asked.items == {item_id_of("SKU-1"): "external id", item_id_of_url("SKU-1"): "external id as it is written"}
    assert len(question_of(7, "SKU-1").items) == 1


def test_each_step_before_delivery_says_what_it_waits_for(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(5)))
    turns = world.turns()
    said = []
    for stage in ("ship", "compute", "aggregate", "deliver"):
        turns.take(stage)
        said.append(only(world, "i0").next)
    assert said == ["waits for compute", "waits for aggregate", "waits for deliver", ""]


def test_a_held_item_says_how_to_release_it(tmp_path: Path) -> None:
    world = world_of(
        tmp_path, f"7,a,{url('ok', 1)}", compute={"strikes": 1, "strikes_alone": 1, "lost": 1, "lost_alone": 1}
    )
    hold(world)
    chapter = only(world, "a")
    assert chapter.next == f"held: release it with `hathi quarantine release {chapter.shipment}.0`, or drop it"
    assert [made.ended for made in chapter.refs[0].tries] == ["ended without a result (killed or crashed)"] * 2
    assert [row.reason for row in chapter.delivered] == ["held"]
    (one,) = operator_requests.held(world.context())
    operator_requests.answer(world.context(), one.name, one.batch, "release")
    world.run()
    parent, child = told(world, "a").chapters
    assert parent.next == f"was released: see {child.shipment}"
    assert (child.kind, child.delivered[0].kind) == ("release", "feature")


def test_a_rejected_row_is_mentioned_where_its_sample_shows_the_id(tmp_path: Path) -> None:
    world = world_of(tmp_path, "x,SKU-9,http://u/", f"7,a,{url('ok')}")
    world.run()
    found = told(world, "SKU-9")
    assert found.chapters == []
    (row,) = found.rejected
    assert (row.file, row.row) == ("refs/a.csv", 0)
    assert "SKU-9" in row.sample
    assert "rejected: row 1 of refs/a.csv" in text_of(found)


def test_an_unknown_item_is_said_to_be_unknown(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    for found in (told(world, "nobody"), told(world, "a", partner=8)):
        assert found.chapters == []
        assert "Hathi found nothing about this item in 1 shipment" in text_of(found)


def test_an_item_in_two_snapshots_has_two_chapters_and_the_newer_feature_wins(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.put_refs("b.csv", f"{HEADER}7,a,{url('ok', 2)}\n")
    world.run()
    world.hand.at += 10
    world.put_refs("c.csv", f"{HEADER}7,a,{url('gone')}\n")
    world.run()
    found = told(world, "a")
    assert [chapter.source for chapter in found.chapters] == ["refs/a.csv", "refs/b.csv", "refs/c.csv"]
    (seen,) = found.consumers_see()
    assert seen.outcome.url == url("ok", 2), "a failure hides no feature"


def test_each_set_has_its_own_answer_with_text_alone_too(tmp_path: Path) -> None:
    sets = {
        "demo": FeatureSet(net="n", blob="b", root="features"),
        "other": FeatureSet(net="n", blob="b", root="features2", formats=["libsvm"]),
    }
    world = world_of(tmp_path, f"7,a,{url('ok')}", f"7,b,{url('ok', 2)}", sets=sets)
    world.run()
    found = told(world, "a")
    assert [(seen.set, seen.outcome.kind) for seen in found.consumers_see()] == [
        ("demo", "feature"),
        ("other", "feature"),
    ]


def test_an_inline_image_is_said_to_travel_inline(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    (world.top / "lake/refs/a.csv").unlink()
    content = base64.b64encode(b"four").decode()
    world.put_refs("a.jsonl", json.dumps({"partner_id": 7, "external_id": "a", "content": content}) + "\n")
    world.run()
    (ref,) = only(world, "a").refs
    assert (ref.url, ref.inline_bytes) == ("", 4)
    assert "4 bytes, sent with the ref" in text_of(told(world, "a"))


def test_what_prune_took_is_said_to_be_unknown_and_the_rest_is_told_from_the_lake(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}", f"7,b,{url('gone')}")
    world.run()
    world.hand.at += 20 * DAY
    world.pruner().prune()
    chapter = only(world, "a")
    assert chapter.refs == ()
    assert [row.url for row in chapter.delivered] == [url("ok")]
    assert any("prune deleted" in note for note in chapter.notes)
    shutil.rmtree(world.top / "bucket/shop")
    bare = only(world, "a")
    assert (bare.shipment, bare.set, bare.kind) == (chapter.shipment, "demo", "")
    assert [row.url for row in bare.delivered] == [url("ok")]
    assert any("prune deleted its ledger" in note for note in bare.notes)
    assert told(world, "a").consumers_see()[0].outcome.kind == "feature"


def test_on_a_box_without_the_lake_it_tells_what_the_bucket_knows(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    (world.top / "lake").rename(world.top / "elsewhere")
    found = told(world, "a")
    assert not found.lake_seen
    assert found.chapters[0].delivered[0].kind == "feature"
    assert "this host cannot see the lake" in text_of(found)


def test_damaged_refs_and_shards_are_named_and_stop_nothing(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    for pattern in ("shop/d/*/*/00000.pb", "shop/d/*/*/7/features/part-00000.parquet"):
        path = world.in_bucket(pattern)
        path.write_bytes(path.read_bytes()[:-20])
    chapter = only(world, "a")
    assert any("refs of batch 0 are damaged" in note for note in chapter.notes)
    assert [row.url for row in chapter.delivered] == [url("ok")], "read on the lake instead"


@pytest.mark.parametrize("pruned", [False, True])
def test_by_its_url_it_finds_whose_image_it_is(tmp_path: Path, pruned: bool) -> None:
    secret = "http://shop.example/ok-1?signature=secret"
    world = world_of(tmp_path, f"7,a,{secret}", f"8,b,{secret}", f"7,c,{url('ok', 2)}")
    world.run()
    if pruned:
        shutil.rmtree(world.top / "bucket/shop/d")
    context = world.context("box.why")
    assert [(one.partner, *one.items) for one in items_of_url(context, secret, None)] == [
        (7, item_id_of("a")),
        (8, item_id_of("b")),
    ]
    assert {item for one in items_of_url(context, secret, 8) for item in one.items} == {
        item_id_of("b"),
        item_id_of_url(secret),
    }


def config_of(world: Folders, tmp_path: Path) -> str:
    path = tmp_path / "h.toml"
    path.write_text(
        f'state = "{tmp_path}/state"\n[bucket]\nurl = "{world.top}/bucket"\n[lakes.shop]\nurl = "{world.top}/lake"\n'
        '[sets.demo]\nnet = "n.onnx"\nblob = "b"\nroot = "features"\n'
    )
    return str(path)


def test_the_command_redacts_queries_and_speaks_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = world_of(tmp_path, "7,a,http://shop.example/ok-1?signature=secret", f"7,b,{url('down')}")
    world.run()
    config = config_of(world, tmp_path)
    assert command_line.main(["why", "7", "a", "--config", config]) == 0
    assert command_line.main(["why", "7", "b", "--config", config]) == 0
    assert command_line.main(["why", "--url", "http://shop.example/ok-1?signature=secret", "--config", config]) == 0
    assert command_line.main(["why", "7", "a", "--json", "--config", config]) == 0
    out = capsys.readouterr().out
    assert "secret" not in out
    assert out.count("http://shop.example/ok-1?redacted") >= 6
    body: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert body["chapters"][0]["refs"][0]["outcome"]["kind"] == "feature"
    assert body["consumers_see"][0]["set"] == "demo"
    assert command_line.main(["why", "--config", config]) == 2
    assert command_line.main(["why", "7", "a", "--lake", "no", "--config", config]) == 2


@pytest.mark.parametrize("ids", ["normalised", "as_written"])
def test_the_library_asks_for_the_items_that_the_command_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ids: str
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    config = config_of(world, tmp_path)
    with Path(config).open("a") as file:
        file.write(f'[[lakes.shop.sources]]\npath = "refs"\nids = "{ids}"\n')
    assert command_line.main(["why", "7", "SKU-%31", "--json", "--config", config]) == 0
    (told,) = hathi.why(7, "SKU-%31", config=config)
    assert {str(item) for item in told.items} == set(json.loads(capsys.readouterr().out)["items"])
    assert len(told.items) == {"normalised": 1, "as_written": 2}[ids]
