"""An operator's rounds as typed: quarantine, ship --again, backfill, prune; two lakes in one bucket; sets that go."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.ledger.layout import Keys, ShipmentName, Task
from pipeline.ledger.manifest import Attempt
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row


@dataclass(frozen=True)
class Site:
    """A configuration with folders as stores, and `hathi` over it."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "hathi.toml"

    def write(self, lakes: tuple[str, ...] = ("shop",), sets: tuple[str, ...] = ("demo",)) -> None:
        lines = ['state = "state"', "[bucket]", 'url = "bucket"', "[logs]", 'folder = "logs"', "[compute]"]
        lines += ["strikes = 1", "lost = 1", "strikes_alone = 1", "lost_alone = 1"]
        for lake in lakes:
            lines += [f"[lakes.{lake}]", f'url = "{lake}"', f"[[lakes.{lake}.sources]]", 'path = "refs"']
        for one in sets:
            lines += [f"[sets.{one}]", f'net = "{ROOT}/sample/random_features.prototxt"', 'weights = "w.caffemodel"']
            lines += ['blob = "features"', f'root = "features-{one}"']
        self.config.write_text("\n".join(lines))

    def refs(self, lake: str, name: str, *items: str) -> None:
        path = self.folder / lake / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(row(item, picture(len(item) + index)) for index, item in enumerate(items)))

    def hathi(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.config)],
            cwd=ROOT,
            env=environ(),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def features(self, lake: str = "shop", one: str = "demo") -> list[tuple[str, str]]:
        files = sorted((self.folder / lake / f"features-{one}").glob("*/*/features/*.parquet"))
        return [(file.parts[-4], found["external_id"]) for file in files for found in pq.read_table(file).to_pylist()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    random_features.write(tmp_path / "w.caffemodel")
    made.write()
    return made


def give_up_a_batch(site: Site) -> ShipmentName:
    """Two attempts whose processes are gone, the second alone: the next run holds the batch."""
    from pipeline.nets.features import FeatureNet
    from pipeline.settings import load

    assert site.hathi("run", "ship").returncode == 0
    (plan,) = (site.folder / "bucket/shop/c").glob("*/plan")
    name = ShipmentName.parse(plan.parent.name)
    fingerprint = FeatureNet(load(site.config, {}).sets["demo"]).fingerprint
    for number in (1, 2):
        key = Keys("shop").attempt(name, Task.batch(fingerprint, 0), number)
        path = site.folder / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Attempt(process="dead", at="20260101T000000Z", alone=number == 2).encode())
    return name


def test_a_held_batch_is_listed_shown_and_released(site: Site) -> None:
    site.refs("shop", "a.jsonl", "one", "two")
    name = give_up_a_batch(site)
    held = site.hathi("run")
    assert held.returncode == 3, held.stdout + held.stderr
    assert site.features() == []
    listed = site.hathi("quarantine", "list")
    assert f"{name}.0  2 refs" in listed.stdout
    shown = site.hathi("quarantine", "show", f"{name}.0")
    assert "attempt 2 by dead alone: ended without a result (killed or crashed)" in shown.stdout
    assert "one" in shown.stdout
    released = site.hathi("quarantine", "release", f"{name}.0")
    assert released.returncode == 0
    done = site.hathi("run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {item for _, item in site.features()} == {"one", "two"}
    assert "no batch is held" in site.hathi("quarantine", "list").stdout
    assert site.hathi("quarantine", "drop", f"{name}.0").returncode == 2


def test_a_held_batch_is_dropped(site: Site) -> None:
    site.refs("shop", "a.jsonl", "one")
    give_up_a_batch(site)
    assert site.hathi("run").returncode == 3
    assert site.hathi("quarantine", "drop", "--all", "--yes").returncode == 0
    assert site.hathi("run").returncode == 0
    assert site.features() == []


def test_a_snapshot_is_shipped_again_and_a_set_back_filled(site: Site) -> None:
    site.refs("shop", "a.jsonl", "one", "two")
    assert site.hathi("run").returncode == 0
    again = site.hathi("ship", "--again", "7").stdout
    assert "requested as" in again
    assert "the next run, or a daemon, ships it" in again
    assert site.hathi("run").returncode == 0
    assert len(site.features()) == 4
    assert "requested as" in site.hathi("backfill", "demo").stdout
    assert site.hathi("run").returncode == 0
    names = {ShipmentName.parse(name).round for name, _ in site.features()}
    assert names == {0, 1, 2}
    unknown = site.hathi("ship", "--again", "no/such/source")
    assert unknown.returncode == 2
    assert "nothing was shipped yet" in unknown.stderr


def test_a_dry_run_of_prune_says_what_a_run_then_does(site: Site) -> None:
    site.refs("shop", "a.jsonl", "one")
    assert site.hathi("run").returncode == 0
    stray = site.folder / "bucket/shop/d/20200101T000000Z.000.00000.0-0123456789ab/x/y"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of a process that was killed")
    import os

    os.utime(stray, (1, 1))
    dry = site.hathi("prune", "--dry-run")
    assert "20200101T000000Z.000.00000.0-0123456789ab/x/y" in dry.stdout
    assert "1 object would be deleted" in dry.stdout
    assert stray.exists()
    assert "1 object deleted" in site.hathi("prune", "--yes").stdout
    assert site.hathi("prune", "--dry-run").stdout == "nothing would be deleted\n"
    assert not stray.exists()


def test_two_lakes_share_a_bucket_and_two_sets_a_lake(site: Site) -> None:
    site.write(lakes=("shop", "mall"), sets=("demo", "other"))
    site.refs("shop", "a.jsonl", "one")
    site.refs("mall", "a.jsonl", "one", "two")
    done = site.hathi("run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["features"] == 6
    for one in ("demo", "other"):
        assert [item for _, item in site.features("shop", one)] == ["one"]
        assert {item for _, item in site.features("mall", one)} == {"one", "two"}
    folders = {path.name for path in (site.folder / "bucket").iterdir() if not path.name.startswith(".")}
    assert folders == {"shop", "mall"}


def test_a_set_that_goes_while_its_shipments_are_open_is_named_and_the_rest_goes_on(site: Site) -> None:
    site.write(sets=("demo", "old"))
    site.refs("shop", "a.jsonl", "one")
    assert site.hathi("run", "ship").returncode == 0
    site.write(sets=("demo",))
    done = site.hathi("run")
    assert done.returncode in (0, 1), done.stderr
    assert "this configuration has no set old" in done.stderr
    assert [item for _, item in site.features()] == ["one"]
    site.write(sets=("demo", "old"))
    assert site.hathi("run").returncode == 0
    assert [item for _, item in site.features("shop", "old")] == ["one"]
