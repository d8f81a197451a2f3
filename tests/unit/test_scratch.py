"""The folder that a process has for files on their way: private, its own, and gone when its owner is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import PermanentError
from pipeline.process.host import boot_id, host_name, this_process
from pipeline.process.scratch import SPILL, folder_of, is_left, of_a_worker, private_folder, scratch

HERE, BOOT = host_name(), boot_id()
GONE = "999999999.1.abcdef"
HOLDER = """
import sys, time
from pathlib import Path
from pipeline.process.host import this_process
from pipeline.process.scratch import scratch

with scratch(Path(sys.argv[1]), sys.argv[2] or this_process().name) as folder:
    (folder / "window-1").mkdir()
    (folder / "window-1" / "features").write_text("complete URLs")
    print(folder, flush=True)
    time.sleep(600)
"""


def held(above: Path, name: str = "") -> tuple[subprocess.Popen[str], Path]:
    """Another process, at work in its folder; name: as it calls itself."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(above), name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_it_is_this_users_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    with scratch(tmp_path / "state" / "spill", this_process().name) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        (folder / "something").touch()
    assert list((tmp_path / "state" / "spill").iterdir()) == []


def test_what_a_killed_process_left_is_gone_at_the_next_start_and_not_before(tmp_path: Path) -> None:
    process, left = held(tmp_path)
    try:
        folder_of(tmp_path, this_process().name)
        assert (left / "window-1" / "features").exists(), "it runs"
        process.send_signal(signal.SIGSTOP)
        folder_of(tmp_path, this_process().name)
        assert (left / "window-1" / "features").exists(), "it stands still, and lives"
    finally:
        end(process)
    assert left.exists()
    folder_of(tmp_path, this_process().name)
    assert not left.exists()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        (f"{HERE}.{BOOT}.{GONE}", True),
        (f"{HERE}.00000001.{GONE}", True),  # before the last boot
        (f"elsewhere.00000001.{GONE}", False),
        pytest.param(f"elsewhere.00000001.{os.getpid()}.1.abcdef", False, id="elsewhere-a number that runs here"),
        (f"other.pod.{BOOT}.{GONE}", False),
        ("tmp1234", True),
    ],
)
def test_of_another_host_nothing_is_deleted_though_its_process_numbers_mean_nothing_here(
    tmp_path: Path, name: str, left: bool
) -> None:
    (tmp_path / name / "window-1").mkdir(parents=True)
    os.utime(tmp_path / name, (0, 0))
    folder_of(tmp_path, this_process().name)
    assert (tmp_path / name).exists() is not left


@pytest.mark.parametrize("name", [f"pod-1.{BOOT}.{GONE}", f"{HERE}.{BOOT}.{GONE}", f"{HERE}.00000001.{GONE}"])
def test_while_its_lock_is_held_it_lives_whatever_its_name_seems_to_say(tmp_path: Path, name: str) -> None:
    """Containers have process numbers of their own; two hosts may have the same name."""
    process, folder = held(tmp_path, name)
    try:
        folder_of(tmp_path, this_process().name)
        assert (folder / "window-1" / "features").exists()
    finally:
        end(process)
    assert is_left(folder)
    folder_of(tmp_path, this_process().name)
    assert not folder.exists()


def test_one_process_may_have_two(tmp_path: Path) -> None:
    with scratch(tmp_path, this_process().name) as one, scratch(tmp_path, this_process().name) as two:
        assert one != two
        folder_of(tmp_path, this_process().name)
        assert one.exists()
        assert two.exists()


def test_workers_of_a_cluster_have_a_folder_for_each_kind_so_that_none_clears_up_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A barista's folder has no process's name, as what dead ones leave has none."""
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    barista = of_a_worker("barista") / "job.interface"
    barista.write_text("where it is")
    left = of_a_worker(SPILL) / GONE
    left.mkdir()
    folder_of(of_a_worker(SPILL), this_process().name)
    assert barista.exists()
    assert not left.exists()


def test_a_folder_in_a_temporary_folder_for_all_is_made_and_taken_by_its_user_alone(tmp_path: Path) -> None:
    mine = private_folder(tmp_path, "hathi")
    assert mine.stat().st_mode & 0o777 == 0o700
    assert private_folder(tmp_path, "hathi") == mine
    mine.chmod(0o755)
    with pytest.raises(PermanentError, match="can be changed by other users"):
        private_folder(tmp_path, "hathi")
    mine.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    mine.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermanentError, match="can be changed by other users"):
        private_folder(tmp_path, "hathi")
