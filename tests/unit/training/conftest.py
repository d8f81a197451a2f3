"""Tests of the engine need torch, those of descent numba; without them they are left out, and where everything is
demanded that is a failure."""

from __future__ import annotations

import importlib.util
import os

WITH_TORCH = "test_engine_*.py"
MISSING = importlib.util.find_spec("torch") is None
if MISSING and os.environ.get("HATHI_DEMAND_SERVERS") == "1":
    raise RuntimeError("torch is not installed: run scripts/torch.sh")
WITH_NUMBA = "test_descent*.py"
NO_NUMBA = importlib.util.find_spec("numba") is None
if NO_NUMBA and os.environ.get("HATHI_DEMAND_SERVERS") == "1":
    raise RuntimeError("numba is not installed: run scripts/linear.sh")
collect_ignore_glob = [*([WITH_TORCH] if MISSING else []), *([WITH_NUMBA] if NO_NUMBA else [])]
