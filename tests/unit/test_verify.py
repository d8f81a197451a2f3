"""`verify` against a world with folders as bucket and lake: clean where all is well, and each planted damage named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.clock import Process
from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import Index
from pipeline.ledger.layout import Root, ShipmentName, version_of
from pipeline.ledger.protocol import Context
from pipeline.operations.verify import KINDS, Finding, verify
from pipeline.settings import FeatureSet
from pipeline.stages import index, operator_requests
from tests.simulation import damages as plant
from tests.simulation.damages import Damage
from tests.simulation.folders import HEADER, Folders, hold, url, world_of
from tests.simulation.memory import MemoryStore
from tests.simulation.universe import Universe

DAY = 86400.0
UNREADABLE = ("unreadable", "newer")
TOLD = ("no_hint", "newer")
"""Warnings that no sound life shows."""


def kinds(findings: list[Finding]) -> list[str]:
    return sorted({finding.kind for finding in findings})


def worse(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "information"]


@pytest.fixture
def sound(tmp_path: Path) -> Folders:
    """Two partners, one failure that is tried again, all delivered."""
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,b,{url('ok', 2)}", f"8,c,{url('down')}", f"8,d,{url('gone')}")
    world.run()
    return world


def test_a_sound_run_is_clean_deep_too(sound: Folders) -> None:
    assert sound.look(deep=True) == []


def test_verify_only_reads(sound: Folders) -> None:
    before = {path: path.stat().st_mtime_ns for path in sound.top.rglob("*")}
    sound.look(deep=True)
    assert {path: path.stat().st_mtime_ns for path in sound.top.rglob("*")} == before


def test_every_step_of_a_run_is_clean_with_retries_parts_duplicates_two_sets_and_rejected_rows(tmp_path: Path) -> None:
    sets = {
        "demo": FeatureSet(net="n", blob="b", root="features"),
        "other": FeatureSet(net="n", blob="b", root="more/features2", formats=["text", "libsvm"]),
    }
    lines = [f"7,i{n},{url('ok', n)}" for n in range(9)] + [f"7,i1,{url('ok', 77)}", "x,bad,http://u/"]
    world = world_of(tmp_path, *lines, f"8,late,{url('later', 1)}-", f"8,never,{url('down')}", sets=sets)
    turns = world.turns()
    for _ in range(4):
        for stage in ("ship", "compute", "aggregate", "deliver"):
            turns.take(stage)
            assert worse(world.look(deep=True)) == [], stage
    for delay in (3700, 90000, 260000):
        world.hand.at += delay
        world.run(turns)
        assert worse(world.look(deep=True)) == []
    names = {path.name for path in (world.top / "bucket/shop/c").iterdir()}
    assert {ShipmentName.parse(name).generation for name in names} == {0, 1, 2, 3}


def test_a_held_batch_its_release_and_its_drop_are_clean(tmp_path: Path) -> None:
    lines = [f"7,i{n},{url('bang' if n == 1 else 'ok', n)}" for n in range(3)]
    world = world_of(tmp_path, *lines, compute={"strikes": 1, "strikes_alone": 1, "lost": 1, "lost_alone": 1})
    hold(world)
    found = world.look(deep=True)
    assert kinds(found) == ["held"]
    (name, batch) = next((one.name, one.batch) for one in operator_requests.held(world.context()))
    operator_requests.answer(world.context(), name, batch, "release")
    world.run()
    assert worse(world.look(deep=True)) == []


def test_a_void_shipment_is_clean(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(9)), ship={"batch_refs": 3, "refs_per_run": 3})
    world.turns().take("ship")
    world.put_refs("a.csv", f"{HEADER}7,only,{url('ok', 77)}\n")
    world.run()
    assert any("void" in text for text in world.said)
    assert world.look(deep=True) == []


def test_what_prune_left_is_clean(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.hand.at += 20 * DAY
    world.pruner().prune()
    assert not list(world.top.glob("bucket/shop/d/*"))
    assert world.look(deep=True) == []
    shutil.rmtree(world.top / "lake/refs")
    world.put_refs("b.csv", f"{HEADER}7,b,{url('ok', 2)}\n")
    world.run()
    world.hand.at += 420 * DAY
    world.pruner().prune()
    assert len(list(world.top.glob("bucket/shop/c/*"))) == 1
    assert world.look(deep=True) == []


@pytest.mark.parametrize(
    ("damage", "kind", "deep"),
    [
        (plant.a_flipped_bit_on_the_lake, "file_hash", True),
        (plant.a_flipped_bit_in_the_bucket, "data_hash", True),
        (plant.a_file_of_another_length, "file_length", False),
        (plant.a_lost_delivered_file, "file_missing", False),
        (plant.a_lost_data_object_of_an_open_shipment, "data_missing", False),
        (plant.a_shortened_data_object, "data_length", False),
        (plant.a_deleted_folder, "folder_missing", False),
        (plant.a_lost_success, "success_missing", False),
        (plant.a_lost_manifest, "folder_strange", False),
        (plant.a_swapped_folder, "folder_strange", False),
        (plant.a_manifest_that_says_something_else, "manifest_differs", False),
        (plant.a_truncated_out, "unreadable", False),
        (plant.an_empty_plan, "unreadable", False),
        (plant.a_lost_plan, "hop_missing", False),
        (plant.a_lost_end, "hop_missing", False),
        (plant.a_lost_result, "hop_missing", False),
        (plant.a_lost_out, "hop_missing", False),
        (plant.an_end_that_lost_refs, "law", False),
        (plant.a_child_that_lost_refs, "child_differs", False),
        (plant.an_index_rolled_back, "index_behind", False),
        (plant.a_lost_index, "index_behind", False),
        (plant.an_index_that_is_no_json, "index_unreadable", False),
        (plant.an_index_entry_that_names_nothing, "index_names_nothing", False),
        (plant.an_index_without_a_delivery, "index_lacks", False),
        (plant.an_index_with_another_size, "index_differs", False),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_each_damage_is_found_where_it_is_and_named(sound: Folders, damage: Damage, kind: str, deep: bool) -> None:
    where = damage(sound)
    if deep:
        assert sound.look() == [], "only reading shows it"
    found = worse(sound.look(deep=deep))
    assert (kind, where) in {(one.kind, one.where) for one in found}, found
    assert all(KINDS[one.kind].level == "damage" for one in found if one.where == where)
    assert all(one.where.count("\n") == 0 and one.do for one in found)


def test_one_flipped_bit_is_one_finding(sound: Folders) -> None:
    where = plant.a_flipped_bit_on_the_lake(sound)
    (found,) = sound.look(deep=True)
    assert (found.kind, found.level, found.where) == ("file_hash", "damage", where)


def test_foreign_and_newer_objects_are_named_once_and_stop_nothing(sound: Folders) -> None:
    strange = "20250101T000000Z.000.00000.0-0123456789ab"
    bucket = sound.top / "bucket"
    for key, content in (
        ("shop/c/not-a-shipment/plan", b"?"),
        (f"shop/c/{strange}/plan", b'{"format": 99}'),
        ("shop/c/stray", b""),
        ("shop/x/y", b""),
        ("shop/d/what/ever", b""),
        ("shop/h/open/00000000T000000Z/what", b""),
        ("shop/h/held/what", b""),
        (f"shop/d/{strange.replace('2025', '2024')}/0/left", b"1234"),
    ):
        (bucket / key).parent.mkdir(parents=True, exist_ok=True)
        (bucket / key).write_bytes(content)
    own = sound.in_bucket("shop/c/*/plan").parent
    (own / "note.txt").write_text("mine")
    (sound.top / "lake/features/README").write_text("mine")
    sound.on_lake("features/*/7/_SUCCESS").with_name("by-a-consumer").touch()
    found = sound.look()
    assert [(one.kind, one.where) for one in worse(found)] == [("newer", f"shop/c/{strange}/plan")]
    assert len(found) == 11
    assert sum(one.kind == "not_ours" for one in found) == 9
    assert plant.a_lost_success(sound) in {one.where for one in sound.look()}


def test_a_lost_hint_of_an_open_shipment_is_named_and_put_back(sound: Folders) -> None:
    hint = sound.in_bucket("shop/h/open/*/*")
    hint.unlink()
    (found,) = sound.look()
    assert (found.kind, found.level) == ("no_hint", "warning")
    assert found.where == str(hint.relative_to(sound.top / "bucket"))
    assert sound.mend() == ["put back: the shipment is open"]
    assert hint.exists()
    assert sound.look() == []
    assert sound.mend() == []


def test_a_deleted_ledger_of_a_young_delivery_is_a_warning(sound: Folders) -> None:
    for path in sound.top.glob("bucket/shop/[cdh]"):
        shutil.rmtree(path)
    assert kinds(sound.look()) == ["ledger_missing"]


def test_a_box_that_does_not_see_the_lake_says_so_and_looks_at_the_bucket(sound: Folders) -> None:
    (sound.top / "lake").rename(sound.top / "elsewhere")
    assert kinds(sound.look(deep=True)) == ["lake_not_seen"]
    plant.a_truncated_out(sound)
    assert kinds(sound.look()) == ["lake_not_seen", "unreadable"]


@pytest.mark.parametrize(
    "damage",
    [
        plant.an_index_rolled_back,
        plant.a_lost_index,
        plant.an_index_that_is_no_json,
        plant.an_index_entry_that_names_nothing,
        plant.an_index_without_a_delivery,
        plant.an_index_with_another_size,
    ],
)
def test_repair_makes_the_index_right_and_deliveries_go_on(sound: Folders, damage: Damage) -> None:
    good = {key: path.read_bytes() for key, path in files(sound, "features")}
    damage(sound)
    expected = Index() if damage is plant.an_index_rolled_back else read_index(good["features/outputByPartner"])
    (what,) = sound.mend()
    assert what.startswith("rebuilt from the manifests as version")
    assert sound.look(deep=True) == []
    rebuilt = read_index(sound.on_lake("features/outputByPartner").read_bytes())
    if damage is not plant.an_index_rolled_back:
        assert rebuilt.partners == expected.partners
        assert {one.folder: one for one in rebuilt.deliveries} == {one.folder: one for one in expected.deliveries}
    sound.put_refs("c.csv", f"{HEADER}7,f,{url('ok', 6)}\n9,g,{url('ok', 7)}\n")
    sound.run()
    assert sound.look(deep=True) == []
    after = read_index(sound.on_lake("features/outputByPartner").read_bytes())
    assert after.version == rebuilt.version + 1
    assert {one.folder for one in rebuilt.deliveries} < {one.folder for one in after.deliveries}
    for key, content in good.items():
        if not key.endswith("outputByPartner"):
            assert (sound.top / "lake" / key).read_bytes() == content, "repair touches no data and no manifest"


def files(world: Folders, under: str) -> list[tuple[str, Path]]:
    lake = world.top / "lake"
    return [(str(path.relative_to(lake)), path) for path in sorted((lake / under).rglob("*")) if path.is_file()]


def read_index(content: bytes) -> Index:
    return body_of(Index, content, "")


def test_repair_of_what_is_right_changes_nothing(sound: Folders) -> None:
    before = {path: path.read_bytes() for path in sound.top.rglob("*") if path.is_file()}
    assert sound.mend() == []
    assert {path: path.read_bytes() for path in sound.top.rglob("*") if path.is_file()} == before


def test_repair_leaves_an_index_of_a_newer_hathi_alone(sound: Folders) -> None:
    path = sound.on_lake("features/outputByPartner")
    path.write_text('{"format": 99}')
    assert sound.mend() == []
    assert kinds(sound.look()) == ["newer"]


def test_a_writer_who_wakes_after_a_repair_goes_on_behind_it(sound: Folders) -> None:
    old = read_index(sound.on_lake("features/outputByPartner").read_bytes())
    plant.a_lost_index(sound)
    sound.mend()
    context = sound.context("box.late")
    root = Root("features")
    late = index.next_index(old, [], root.root, version_of(sound.hand.at), 7.0)
    assert context.lake is not None
    index._propose(context, context.lake, root, late)
    assert sound.look() == [], "the version it proposes is taken"


def test_data_lost_before_its_time_of_a_closed_shipment_is_a_warning(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.in_bucket("shop/d/*/*/00000.pb").unlink()
    (found,) = world.look()
    assert (found.kind, found.level) == ("data_gone_early", "warning")


@pytest.mark.parametrize(("seed", "spoils"), [(1, 1.0), (2, 0.0)])
def test_at_no_moment_of_a_life_with_kills_and_lost_answers_does_it_find_damage_but_what_was_planted(
    seed: int, spoils: float
) -> None:
    universe = Universe(seed, spoils=spoils)
    checks, steps = universe.scheduler.after_step, 0
    planted: set[str] = set()

    def look() -> None:
        nonlocal steps
        checks()
        steps += 1
        if steps % 200 == 0:
            stores = {"bucket": MemoryStore(universe.bucket), "lake": MemoryStore(universe.lake)}
            context = Context(
                lake_name="shop",
                **stores,  # type: ignore[arg-type]
                settings=universe.settings,
                process=Process("verify", clock=universe.hand.clock()),
                spill=Path("/nowhere"),
                forms=universe.forms,
            )
            found = [one for one in verify(context, deep=True) if one.level == "damage" or one.kind in TOLD]
            named = [(one.kind if one.kind not in UNREADABLE else "", one.where) for one in found]
            assert named == [("", key) for key in universe.laws.spoilt], found
            planted.update(universe.laws.spoilt)

    universe.scheduler.after_step = look
    try:
        universe.run(1500)
    finally:
        universe.close()
    assert bool(planted) == bool(spoils)
    assert steps > 2000
