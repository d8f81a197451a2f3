"""The short form of `python -m tests.crash.random_kills`; KILLS=300 KILLS_SEED=7 is the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.crash.random_kills import run

KILLS = int(os.environ.get("KILLS", "15"))
SEED = int(os.environ.get("KILLS_SEED", "1"))


def test_killed_at_any_instant_what_is_delivered_is_the_same(tmp_path: Path, figures: Callable[[str], None]) -> None:
    ran = run(tmp_path, SEED, KILLS, set())
    figures(ran.told())
    assert ran.wrong == ""
    assert ran.kills == KILLS
