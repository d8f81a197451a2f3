"""The short form of `python -m tests.crash.random_kills`; KILLS=300 KILLS_SEED=7 is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.crash.random_kills import run

KILLS = int(os.environ.get("KILLS", "15"))
SEED = int(os.environ.get("KILLS_SEED", "1"))


def test_killed_at_any_instant_what_is_delivered_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run(tmp_path, SEED, KILLS, set())
    with capsys.disabled():
        print(f"\n{ran.told()}")
    assert ran.wrong == ""
    assert ran.kills == KILLS
