"""What is not ours, or not whole, is left alone, named once, and stops nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.ledger.bodies import body_of
from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.ledger.manifest import Out, Plan
from pipeline.ledger.protocol import Context
from pipeline.settings import FeatureSet, Settings
from pipeline.stages.loop import LakeStages
from tests.simulation.world import STAGES, World, settings_of

HEADER = "partner_id,external_id,url\n"
KEYS = Keys("shop")
BROKEN = {
    "nothing": b"",
    "no JSON": b"\x00\xff not json",
    "no object": b"[1, 2]",
    "no format": b"{}",
    "a newer format": b'{"format": 99, "what": "ever"}',
    "no fields": b'{"format": 1}',
}


def url(kind: str, number: int = 0) -> str:
    return f"http://shop.example/{kind}-{number}"


@dataclass
class Spoken(World):
    """A world that says what is to be said once only once, as the daemons do."""

    once: dict[str, str] = field(default_factory=dict)
    lake_name: str = "shop"

    def context(self, name: str = "box.one") -> Context:
        def once(key: str, text: str) -> None:
            if self.once.setdefault(key, text) is text:
                self.said.append(text)

        return replace(super().context(name), once=once, lake_name=self.lake_name)


def world_of(tmp_path: Path, **changes: object) -> Spoken:
    """Two sources, one shipment each."""
    world = Spoken(tmp_path, settings_of(**changes))
    world.put_refs("a.csv", f"{HEADER}7,a,{url('ok', 1)}\n")
    world.put_refs("b.csv", f"{HEADER}8,b,{url('ok', 2)}\n")
    world.hand.at += 10
    return world


def shipment_of(world: World, source: str) -> ShipmentName:
    for key, (content, _, _) in world.bucket.files.items():
        if key.endswith("/plan") and body_of(Plan, content, key).snapshot.source == source:
            return ShipmentName.parse(key.split("/")[2])
    raise AssertionError(source)


def keep_going(turns: LakeStages, rounds: int = 4) -> None:
    for _ in range(rounds):
        for stage in STAGES:
            turns.take(stage)


def delivered_partners(world: World) -> set[str]:
    return {key.split("/")[2] for key in world.delivered() if key.endswith("/_SUCCESS")}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("body", ["plan", "b/00000", "end", "t/00000/00001", "r/00000", "out", "done"])
def test_a_broken_body_of_one_shipment_stops_no_other_and_is_named(tmp_path: Path, body: str, content: bytes) -> None:
    world = world_of(tmp_path)
    turns = world.turns()
    turns.take("ship")
    name = shipment_of(world, "refs/a.csv")
    if body == "done":
        for stage in ("compute", "aggregate"):
            turns.take(stage)
    fingerprint = world.fingerprints["demo"][:12]
    key = KEYS.shipment(name) + (f"{fingerprint}/{body}" if body[0] in "tr" else body)
    world.bucket.write(key, content)
    fresh = world.turns("box.two")
    keep_going(fresh)
    assert "8" in delivered_partners(world)
    assert world.bucket.files[key][0] == content, "left alone"
    named = [text for text in world.said if key in text]
    assert named, world.said
    assert len(named) == len(set(named)), "named once"


WRONG = [
    ("end", "batches", 10**12),
    ("end", "batches", -1),
    ("plan", "batches", 0),
    ("plan", "due", "tomorrow"),
    ("plan", "parent", "x"),
    ("plan", "retry_delays", [1e12, 1.0, 1.0]),
    ("out", "at", "99999999T999999Z"),
    ("out", "partners", {"../8": {"files": [], "features": 1, "failures": 0}}),
]


@pytest.mark.parametrize(("body", "name", "value"), WRONG)
def test_a_body_with_a_value_that_cannot_be_is_damaged_as_well(
    tmp_path: Path, body: str, name: str, value: object
) -> None:
    world = world_of(tmp_path)
    turns = world.turns()
    for stage in STAGES[: 3 if body == "out" else 1]:
        turns.take(stage)
    key = KEYS.shipment(shipment_of(world, "refs/a.csv")) + body
    world.bucket.write(key, json.dumps({**json.loads(world.bucket.files[key][0]), name: value}).encode())
    keep_going(world.turns("box.two"))
    assert "8" in delivered_partners(world)
    assert any(key in text for text in world.said)


@pytest.mark.parametrize("content", list(BROKEN.values())[:-1], ids=list(BROKEN)[:-1])
def test_a_broken_index_is_not_overwritten_and_stops_no_other_root(tmp_path: Path, content: bytes) -> None:
    sets = {
        "demo": FeatureSet(net="n", blob="b", root="features"),
        "other": FeatureSet(net="n", blob="b", root="features2"),
    }
    world = world_of(tmp_path, sets=sets)
    world.lake.write("features/outputByPartner", content)
    keep_going(world.turns())
    assert world.lake.files["features/outputByPartner"][0] == content
    assert "features2/outputByPartner" in world.lake.files
    assert any("features/outputByPartner" in text for text in world.said)


@pytest.mark.parametrize("pattern", ["/00000.pb", ".features.parquet", "/8/features/part-00000.parquet"])
def test_data_whose_hash_does_not_fit_is_never_used_and_said_loudly(tmp_path: Path, pattern: str) -> None:
    world = world_of(tmp_path)
    turns = world.turns()
    stages = {"/00000.pb": 1, ".features.parquet": 2, "/8/features/part-00000.parquet": 3}[pattern]
    for stage in STAGES[:stages]:
        turns.take(stage)
    name = shipment_of(world, "refs/b.csv")
    (key,) = [key for key in world.bucket.files if key.startswith(f"shop/d/{name}/") and key.endswith(pattern)]
    content = world.bucket.files[key][0]
    world.bucket.write(key, content[:-1] + bytes([content[-1] ^ 1]))
    keep_going(turns)
    assert delivered_partners(world) == {"7"}
    assert any("SHA-256" in text and key in text for text in world.said)


def two_lakes(tmp_path: Path) -> tuple[Spoken, Spoken]:
    """Two lakes, one bucket, refs of the same names and contents."""
    first, second = world_of(tmp_path), world_of(tmp_path)
    second.bucket, second.lake_name = first.bucket, "market"
    lakes = {name: {"url": "/nowhere", "sources": [{"path": "refs"}]} for name in ("shop", "market")}
    first.settings = second.settings = settings_of(lakes=lakes)
    return first, second


def test_two_lakes_share_a_bucket_and_no_key(tmp_path: Path) -> None:
    first, second = two_lakes(tmp_path)
    first.run()
    mine = dict(first.bucket.files)
    assert second.run() > 0
    assert {key: first.bucket.files[key] for key in mine} == mine
    tops = {key.split("/")[0] for key in first.bucket.files}
    assert tops == {"shop", "market"}
    names = [{key.split("/")[2] for key in first.bucket.files if key.startswith(f"{top}/c/")} for top in sorted(tops)]
    assert not names[0] & names[1], "no two shipments share a name"
    assert delivered_partners(first) == delivered_partners(second) == {"7", "8"}


def with_sets(**sets: FeatureSet) -> Settings:
    return settings_of(sets=sets)


def test_a_set_that_is_removed_while_its_shipments_are_open_lets_them_wait_and_says_so(tmp_path: Path) -> None:
    demo, other = (FeatureSet(net="n", blob="b", root=root) for root in ("features", "features2"))
    world = world_of(tmp_path)
    world.settings = with_sets(demo=demo, other=other)
    world.turns().take("ship")
    world.settings = with_sets(other=other)
    keep_going(world.turns("box.two"))
    assert {key.split("/")[0] for key in world.lake.files if key.endswith("_SUCCESS")} == {"features2"}
    assert sum("no set demo" in text for text in world.said) >= 1
    assert len(world.said) == len(set(world.said))
    assert any("/h/open/" in key for key in world.bucket.files)
    world.settings = with_sets(demo=demo, other=other)
    world.run(world.turns("box.three"))
    assert {key.split("/")[0] for key in world.lake.files if key.endswith("_SUCCESS")} == {"features", "features2"}


def test_a_set_that_is_removed_between_compute_and_delivery_is_an_alert_and_the_rest_goes_on(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    for stage in STAGES[:3]:
        world.turns().take(stage)
    other = FeatureSet(net="n", blob="b", root="features2")
    world.settings = with_sets(other=other)
    keep_going(world.turns("box.two"))
    assert {key.split("/")[0] for key in world.lake.files if key.endswith("_SUCCESS")} == {"features2"}
    assert sum(text.startswith("Alert: this configuration has no set demo") for text in world.said) == 1


def test_a_set_that_is_renamed_is_another_set_and_delivers_anew_beside_the_old_folders(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.run()
    before = world.delivered()
    world.settings = with_sets(renamed=FeatureSet(net="n", blob="b", root="features"))
    world.fingerprints["renamed"] = world.fingerprints["demo"]
    world.run(world.turns("box.two"))
    after = world.delivered()
    assert {key: after[key] for key in before if "outputByPartner" not in key} == {
        key: content for key, content in before.items() if "outputByPartner" not in key
    }
    sets = {json.loads(content)["set"] for key, content in after.items() if key.endswith("_manifest.json")}
    assert sets == {"demo", "renamed"}
    outs = [body_of(Out, c, k) for k, (c, _, _) in world.bucket.files.items() if k.endswith("/out")]
    assert len(outs) == 4
