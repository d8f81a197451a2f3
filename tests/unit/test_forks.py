"""A fork of ours, made by a library: it keeps no lock, is told of no signal for us, and cleans nothing up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.process.forks import at_the_end, undone_in_forks
from pipeline.process.lock import Held, holder, locked

PROGRAM = """
import contextlib, ctypes, os, signal, sys, time
from pathlib import Path
from pipeline.clock import Clock
from pipeline.process.stop import Stop, drained, signals
from pipeline.process.lock import forget_running, locked, running_file

state, how = Path(sys.argv[1]), sys.argv[2]
c = ctypes.PyDLL(None)  # as a library in C does it: the interpreter is not told

def python_fork():
    return os.fork()

def c_fork():
    return c.fork()

def stay():
    while True:
        time.sleep(60)

def unwind():
    sys.exit(0)

fork, does = {"python": (python_fork, stay), "c": (c_fork, stay), "unwinding": (python_fork, unwind)}[how]
stop = Stop(state, Clock(), print)
with signals(stop, lambda: forget_running(state)), locked(state, "compute"), running_file(state, print):
    with drained(stop, lambda text: print(text, flush=True), lambda: forget_running(state)):
        pid = fork()
        if pid == 0:
            does()
        print(pid, flush=True)
        asked = sys.stdin.readline()
print("ended", stop(), flush=True)
"""


def forked(tmp_path: Path, how: str) -> tuple[subprocess.Popen[str], int]:
    """A process that holds a lock, and the fork that something made of it."""
    words = [sys.executable, "-c", PROGRAM, str(tmp_path), how]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def ended(process: subprocess.Popen[str]) -> str:
    """What it says last, once it is told to go on.  Its fork may have its standard output open for ever."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    said = process.stdout.readline()
    assert process.wait(20) == 0
    return said


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.mark.parametrize("how", ["python", "c"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_fork_is_none_to_us(tmp_path: Path, how: str, number: signal.Signals) -> None:
    process, fork = forked(tmp_path, how)
    try:
        for _ in range(3):
            os.kill(fork, number)
            time.sleep(0.1)
        assert process.poll() is None
        assert ended(process) == "ended False\n"  # at once, though its fork may live
    finally:
        kill(fork)
        process.kill()


def test_a_fork_of_the_interpreter_dies_of_sigterm_as_its_maker_expects(tmp_path: Path) -> None:
    process, fork = forked(tmp_path, "python")
    ends = time.monotonic() + 20
    while Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < ends, "its maker waits for it when it ends itself"
        os.kill(fork, signal.SIGTERM)  # the interpreter forgets one that comes in a fork's first instant
        time.sleep(0.02)
    ended(process)


@pytest.mark.parametrize("how", ["python", "c"])
def test_a_fork_that_outlives_us_holds_no_lock(tmp_path: Path, how: str) -> None:
    process, fork = forked(tmp_path, how)
    try:
        assert holder(tmp_path, "compute") == (tmp_path / "compute.lock").read_text().splitlines()[0]
        assert f"pid {process.pid} " in str(holder(tmp_path, "compute"))
        process.kill()
        process.wait()
        assert Path(f"/proc/{fork}").exists()
        assert holder(tmp_path, "compute") is None
        with locked(tmp_path, "compute"):
            assert f"pid {os.getpid()} " in str(holder(tmp_path, "compute"))
    finally:
        kill(fork)


def test_a_fork_that_unwinds_through_our_frames_takes_nothing_away(tmp_path: Path) -> None:
    process, fork = forked(tmp_path, "unwinding")
    ends = time.monotonic() + 20
    while Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert (tmp_path / "_PIPE_RUNNING").exists()
    assert f"pid {process.pid} " in (tmp_path / "compute.lock").read_text()
    with pytest.raises(Held), locked(tmp_path, "compute"):
        pass
    ended(process)
    assert not (tmp_path / "_PIPE_RUNNING").exists()
    assert holder(tmp_path, "compute") is None


def test_our_own_children_have_none_of_it_either(tmp_path: Path) -> None:
    """Whoever is started has neither our lock nor our handlers; and a signal to it is none to us."""
    words = [sys.executable, "-c", PROGRAM.replace("pid = fork()", CHILD), str(tmp_path), "python"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        links = [os.readlink(one) for one in Path(f"/proc/{child}/fd").iterdir()]
        assert not [one for one in links if one.startswith("socket:") or one.endswith(".lock")]
        os.kill(child, signal.SIGTERM)
        assert ended(process) == "ended False\n"
    finally:
        kill(child)
        process.kill()


CHILD = "import subprocess; pid = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid"


def test_the_lock_of_this_process_is_not_lost_by_asking_for_it(tmp_path: Path) -> None:
    """A record lock goes with the first descriptor of the file that its process closes."""
    asking = "from pathlib import Path; from pipeline.process.lock import holder"
    ask = f"{asking}; print(holder(Path({str(tmp_path)!r}), 'ship'))"
    with locked(tmp_path, "ship"):
        for _ in range(3):
            assert holder(tmp_path, "ship") is not None
            with pytest.raises(Held), locked(tmp_path, "ship"):
                pass
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
        assert f"pid {os.getpid()} " in done.stdout
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"


def test_a_script_that_asks_by_flock_is_told_the_same(tmp_path: Path) -> None:
    ask = ["flock", "--nonblock", str(tmp_path / "ship.lock"), "true"]
    with locked(tmp_path, "ship"):
        assert subprocess.run(ask).returncode == 1
    assert subprocess.run(ask).returncode == 0


def test_what_is_to_be_undone_is_undone_in_a_fork_and_there_alone() -> None:
    done: list[str] = []
    hear, tell = os.pipe()
    with undone_in_forks(lambda: done.append("undone")), at_the_end(lambda: done.append("ended")):
        pid = os.fork()
        if pid == 0:
            os.write(tell, ",".join(done).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(hear, 100) == b"undone"
        assert done == []
    assert done == ["ended"]
    os.close(hear)
    os.close(tell)
