"""What computes needs torch; without it those tests are left out; where everything is demanded that is a failure."""

from __future__ import annotations

from tests.unit.training.conftest import MISSING

collect_ignore_glob = ["test_served_*.py"] if MISSING else []
