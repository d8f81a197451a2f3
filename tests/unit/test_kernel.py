"""What the kernel is asked about a process that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.process import kernel
from pipeline.process.kernel import killed_for_memory

RECORD = "6,1178,53163,-;Memory cgroup out of memory: Killed process 4711 (python) total-vm:1kB\n SUBSYSTEM=x\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "kmsg"
    path.write_text(RECORD)
    return path


def test_the_kernels_own_word_tells_that_memory_ran_out(log: Path) -> None:
    said = killed_for_memory(4711, log)
    assert said == (
        "out of memory; the kernel says: Memory cgroup out of memory: Killed process 4711 (python) total-vm:1kB"
    )


def test_another_process_is_not_taken_for_this_one(log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "OWN_GROUP", tmp_path / "none")
    assert killed_for_memory(471, log) == "out of memory? The kernel's log does not name it: perhaps somebody ended it"


def test_where_the_log_cannot_be_read_the_control_group_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/elsewhere\n0::/box\n")
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    monkeypatch.setattr(kernel, "OWN_GROUP", tmp_path / "cgroup")
    monkeypatch.setattr(kernel, "GROUPS", tmp_path)
    said = killed_for_memory(4711, tmp_path / "none")
    assert said == (
        "out of memory? The kernel's log cannot be read here, and its control group has seen 2 such ends: "
        "`sudo dmesg` tells"
    )


def test_the_kernels_own_log_is_read_to_its_end() -> None:
    assert killed_for_memory(2**31).startswith("out of memory? The kernel's log ")
