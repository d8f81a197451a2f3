"""`hathi dataset make` killed at each of its steps, by a real SIGKILL: there is no dataset, or a whole one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.training.dataset.manifest import read_manifest
from tests.integration.conftest import ROOT, environ
from tests.unit.training.databases import encoded, images
from tests.unit.training.delivered_sets import deliver

NAMES = [f"sku-{at}" for at in range(60)]
POINTS = {
    "before the first pass": "delivered.Deliveries.keys",
    "while rows are dealt out": "assembling.Assembly._deal",
    "while a range is written": "assembling._Shards.write",
    "at a shard's end": "assembling._Shards._end",
    "before the manifest": "manifest.Manifest.write",
}
KILLED = """
import os, signal, sys
from pipeline.cli.main import main
from pipeline.training.dataset import assembling, delivered, folders, manifest
assembling.RANGE_BYTES, assembling.SHARD_BYTES, assembling._AT_ONCE = 1000, 2000, 400
place, times = sys.argv[1], int(sys.argv[2])
if place == "before the rename":
    folders.os.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
elif place:
    module, kind, name = place.split(".")
    owner = getattr(globals()[module], kind)
    own = getattr(owner, name)
    def counted(*given, **named):
        global times
        times -= 1
        if times < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(*given, **named)
    setattr(owner, name, counted)
sys.exit(main(sys.argv[3:]))
"""


def run(folder: Path, out: str, place: str = "", times: int = 0) -> int:
    words = [
        "dataset",
        "make",
        str(folder / out),
        "--labels",
        str(folder / "labels.csv"),
        "--images",
        str(folder / "out"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(times), *words], cwd=ROOT, env=environ(), timeout=100
    )
    return done.returncode


@pytest.fixture
def site(tmp_path: Path) -> Path:
    made = images(len(NAMES), (3, 6, 6))
    deliver(tmp_path, 1, {name: encoded(one) for name, one in zip(NAMES, made, strict=True)})
    rows = "".join(f"7,{name},{at % 3}\n" for at, name in enumerate(NAMES))
    (tmp_path / "labels.csv").write_text("partner_id,external_id,label\n" + rows)
    return tmp_path


def test_a_kill_at_any_step_leaves_no_dataset_and_the_next_run_leaves_nothing_else(site: Path) -> None:
    assert run(site, "whole") == 0
    wanted = read_manifest(site / "whole")
    assert len(wanted.shards) > 3
    places = [(place, times) for place in POINTS.values() for times in (0, 1)] + [("before the rename", 0)]
    killed = 0
    for place, times in places:
        code = run(site, "killed", place, times)
        if code == 0:  # this step has no second time
            (site / "killed").rename(site / f"done-{killed}")
            continue
        assert code == -signal.SIGKILL
        killed += 1
        assert not (site / "killed").exists(), place
        assert [path.name for path in site.glob(".killed-*")], "it was killed before it began"
    assert killed >= len(POINTS) + 1
    assert run(site, "killed") == 0
    assert not list(site.glob(".killed-*")), "what a killed run left stays for ever"
    found = read_manifest(site / "killed")
    assert found.shards == wanted.shards
    assert json.loads((site / "killed" / "_manifest.json").read_text())["law"]["examples"] == len(NAMES)


def test_two_at_once_leave_each_other_alone(site: Path) -> None:
    words = ["dataset", "make", str(site / "both"), "--labels", str(site / "labels.csv"), "--images", str(site / "out")]
    command = [sys.executable, "-m", "pipeline.cli.main", *words]
    both = [subprocess.Popen(command, cwd=ROOT, env=environ(), stderr=subprocess.DEVNULL) for _ in range(2)]
    codes = sorted(one.wait(timeout=100) for one in both)
    assert codes[0] == 0
    assert codes[1] in (0, 1, 2)
    assert read_manifest(site / "both").examples == len(NAMES)
    assert not list(site.glob(".both-*"))
