"""Of what a program died: real processes and real kills; what the kernel and the boot say is given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.process.deaths import Life, cause_of, life_in
from pipeline.process.host import boot_id, host_name
from pipeline.process.lock import holder, left_behind, running_file

HOLDS = """
import sys, time
from pathlib import Path
from pipeline.process.lock import locked, running_file
with locked(Path(sys.argv[1]), "compute"), running_file(Path(sys.argv[1]), print):
    print("holds", flush=True)
    time.sleep(120)
"""


def killed(state: Path, number: signal.Signals, *, seen: bool) -> int:
    """A program that a signal ends while it holds its lock; its process.  seen: its parent writes down how it ended."""
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(state)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"holds\n"
        assert f"pid {process.pid} since " in str(holder(state, "compute"))
        assert "boot" not in str(holder(state, "compute")), "that line is for whoever asks for its cause of death"
        process.send_signal(number)
        process.wait(60)
    if seen:
        (state / "compute.ended").write_text(f"pid {process.pid} exit {128 + number}\n")
    return process.pid


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A kernel's log in which nobody was killed."""
    path = tmp_path / "kmsg"
    path.write_text("6,1,1,-;usb 1-1: new device\n")
    return path


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_what_the_parent_saw_is_told_by_name(tmp_path: Path, number: signal.Signals) -> None:
    process = killed(tmp_path, number, seen=True)
    left = left_behind(tmp_path, "compute")
    assert left.startswith(f"ended unexpectedly (pid {process} since ")
    assert f"): killed by {number.name}" in left
    assert ("memory" in left) == (number == signal.SIGKILL)
    said: list[str] = []
    with running_file(tmp_path, said.append):
        pass
    (line,) = said
    assert line.startswith(f"the last run died: pid {process} on {host_name()} since ")
    assert f"killed by {number.name}" in line


def test_where_nobody_saw_it_the_kernel_is_asked(tmp_path: Path, kernel: Path) -> None:
    process = killed(tmp_path, signal.SIGKILL, seen=False)
    assert "): it ended without a word, as kill -9 ends a process; out of memory?" in left_behind(tmp_path, "compute")
    life = Life(process, boot_id())
    assert "does not name it" in cause_of(life, tmp_path, log=kernel)
    kernel.write_text(f"3,2,2,-;Out of memory: Killed process {process} (python) total-vm:1kB\n")
    assert f"the kernel says: Out of memory: Killed process {process}" in cause_of(life, tmp_path, log=kernel)


def test_a_host_that_has_restarted_is_the_cause(tmp_path: Path, kernel: Path) -> None:
    process = killed(tmp_path, signal.SIGKILL, seen=False)
    life = life_in(tmp_path / "compute.lock")
    assert life is not None
    assert (life.process, life.boot) == (process, boot_id())
    assert cause_of(life, tmp_path, boot="00c0ffee", log=kernel) == "this host has restarted since"
    lock = tmp_path / "compute.lock"
    lock.write_text(lock.read_text().replace(boot_id(), "00c0ffee"))
    assert left_behind(tmp_path, "compute").endswith("): this host has restarted since")


def test_what_another_process_died_of_and_what_an_older_hathi_left_tell_nothing(tmp_path: Path) -> None:
    process = killed(tmp_path, signal.SIGKILL, seen=False)
    (tmp_path / "ship.ended").write_text(f"pid {process + 1} exit 139\n")
    (tmp_path / "deliver.ended").write_bytes(b"\xff\x00 nonsense")
    (tmp_path / "compute.ended").mkdir()
    (tmp_path / "aggregate.ended").write_text(f"pid {process} exit 139\n")
    os.utime(tmp_path / "aggregate.ended", (1.0, 1.0))
    assert "SIGSEGV" not in left_behind(tmp_path, "compute")
    (tmp_path / "compute.lock").write_text("pid 7 since then\n")
    assert left_behind(tmp_path, "compute") == "ended unexpectedly (pid 7 since then)"
    body = {"pid": os.getpid(), "host": "another", "boot": "0", "start": "then", "version": "0"}
    (tmp_path / "_PIPE_RUNNING").write_text(json.dumps(body))
    said: list[str] = []
    with running_file(tmp_path, said.append):
        pass
    assert said == [f"the last run died: pid {os.getpid()} on another since then; this run continues its work"]
