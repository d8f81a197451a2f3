"""From a promotion to delivered features, on to the next one and back, as typed: a gateway and a box of their own."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.cli import train_head
from pipeline.ledger.bodies import body_of
from pipeline.ledger.promotions import Promotion
from sample import random_features
from tests.integration.conftest import ROOT, environ, picture, row
from tests.integration.following_hosts import NET, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    made = Hosts(tmp_path)
    made.write("gateway")
    made.write("box")
    made.refs("a.jsonl", "a", "bb", "ccc")
    return made


def test_a_promotion_is_computed_delivered_replaced_and_taken_back(hosts: Hosts) -> None:
    dataset = hosts.folder / "dataset"
    dataset.mkdir()
    (dataset / "_manifest.json").write_text("{}")
    said = hosts.promote(1, "--figures", "accuracy=0.9", "--why", "the first", "--data", str(dataset), "--data", "more")
    assert "shoes@1 is in use from now on in lake shop: 2 files" in said
    hosts.go_round()
    (first,) = hosts.prints()
    assert hosts.prints()[first] == 3

    said = hosts.promote(2, "--figures", "accuracy=0.92", "--least", "accuracy=0.91", "--against", "current")
    assert "accuracy 0.92 (shoes@1: 0.9)" in said
    assert f"it was {first[:12]}" in said
    assert "next: hathi backfill demo" in said
    hosts.go_round()
    assert hosts.prints() == {first: 3}, "what is delivered stays until it is asked for anew"
    hosts.well("gateway", "backfill", "demo")
    hosts.go_round()
    (second,) = set(hosts.prints()) - {first}
    assert hosts.prints() == {first: 3, second: 3}, "old and new stand side by side"
    newest = {found["external_id"]: found["fingerprint"] for found in sorted(hosts.rows(), key=lambda r: r["shipment"])}
    assert set(newest.values()) == {second}, "the greatest name has the new ones"

    assert "shoes@3 is in use" in hosts.well("box", "promote", "shoes@1", "demo", "--why", "back")
    hosts.well("gateway", "backfill", "demo")
    hosts.go_round()
    assert hosts.prints() == {first: 6, second: 3}
    vectors = {(found["shipment"], found["external_id"]): found["features"] for found in hosts.rows()}
    names = sorted({name for name, _ in vectors})
    assert [vectors[names[0], item] == vectors[names[2], item] for item in ("a", "bb", "ccc")] == [True] * 3

    third, other, oldest = hosts.models("shoes")
    assert oldest["data"] == {str(dataset): hashlib.sha256(b"{}").hexdigest(), "more": ""}
    assert [one["number"] for one in (third, other, oldest)] == [3, 2, 1]
    assert (third["in_use"], third["again"], third["why"], third["sets"]) == (True, 1, "back", ["demo"])
    assert third["digest"] == oldest["digest"] != other["digest"]
    assert [one["key"] for one in third["files"]] == [one["key"] for one in oldest["files"]], "stored once"
    assert third["shipped"]["demo"] == {"open": 0, "delivered": 1, "features": 3, "fingerprints": [first]}
    assert hosts.well("gateway", "verify", "--deep")
    assert "shoes@3 in lake shop: in use" in hosts.well("box", "models", "shoes")
    assert "demo" in hosts.well("box", "models")
    assert "follows shoes@3 in lake shop" in hosts.well("box", "config", "check")
    like = train_head._of_config(argparse.Namespace(config=hosts.folder / "box" / "hathi.toml", like="demo"))
    assert Path(like.net).read_bytes() == NET.read_bytes(), "a head stands on the net in use"
    image = hosts.folder / "asked.png"
    image.write_bytes(picture(1))
    assert "of 3 items" in hosts.well("gateway", "similar", "7", "--image", str(image))


def test_the_same_files_by_hand_or_by_promotion_give_the_same_fingerprint(hosts: Hosts) -> None:
    weights = hosts.weights(1)
    hosts.write("gateway", f'net = "{NET}"\nweights = "{weights}"')
    hosts.write("box", f'net = "{NET}"\nweights = "{weights}"')
    hosts.go_round()
    before = hosts.prints()
    hosts.write("gateway")
    hosts.write("box")
    assert "hathi backfill" not in hosts.promote(1)
    hosts.refs("b.jsonl", "dddd")
    hosts.go_round()
    assert hosts.prints() == dict.fromkeys(before, 4)
    assert {plan.kind for plan in hosts.plans()} == {"source"}, "nothing is computed anew"


def test_a_shipment_keeps_the_promotion_that_it_was_planned_with(hosts: Hosts) -> None:
    """Two boxes on either side of a promotion: an open shipment is computed with the older one by both."""
    hosts.write("box-late")
    hosts.promote(1)
    hosts.well("gateway", "run", "ship")
    hosts.promote(2)
    hosts.refs("b.jsonl", "dddd", "eeeee")
    hosts.well("gateway", "run", "ship")
    planned = {str(one.expects.promoted): one.expects.fingerprint for one in hosts.plans() if one.expects}
    assert sorted(planned) == ["shoes@1", "shoes@2"]
    hosts.go_round("box-late", "box")
    assert hosts.prints() == {planned["shoes@1"]: 3, planned["shoes@2"]: 2}
    assert not list((hosts.folder / "bucket/shop/h").glob("expects/*")), "the gateway took nothing back"


def test_a_model_that_is_not_good_enough_is_refused_with_both_figures(hosts: Hosts) -> None:
    hosts.promote(1, "--figures", "accuracy=0.93,loss=0.2")
    worse = [
        "promote",
        "demo",
        "--net",
        str(NET),
        "--weights",
        str(hosts.weights(2)),
        "--figures",
        "accuracy=0.91,loss=0.1",
    ]
    refused = hosts.hathi("box", *worse, "--least", "accuracy=0.92")
    assert refused.returncode == 3
    assert "accuracy is 0.91, and at least 0.92 is wanted" in refused.stderr
    refused = hosts.hathi("box", *worse, "--against", "current")
    assert refused.returncode == 3
    assert "accuracy is 0.91, and that of the model in use is 0.93" in refused.stderr
    assert "loss" not in refused.stderr, "a smaller loss is no worse"
    assert "--yes" in refused.stderr
    assert len(hosts.promotions()) == 1
    unknown = hosts.hathi("box", *worse, "--least", "f1=0.5")
    assert unknown.returncode == 3
    assert "it has no figure f1, and at least 0.5 is wanted (figures: accuracy, loss)" in unknown.stderr
    assert "though accuracy is 0.91" in hosts.well("box", *worse, "--least", "accuracy=0.92", "--yes")


def test_of_two_promotions_at_once_one_is_in_use_and_the_other_is_told(hosts: Hosts) -> None:
    hosts.promote(1)
    words = [["promote", "demo", "--net", str(NET), "--weights", str(hosts.weights(seed))] for seed in range(2, 8)]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda some: hosts.hathi("box", *some), words))
    assert set(codes := [one.returncode for one in done]) <= {0, 3}
    assert len(hosts.promotions()) == 1 + codes.count(0), "each number has one file, and nobody wrote over another"
    for one in done:
        if one.returncode == 3:
            assert "was first, and put shoes@" in one.stderr
    named = {file.key for path in hosts.promotions() for file in body_of(Promotion, path.read_bytes(), str(path)).files}
    stored = {str(path.relative_to(hosts.folder / "bucket")) for path in (hosts.folder / "bucket/shop/d/m").glob("*/*")}
    assert stored == named, "who was second leaves nothing behind"


def test_a_promotion_while_a_back_fill_runs_is_said_and_mixes_nothing(hosts: Hosts) -> None:
    hosts.promote(1)
    hosts.go_round()
    hosts.promote(2)
    hosts.well("gateway", "backfill", "demo")
    assert "a back-fill goes on as it was planned: set demo by shoes@2: 1 open" in hosts.promote(3)
    (going,) = json.loads(hosts.well("gateway", "status", "--json"))["backfills"]
    assert (going["set"], going["by"], going["images"], going["computed"], going["snapshots"]) == (
        "demo", "shoes@2", 3, 0, 1
    )  # fmt: skip
    assert "back-fill of demo by shoes@2: 0 of 3 images (0 %), 0 of 1 snapshot delivered" in hosts.well(
        "gateway", "status"
    )
    hosts.well("box", "report", "--out", f"{hosts.folder}/report.html")
    assert "Computed anew: under way" in (hosts.folder / "report.html").read_text()
    hosts.go_round()
    assert json.loads(hosts.well("gateway", "status", "--json"))["backfills"] == []
    assert sorted(hosts.prints().values()) == [3, 3]
    hosts.well("gateway", "backfill", "demo")
    hosts.go_round()
    assert sorted(hosts.prints().values()) == [3, 3, 3]
    by_shipment = {found["shipment"]: set() for found in hosts.rows()}  # type: dict[str, set[str]]
    for found in hosts.rows():
        by_shipment[found["shipment"]].add(found["fingerprint"])
    assert [len(prints) for prints in by_shipment.values()] == [1, 1, 1]


def test_a_model_whose_files_were_lost_is_named_and_its_shipments_wait(hosts: Hosts) -> None:
    hosts.promote(1)
    hosts.well("gateway", "run", "ship")
    shutil.rmtree(hosts.folder / "bucket/shop/d/m")
    shutil.rmtree(hosts.folder / "box/state/models", ignore_errors=True)
    failed = hosts.hathi("box", "run", "compute", "aggregate")
    assert "cannot compute set demo by shoes@1" in failed.stdout + failed.stderr
    assert "a promoted model needs it" in failed.stdout + failed.stderr
    assert "lost: shop/d/m/" in hosts.well("box", "models", "shoes")
    shutil.rmtree(hosts.folder / "gateway/state/models")
    hosts.refs("b.jsonl", "dddd")
    silent = hosts.hathi("gateway", "run", "ship")
    assert "ships nothing for set demo" in silent.stdout + silent.stderr
    assert len(hosts.plans()) == 1
    checked = hosts.hathi("gateway", "verify")
    assert "shop/d/m/" in checked.stdout
    assert "shoes@2 is in use" in hosts.promote(1), "the same files once more"
    hosts.go_round()
    assert list(hosts.prints().values()) == [4], "what waited goes on, by the hash of its files"


def test_a_set_without_a_promotion_waits_and_says_what_to_do(hosts: Hosts) -> None:
    done = hosts.hathi("gateway", "run", "ship")
    assert done.returncode == 0, "it waits for a person: nothing is wrong"
    assert "model shoes was never promoted in lake shop" in done.stdout + done.stderr
    assert "hathi promote MODEL SET" in done.stdout + done.stderr
    assert not (hosts.folder / "bucket/shop/c").exists()
    hosts.promote(1)
    hosts.go_round()
    assert list(hosts.prints().values()) == [3]


def test_what_cannot_serve_is_refused_before_anything_is_written(hosts: Hosts, tmp_path: Path) -> None:
    other = tmp_path / "other.prototxt"
    other.write_text(NET.read_text().replace('"features"', '"other"'))
    refused = hosts.hathi("box", "promote", "demo", "--net", str(other), "--weights", str(hosts.weights(1)))
    assert refused.returncode == 2
    assert "the model cannot serve set demo" in refused.stderr
    bare = hosts.hathi("box", "promote", "demo", "--net", str(NET))
    assert bare.returncode == 2
    assert "has no weights" in bare.stderr
    for words, says in (
        (("demo",), "which model, for which set?"),
        (("nothing-000000000000", "demo"), "no training nothing-000000000000"),
        (("shoes@7", "demo"), "there is no promotion shoes@7"),
        (("demo", "--net", str(NET), "--figures", "accuracy"), "is no figure"),
        (("other", "--net", str(NET)), "no set other"),
    ):
        done = hosts.hathi("box", "promote", *words)
        assert done.returncode in (1, 2), words
        assert says in done.stderr
    assert not (hosts.folder / "bucket/shop/m").exists()


def test_a_box_without_the_models_engine_leaves_its_shipments_to_others(hosts: Hosts) -> None:
    hosts.write("box-bare", 'model = "shoes"\nengine = "pycaffe"')
    hosts.promote(1)
    hosts.well("gateway", "run", "ship")
    bare = hosts.hathi("box-bare", "run", "compute", "aggregate")
    assert bare.returncode != 0
    assert "pycaffe" in bare.stdout + bare.stderr
    hosts.go_round()
    assert list(hosts.prints().values()) == [3]


def test_workers_of_a_run_compute_with_the_promotion_that_was_planned(hosts: Hosts) -> None:
    hosts.write("box-two", workers=2)
    hosts.promote(1)
    hosts.well("gateway", "run", "ship")
    hosts.promote(2)
    hosts.refs("b.jsonl", "dddd", "eeeee")
    hosts.go_round("box-two")
    planned = {one.expects.fingerprint: 0 for one in hosts.plans() if one.expects}
    assert set(hosts.prints()) == set(planned)
    assert len(planned) == 2


PAGE = ROOT / "docs" / "models.md"
OURS = ((r"\b[0-9a-f]{12}\b", "F"), (r"\d{8}T\d{6}Z", "V"), (r"\d{4}-\d\d-\d\d \d\d:\d\d", "T"), (r"\S+@[\w.-]+$", "W"))
"""What is another on each day and host: fingerprints, versions, times, who."""


def test_the_page_of_models_shows_what_its_commands_print(tmp_path: Path) -> None:
    (block,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    shutil.copy(NET, tmp_path / "deploy.prototxt")
    for seed, name in ((1, "first"), (2, "second")):
        random_features.write(tmp_path / f"{name}.caffemodel", seed)
    (tmp_path / "lake" / "refs").mkdir(parents=True)
    (tmp_path / "lake" / "refs" / "shop.jsonl").write_text(row("sku-1", picture(1)))
    lines = [
        'state = "state"',
        "[bucket]",
        'url = "bucket"',
        "[logs]",
        'folder = "logs"',
        "[lakes.main]",
        'url = "lake"',
    ]
    lines += ["[[lakes.main.sources]]", 'path = "refs"', "[sets.shoes]", 'model = "shoes"', 'blob = "features"']
    (tmp_path / "hathi.toml").write_text("\n".join([*lines, 'root = "features"']))
    given = {**environ(), "HATHI_CONFIG": str(tmp_path / "hathi.toml"), "PYTHONPATH": str(ROOT)}
    typed = 0
    for part in block.split("$ hathi ")[1:]:
        command, _, shown = part.partition("\n")
        words = [sys.executable, "-m", "pipeline.cli.main", *shlex.split(command)]
        done = subprocess.run(words, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=120)
        assert done.returncode == (3 if "not promoted" in shown else 0), done.stdout + done.stderr
        if command != "run":
            assert _plain(done.stdout + done.stderr) == _plain(shown), command
        typed += 1
    assert typed == 8


def _plain(text: str) -> list[str]:
    found = []
    for line in text.splitlines():
        for pattern, instead in OURS:
            line = re.sub(pattern, instead, line)
        found.append(" ".join(line.split()))
    return found
