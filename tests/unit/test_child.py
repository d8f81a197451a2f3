"""Children as real processes: what they say and print, what they may take, and how each end of theirs is named."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.process.channel import Channel, Gone
from pipeline.process.child import Child, Ended, asked, python_of

ROOT = Path(__file__).parents[2]
HEAD = """
import contextlib, ctypes, os, signal, subprocess, sys, time
from pipeline.errors import ConfigError
from pipeline.process.life import limit_memory, limit_processor, live
def work(channel):
    told, content = channel.receive()
"""


def child(body: str, environ: Mapping[str, str] | None = None) -> Child:
    """A child that hears a message and does that."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return Child([sys.executable, "-c", f"{HEAD}{lines}live(work)"], environ)


def run(body: str, seconds: float = 60.0, **first: Any) -> tuple[list[Any], Ended]:
    with child(body) as one:
        told, end = one.run(first, seconds, lambda: None)
    return list(told), end


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_messages_go_both_ways_with_bytes_behind_them_and_nothing_printed_gets_between() -> None:
    body = """print("printed")
os.system("echo by a program; cat")
channel.send(bytes(reversed(content)), kind="answer", told=told, rest=sys.stdin.read())
channel.receive()"""
    content = os.urandom(5_000_000)
    with child(body) as one:
        one.channel.send(content, text="\u00e4\n{", number=2**60)
        fields, back = one.channel.receive()
        one.channel.send()
        end = one.wait()
    assert fields == {"kind": "answer", "told": {"text": "\u00e4\n{", "number": 2**60}, "rest": ""}
    assert back == bytes(reversed(content))
    assert end.code == 0
    assert sorted(end.printed.split(b"\n")) == [b"", b"by a program", b"printed"]


@pytest.mark.parametrize(
    ("body", "code", "how", "by_itself", "told_to_end"),
    [
        ("pass", 0, "ended itself with exit code 0", False, False),
        ("sys.exit(9)", 9, "ended itself with exit code 9", True, False),
        ("os._exit(3)", 3, "ended itself with exit code 3", True, False),
        ("raise RuntimeError('unforeseen')", 1, "ended itself with exit code 1", True, False),
        ("ctypes.string_at(0)", -11, "was killed by SIGSEGV", True, False),
        ("os.abort()", -6, "was killed by SIGABRT", True, False),
        ("os.kill(os.getpid(), 9)", -9, "was killed by SIGKILL", False, False),
        ("os.kill(os.getpid(), 15)", -15, "was killed by SIGTERM", False, True),
        ("os.kill(os.getpid(), 40)", -40, "was killed by signal 40", False, False),
        ("limit_processor(0.2)\nwhile True: pass", -27, "was killed by SIGPROF", True, False),
        ("limit_memory(2**26, beyond=True)\nbytearray(2**30)", 72, "wanted more memory than it may take", True, False),
        ("limit_memory(2**28)\nbytearray(2**30)", 72, "wanted more memory than it may take", True, False),
    ],
)
def test_each_end_has_a_name(body: str, code: int, how: str, by_itself: bool, told_to_end: bool) -> None:
    told, end = run(body)
    assert (told, end.code, end.how) == ([], code, how)
    assert (end.by_itself, end.told_to_end) == (by_itself, told_to_end)


def test_what_a_child_printed_last_is_kept_for_the_error_passed_on_and_shows_no_secret(
    capfd: pytest.CaptureFixture[str],
) -> None:
    body = """for number in range(5000):
    print("line", number, file=sys.stderr)
os.write(2, b"cannot open http://u:hunter2@shop.example/a\\x1b[2J\\n\\n")
os._exit(5)"""
    _, end = run(body)
    assert len(end.printed) == 4096
    assert end.story.startswith("ended itself with exit code 5; the last line that it printed: cannot open http")
    assert "hunter2" not in end.story
    assert "\x1b" not in end.story
    shown = capfd.readouterr().err.splitlines()
    assert shown[:5000] == [f"line {number}" for number in range(5000)]


def test_a_child_that_cannot_work_tells_why() -> None:
    told, end = run("raise ConfigError('no net', 'its file', 'name one')")
    assert told == [{"failed": {"message": "no net", "detail": "its file", "hint": "name one", "exit_code": 2}}]
    assert end.code == 1


def test_a_child_that_takes_too_long_is_killed_and_its_parent_is_told_meanwhile() -> None:
    noted: list[None] = []
    with child("channel.send(begun=True)\ntime.sleep(1000)") as one:
        told, end = one.run({}, 3.0, lambda: noted.append(None))
    assert told == [{"begun": True}]
    assert (end.code, end.how) == (-signal.SIGKILL, "did not end within 3 s")
    assert noted


def test_a_fork_of_a_child_keeps_nobody_waiting_and_what_it_told_before_is_heard() -> None:
    body = """channel.send(bytes(100_000), said=1)
print("last words")
pid = os.fork()
if pid == 0:
    time.sleep(1000)
os.setpgid(pid, pid)  # what is in the child's own group ends with it
channel.send(fork=pid)"""
    told, end = run(body)
    fork = told[1]["fork"]
    try:
        assert running(fork)
        assert (told[0], end.code, end.last_line) == ({"said": 1}, 0, "last words")
    finally:
        os.kill(fork, signal.SIGKILL)


@pytest.mark.parametrize("ask", [lambda one: one.runs, lambda one: one.end()], ids=["runs", "end"])
def test_what_a_child_began_in_its_group_ends_with_it_whoever_asked_for_it_before(
    ask: Callable[[Child], object],
) -> None:
    body = "channel.send(pid=subprocess.Popen(['sleep', '600']).pid)"
    heard: list[Any] = []
    with child(body) as one:
        one.channel.send()
        heard.append(one.channel.receive()[0])
        wait_until(lambda: not running(one.pid))
        ask(one)
        assert one.wait().code == 0
        wait_until(lambda: not running(heard[0]["pid"]))


def test_a_child_has_its_three_descriptors_its_own_group_and_no_core() -> None:
    body = """here = "/proc/self/fd/"
open_files = [os.readlink(here + n) for n in os.listdir(here) if os.path.lexists(here + n)]
import resource
channel.send(files=open_files, group=os.getpgrp() == os.getpid(), core=resource.getrlimit(resource.RLIMIT_CORE),
             dumpable=ctypes.CDLL(None).prctl(3))"""
    with open(os.devnull, "rb") as held, socket.create_server(("127.0.0.1", 0)) as server:
        os.set_inheritable(held.fileno(), True)
        os.set_inheritable(server.fileno(), True)
        ((told,), _) = run(body)
    assert told["files"].count("/dev/null") == 1, "what it has as its standard input"
    assert len({file for file in told["files"] if file.startswith("socket:")}) == 2, "messages, and what it prints"
    assert (told["group"], told["core"], told["dumpable"]) == (True, [0, 0], 0)


def test_a_child_dies_with_its_parent_whatever_it_does_and_however_that_ends() -> None:
    body = HEAD + "    channel.send(ready=1)\n    while True: pass\nlive(work)"
    parent = f"""
import sys, time
from pipeline.process.child import Child
child = Child([sys.executable, "-c", {body!r}])
child.channel.send()
child.channel.receive()
print(child.pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert running(pid)
        process.kill()
    wait_until(lambda: not running(pid))


def test_a_child_outlives_the_thread_that_began_it() -> None:
    """To the kernel a child's parent is a thread."""
    made: list[Child] = []
    thread = threading.Thread(target=lambda: made.append(child("channel.send(told=told)")))
    thread.start()
    thread.join()
    with made[0] as one:
        wait_until(lambda: "time" in Path(f"/proc/{one.pid}/cmdline").read_text())
        time.sleep(0.5)  # it has asked the kernel by now, or asks a thread that is gone
        one.channel.send(still="here")
        assert one.channel.receive()[0] == {"told": {"still": "here"}}


def test_a_parent_that_is_gone_from_the_channel_ends_its_child() -> None:
    with child("channel.receive()\nos._exit(9)") as one:
        one.channel.send()
        one._socket.shutdown(socket.SHUT_RDWR)
        assert one.wait().code == 0


def test_a_channel_that_breaks_off_is_an_end() -> None:
    for content in (b"", b'{"kind": "x"', b'{"kind": "x", "bytes": 5}\nabc'):
        ours, theirs = socket.socketpair()
        with ours:
            channel = Channel(ours.fileno())
            with theirs:
                theirs.sendall(content)
            with pytest.raises(Gone):
                channel.receive()
            with pytest.raises(Gone):
                channel.send(kind="x")
            channel.close()


def test_a_child_imports_from_no_more_folders_than_its_parent(tmp_path: Path) -> None:
    program = "from pipeline.process.child import python_of; print(python_of('a', 'b')[1:])"
    for flags, words in ((["-P"], "['-P', '-m', 'a', 'b']"), ([], "['-m', 'a', 'b']")):
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *flags, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == words
    assert python_of("a")[0] == sys.executable


def test_a_program_is_asked_and_one_that_hangs_is_left() -> None:
    assert asked(["sh", "-c", "echo said; echo more >&2; exit 3"], 60.0) == (3, "said\nmore\n")
    assert asked(["sleep", "1000"], 0.5) == (None, "")


def test_sending_to_a_child_that_is_dead_says_so() -> None:
    with child("pass") as one:
        one._process.kill()
        one._process.wait()
        with pytest.raises(Gone):
            one.channel.receive()
        with contextlib.suppress(Gone):
            one.channel.send(bytes(10**6))
        with pytest.raises(Gone):
            one.channel.send(bytes(10**6))
