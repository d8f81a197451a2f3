"""A disk that is full before a training, or becomes full or read-only in it: told early, nothing torn, gone on from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.crash.test_training_kills import ROOT


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("disk")
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "tests.crash.training_disk", str(folder)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", ["command", "child"])
def test_a_disk_without_room_for_a_snapshot_is_found_before_the_first_iteration(
    kind: str, told: dict[str, Any]
) -> None:
    full, tight = told[f"{kind} begins with 0"], told[f"{kind} begins with 20480"]
    assert (full["code"], tight["code"]) == (2, 2)
    assert "No space left on device" in full["said"]
    assert re.search(r"a snapshot has [\d,]+ bytes, and [\d,]+ are free", tight["said"])
    for one in (full, tight):
        assert "Iteration 0" not in one["said"]
        assert not [name for name in one["left"] if name not in ("filler", "out/log.txt")]


@pytest.mark.parametrize("case", ["command full", "child full", "command read-only"])
def test_a_disk_that_fills_ends_a_training_at_once_and_the_same_command_goes_on(
    case: str, told: dict[str, Any]
) -> None:
    one, again = told[case], told[f"{case}, again"]
    assert one["code"] == 1  # not 2: nothing is wrong with what was asked for
    assert re.search("No space left on device|Read-only file system", one["said"])
    assert "the same command goes on from the last whole snapshot" in one["said"]
    assert "Traceback" not in one["said"] + again["said"]
    assert "unexpected" not in one["said"] + again["said"]
    assert not [name for name in one["left"] if name.rpartition("/")[2].startswith(".")]
    assert again["code"] == 0, again["said"][-2000:]
    if case != "child full":
        assert re.search(r"this training goes on at iteration \d+0\b", again["said"])
