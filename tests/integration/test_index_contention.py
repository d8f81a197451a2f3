"""Four processes deliver to one lake, are killed at any instant, and a reader follows the index all the while.

CONTENTION_SECONDS=60 CONTENTION_SEED=7 pytest -s tests/integration/test_index_contention.py is the long form.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.environment import environ
from tests.integration.conftest import ROOT

SECONDS = float(os.environ.get("CONTENTION_SECONDS", "12"))
SEED = int(os.environ.get("CONTENTION_SEED", "1"))


def test_no_delivery_is_lost_and_the_index_never_goes_back_whoever_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.index_actors", str(tmp_path), str(SECONDS), str(SEED)],
        cwd=ROOT,
        env={**environ(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60 + 3 * SECONDS,
    )
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    print(f"{SECONDS:.0f} s, seed {SEED}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    assert counts["kills"] >= SECONDS
    assert counts["deliveries"] == counts["listed"] >= 10 * SECONDS
    assert counts["version"] == counts["versions"]
    assert counts["reads"] >= 10 * SECONDS
