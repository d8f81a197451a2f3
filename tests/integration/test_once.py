"""`hathi run --once`, as cron calls it: a new process each time, which must not see only what comes first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pipeline.ledger.protocol import SHIPMENTS_OF_A_POLL
from pipeline.process.lock import locked
from tests.environment import environ
from tests.integration.conftest import ROOT, OwnList, picture, row


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


def test_cron_that_meets_a_run_is_quiet_and_a_person_is_told_who_has_the_lock(own: OwnList) -> None:
    own.refs.write_text(row("a", picture(1)))
    with locked(own.out / ".hathi" / "state", "aggregate"):
        cron = subprocess.run(
            own.command("--once", "compute", "aggregate"),
            cwd=ROOT,
            env=environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        person = own.run("compute", "aggregate")
    assert (cron.returncode, cron.stdout, cron.stderr) == (0, "", "")
    assert person.returncode == 1
    assert "aggregate runs already" in person.stderr
    assert f"pid {os.getpid()}" in person.stderr


def test_the_running_file_is_the_compute_boxes_alone(own: OwnList) -> None:
    own.refs.write_text(row("a", picture(1)))
    running = own.out / ".hathi" / "state" / "_PIPE_RUNNING"
    running.parent.mkdir(parents=True)
    running.write_text('{"pid": 1, "host": "here", "start": "2026-01-01 00:00:00"}')
    assert own.run("--once", "ship").returncode == 0
    assert running.exists()
    done = own.run("--once", "compute")
    assert done.returncode == 0
    assert "the last run died: pid 1 on here since 2026-01-01 00:00:00" in done.stderr
    assert not running.exists()
