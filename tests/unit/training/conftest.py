"""Tests of the engine need torch; without it they are left out, and where everything is demanded that is a failure."""

from __future__ import annotations

import importlib.util
import os

WITH_TORCH = "test_engine_*.py"
MISSING = importlib.util.find_spec("torch") is None
if MISSING and os.environ.get("HATHI_DEMAND_SERVERS") == "1":
    raise RuntimeError("torch is not installed: run scripts/torch.sh")
collect_ignore_glob = [WITH_TORCH] if MISSING else []
