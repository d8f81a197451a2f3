"""`hathi run --once`, as cron calls it: a new process each time, which must not see only what comes first."""

from __future__ import annotations

from pathlib import Path

from pipeline.runner import SHIPMENTS_OF_A_POLL
from tests.integration.conftest import OwnList, picture, row


def test_one_run_from_cron_looks_at_all_that_is_open_not_only_at_what_comes_first(own: OwnList, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    number = SHIPMENTS_OF_A_POLL + 6
    for one in range(number):
        (folder / f"{one:03d}.jsonl").write_text(row(f"sku-{one}", picture(one)))
    fast = ("--set", "bucket.fsync=false")
    for stages in (["ship"], ["compute"], ["aggregate"], ["deliver"]):
        done = own.run(*fast, "--once", *stages, refs=str(folder))
        assert done.returncode == 0, done.stderr
    assert len(list(own.out.glob("*/7/_SUCCESS"))) == number
    assert "nothing to do" in own.run(*fast, refs=str(folder)).stdout
