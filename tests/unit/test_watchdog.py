"""Alive but hung: what counts as progress, and what a hung process leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.clock import Clock
from pipeline.process.watchdog import LOOKS, Watch, noting, watched
from pipeline.stores.local import LocalStore

LIMIT = 900.0
PAUSE = LIMIT / LOOKS


class Onlooker:
    """A watch, and a clock that moves from look to look."""

    def __init__(self, spill: Path | None = None) -> None:
        self.at = 0.0
        self.watch = Watch(LIMIT, Clock(now=lambda: self.at, monotonic=lambda: self.at), spill)

    def hung_after(self, seconds: float) -> float | None:
        """Look as often as due; after how many seconds it hung, None if it did not."""
        began = self.at
        while self.at - began < seconds:
            self.at += PAUSE
            if self.watch.hung():
                return self.at - began
        return None


def test_a_process_at_work_that_does_nothing_is_hung_after_its_time() -> None:
    onlooker = Onlooker()
    with onlooker.watch.working():
        hung = onlooker.hung_after(2 * LIMIT)
    assert hung is not None
    assert LIMIT <= hung <= LIMIT + 2 * PAUSE


def test_an_idle_process_is_never_hung() -> None:
    onlooker = Onlooker()
    assert onlooker.hung_after(100 * LIMIT) is None
    with onlooker.watch.working():
        assert onlooker.hung_after(LIMIT - PAUSE) is None
    assert onlooker.hung_after(100 * LIMIT) is None


def test_a_daemon_that_finds_nothing_in_each_of_its_turns_is_not_hung() -> None:
    onlooker = Onlooker()
    for _ in range(3000):
        with onlooker.watch.working():
            assert not onlooker.watch.hung()
            onlooker.at += 1.0


def test_whatever_is_noted_gives_the_whole_time_again() -> None:
    onlooker = Onlooker()
    with onlooker.watch.working():
        for _ in range(5):
            assert onlooker.hung_after(LIMIT - 2 * PAUSE) is None
            onlooker.watch.note()
        assert onlooker.hung_after(2 * LIMIT) is not None


def test_a_merge_that_only_writes_to_the_local_disk_is_not_hung(tmp_path: Path) -> None:
    onlooker = Onlooker(tmp_path)
    (tmp_path / "part").mkdir()
    with onlooker.watch.working(), (tmp_path / "part" / "features").open("wb") as file:
        for _ in range(5):
            assert onlooker.hung_after(LIMIT - 2 * PAUSE) is None
            file.write(b"row")
            file.flush()
        assert onlooker.hung_after(2 * LIMIT) is not None


def test_a_process_that_was_frozen_is_not_hung_when_it_wakes() -> None:
    onlooker = Onlooker()
    with onlooker.watch.working():
        assert not onlooker.watch.hung()
        onlooker.at += 10 * LIMIT
        assert not onlooker.watch.hung()
        assert onlooker.hung_after(2 * LIMIT) is not None


def test_calls_of_a_store_are_progress_and_a_large_file_may_take_its_time(tmp_path: Path) -> None:
    onlooker = Onlooker()
    store = noting(LocalStore(tmp_path / "store", fsync=False), onlooker.watch)
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 2**18 * 1000)
    with onlooker.watch.working():
        assert onlooker.hung_after(LIMIT - 2 * PAUSE) is None
        store.put("a/b", b"content")
        assert store.get("a/b") == b"content"
        assert [entry.key for entry in store.list("a/")] == ["a/b"]
        assert onlooker.hung_after(LIMIT - 2 * PAUSE) is None

        class Slow:
            def put(self, key: str, body: bytes | Path) -> None:
                assert onlooker.hung_after(LIMIT + 900) is None
                assert onlooker.hung_after(LIMIT) is not None

        noting(Slow(), onlooker.watch).put("a/c", large)


def test_a_call_that_fails_is_no_progress(tmp_path: Path) -> None:
    onlooker = Onlooker()
    store = noting(LocalStore(tmp_path), onlooker.watch)
    with onlooker.watch.working():
        assert onlooker.hung_after(LIMIT - 2 * PAUSE) is None
        with pytest.raises(Exception, match="nothing at"):
            store.get("absent")
        assert onlooker.hung_after(3 * PAUSE) is not None


def test_an_idle_process_leaves_no_file_behind(tmp_path: Path) -> None:
    with watched(Watch(0.6, Clock()), tmp_path / "run.stacks", print):
        threading.Event().wait(1.5)
    assert list(tmp_path.iterdir()) == []


HANG = """
import sys, threading, time
from pathlib import Path
from pipeline.clock import Clock
from pipeline.process.watchdog import Watch, watched

def say(text):
    print(text, flush=True)
    if "{log}" == "hangs":
        time.sleep(60)

def stuck_here():
    {stuck}

watch = Watch(0.5, Clock())
with watched(watch, Path(sys.argv[1]) / "run.stacks", say):
    with watch.working():
        time.sleep(0.2)  # one look at least
        stuck_here()
"""

WITH_THE_INTERPRETER = "import ctypes; ctypes.PyDLL(None).sleep(60)"


@pytest.mark.parametrize(
    ("stuck", "log", "code"),
    [
        ("threading.Lock().acquire() and threading.Event().wait()", "works", -signal.SIGKILL),
        ("threading.Event().wait()", "hangs", -signal.SIGKILL),
        (WITH_THE_INTERPRETER, "works", 1),
    ],
    ids=["a lock", "its log hangs too", "a library that keeps the interpreter"],
)
def test_a_hung_process_leaves_the_stacks_of_its_threads_and_is_gone(
    tmp_path: Path, stuck: str, log: str, code: int
) -> None:
    program = HANG.replace("{stuck}", stuck).replace("{log}", log)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stderr
    stacks = (tmp_path / "run.stacks").read_text()
    assert "stuck_here" in stacks
    if code == -signal.SIGKILL:
        assert "nothing done for" in stacks
        assert "Alert: this process fetched, computed and committed nothing" in done.stdout
        assert str(tmp_path / "run.stacks") in done.stdout
