"""`hathi verify` and `hathi why` as people call them, over a real run with images that travel inline."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.process.lock import locked
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row


def hathi(*words: str) -> subprocess.CompletedProcess[str]:
    """stdout and stderr are kept apart."""
    command = [sys.executable, "-m", "pipeline.cli.main", *words]
    return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, a bucket and a lake in which three items were delivered."""
    top = tmp_path_factory.mktemp("delivered")
    random_features.write(top / "random.caffemodel")
    (top / "lake/refs").mkdir(parents=True)
    rows = [row("a", picture(1)), row("b", picture(2)), row("c", b"no image", partner=8)]
    (top / "lake/refs/refs.jsonl").write_text("\n".join(rows) + "\n")
    (top / "h.toml").write_text(f"""
state = "state"
logs.folder = "logs"
[bucket]
url = "bucket"
[lakes.main]
url = "lake"
[[lakes.main.sources]]
path = "refs"
[sets.demo]
net = "{ROOT}/sample/random_features.prototxt"
weights = "random.caffemodel"
blob = "features"
root = "features"
""")
    done = hathi("run", "--config", str(top / "h.toml"))
    assert done.returncode == 0, done.stderr
    return top


@pytest.fixture
def copy(delivered: Path, tmp_path: Path) -> Path:
    """One's own to damage."""
    shutil.copytree(delivered, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_sound_run_verifies_with_exit_code_0(delivered: Path) -> None:
    done = hathi("verify", "--deep", "--config", str(delivered / "h.toml"))
    assert (done.returncode, done.stdout) == (0, "everything that was written exists and adds up\n")
    assert "verify: " in done.stderr, "progress"
    done = hathi("verify", "main", "--json", "--config", str(delivered / "h.toml"))
    assert json.loads(done.stdout) == {"counts": {"damage": 0, "information": 0, "warning": 0}}


def test_damage_is_exit_code_1_with_where_and_what_to_do(copy: Path) -> None:
    path = next((copy / "lake/features").glob("*/7/features/part-00000.parquet"))
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    config = str(copy / "h.toml")
    assert hathi("verify", "--config", config).returncode == 0, "lengths are right"
    done = hathi("verify", "--deep", "--config", config)
    assert done.returncode == 1
    first, second, third, last = done.stdout.splitlines()
    assert first == f"damage: file_hash: main: {path.relative_to(copy / 'lake')}"
    assert "its SHA-256 is" in second
    assert third.startswith("    do: restore the file from a copy")
    assert last == "damage: 1, warnings: 0, notes: 0"
    done = hathi("verify", "--deep", "--json", "--config", config)
    finding, counts = map(json.loads, done.stdout.splitlines())
    assert (finding["level"], finding["kind"], counts["counts"]["damage"]) == ("damage", "file_hash", 1)


def test_repair_makes_the_index_anew_and_refuses_while_a_stage_runs_or_estop_is_engaged(copy: Path) -> None:
    config = str(copy / "h.toml")
    (copy / "lake/features/outputByPartner").unlink()
    assert hathi("verify", "--config", config).returncode == 1
    with locked(copy / "state", "deliver"):
        refused = hathi("verify", "--repair", "--config", config)
    assert refused.returncode == 1
    assert "deliver runs already" in refused.stderr
    (copy / "state/ESTOP").touch()
    assert hathi("verify", "--repair", "--config", config).returncode == 4
    assert hathi("verify", "--config", config).returncode == 1, "looking is allowed"
    (copy / "state/ESTOP").unlink()
    done = hathi("verify", "--repair", "--config", config)
    assert done.returncode == 0, done.stdout
    first, last = done.stdout.splitlines()
    assert first.startswith("repaired features/outputByPartner: rebuilt from the manifests as version 2: 2 partners")
    assert last == "everything that was written exists and adds up"


def test_why_tells_the_story_of_an_item_on_a_terminal_and_to_programs(delivered: Path) -> None:
    config = str(delivered / "h.toml")
    done = hathi("why", "8", "c", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "8 bytes, sent with the ref (external id c)" in done.stdout
    assert "no feature: not_image" in done.stdout
    body = json.loads(hathi("why", "7", "a", "--json", "--config", config).stdout)
    (chapter,) = body["chapters"]
    assert chapter["refs"][0]["tries"][0]["number"] == 1
    assert body["consumers_see"][0]["shipment"] == chapter["shipment"]


def test_an_unknown_lake_is_a_usage_error(delivered: Path) -> None:
    done = hathi("verify", "nowhere", "--config", str(delivered / "h.toml"))
    assert done.returncode == 2
    assert "lakes are: main" in done.stderr
