"""The loop, the lock, ESTOP and beats, without waiting for real time."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import schedule

from pipeline.clock import Clock
from pipeline.errors import NetError, TemporaryError
from pipeline.extraction.window import Computed
from pipeline.ledger.bodies import body_of
from pipeline.ledger.manifest import AttemptEnd
from pipeline.ledger.protocol import poll
from pipeline.process.host import Owner, gone, owner_of, start_of, this_process
from pipeline.process.lock import (
    EstopEngaged,
    Held,
    forget_running,
    holder,
    left_behind,
    locked,
    refuse_estop,
    running_file,
)
from pipeline.process.stop import Stop, beating, loop
from pipeline.records import ImageRef
from pipeline.settings import FeatureSet
from pipeline.stages.compute import Served
from pipeline.stages.following import Asked, Computable
from pipeline.stages.loop import LakeStages
from pipeline.stages.served_sets import LOAD_AGAIN_SECONDS, ServedSets
from tests.simulation.world import StubServed
from tests.unit.test_stages import tables, world_of

T = TypeVar("T")


class Hand:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.at = 0.0
        self.clock = Clock(now=lambda: self.at, monotonic=lambda: self.at, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def test_a_turn_is_taken_at_once_and_then_every_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    hand = Hand()

    class HandDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.fromtimestamp(hand.at, tz)

    # the library asks the datetime module itself, so that is where its clock is injected
    monkeypatch.setattr(schedule.datetime, "datetime", HandDatetime)

    def turn() -> None:
        turns.append(hand.at)

    loop(turn, 60.0, lambda: hand.at > 200, hand.clock)
    assert turns == [0.0, pytest.approx(60.0, abs=1), pytest.approx(120.0, abs=1), pytest.approx(180.0, abs=1)]


def test_no_turn_begins_once_the_end_is_asked_for() -> None:
    turns = []
    hand = Hand()
    loop(lambda: turns.append(1), 1.0, lambda: bool(turns), hand.clock)
    assert turns == [1]


def test_estop_is_seen_within_a_second_and_said_once(tmp_path: Path) -> None:
    hand, said = Hand(), []
    stop = Stop(tmp_path, hand.clock, said.append)
    assert not stop()
    (tmp_path / "ESTOP").touch()
    hand.at += 1.0
    assert stop()
    assert stop()
    assert said == ["ESTOP engaged"]
    assert stop.exit_code == 4


def test_a_signal_ends_with_zero(tmp_path: Path) -> None:
    stop = Stop(tmp_path, Hand().clock, print)
    stop.ask()
    assert stop()
    assert stop.exit_code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE])
def test_a_signal_that_ends_what_a_person_waits_for_shows_in_the_exit_code_and_estop_before_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    stop = Stop(tmp_path, Hand().clock, print, foreground=True)
    assert (stop.exit_code, stop.why) == (0, "")
    stop.ask(number)
    stop.ask(signal.SIGTERM)
    assert (stop.exit_code, stop.why) == (128 + number, number.name), "the first one counts"
    stop.engage("shop/h/alive/ESTOP")
    assert (stop.exit_code, stop.why) == (4, "ESTOP")


def test_a_lock_says_with_which_error_its_program_ended_and_without_secrets(tmp_path: Path) -> None:
    with pytest.raises(TemporaryError), locked(tmp_path, "ship"):
        raise TemporaryError("no answer of http://x.example/a?sig=secret", "", "look")
    left = (tmp_path / "ship.lock").read_text()
    assert left.startswith("ended 20")
    assert f" with an error (pid {os.getpid()} since " in left
    assert "secret" not in left
    assert left_behind(tmp_path, "ship") == left.strip()
    (tmp_path / "ship.lock").write_text("pid 7 since then\n")
    assert left_behind(tmp_path, "ship") == "ended unexpectedly (pid 7 since then)"


def test_with_estop_nothing_is_started(tmp_path: Path) -> None:
    refuse_estop(tmp_path)
    (tmp_path / "ESTOP").touch()
    with pytest.raises(EstopEngaged, match="remove") as caught:
        refuse_estop(tmp_path)
    assert caught.value.exit_code == 4


def test_the_second_of_two_says_who_holds_the_lock(tmp_path: Path) -> None:
    assert holder(tmp_path, "ship") is None
    with locked(tmp_path, "ship"):
        assert f"pid {os.getpid()}" in str(holder(tmp_path, "ship"))
        with pytest.raises(Held) as caught, locked(tmp_path, "ship"):
            pass
        assert f"pid {os.getpid()}" in caught.value.detail
        with locked(tmp_path, "deliver"):
            pass
    assert holder(tmp_path, "ship") is None
    with locked(tmp_path, "ship"):
        pass


def test_a_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path, "compute"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        assert holder(tmp_path, "compute") is None
    finally:
        child.kill()
        child.wait()


def test_the_running_file_tells_of_a_run_that_died(tmp_path: Path) -> None:
    said: list[str] = []
    with running_file(tmp_path, said.append):
        assert (tmp_path / "_PIPE_RUNNING").exists()
        left = (tmp_path / "_PIPE_RUNNING").read_text()
    assert not (tmp_path / "_PIPE_RUNNING").exists()
    (tmp_path / "_PIPE_RUNNING").write_text(left)
    with running_file(tmp_path, said.append):
        pass
    assert len(said) == 1
    assert f"pid {os.getpid()}" in said[0]


def test_a_process_of_this_host_is_gone_when_its_pid_is_somebody_elses() -> None:
    me = this_process()
    assert not gone(me.name)
    host, boot, pid, start, chance = me.name.rsplit(".", 4)
    assert gone(f"{host}.{boot}.{pid}.{int(start) - 1}.{chance}")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    began = start_of(child.pid)
    child.wait()
    assert gone(f"{host}.{boot}.{child.pid}.{began or 1}.{chance}")
    assert not gone(f"elsewhere.{boot}.1.1.abcdef"), "of another host nothing is known"
    assert not gone("what?")


PROGRAM = """
import hashlib, sys, threading
from pathlib import Path
from pipeline.clock import Clock
from pipeline.process.stop import Drain, Stop, drained, signals
from pipeline.process.lock import forget_running, running_file

def in_a_library():  # seconds of C that lets other threads run, and no signal handler of Python's
    print("in", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)

state = Path(sys.argv[1])
stop = Stop(state, Clock(), lambda text: print(text, flush=True))
with signals(stop, lambda: forget_running(state)), running_file(state, print):
    drain = Drain(float(sys.argv[2]))
    with drained(stop, lambda text: print(text, flush=True), lambda: forget_running(state), drain):
        in_a_library()
"""


def in_a_library(state: Path, drain_seconds: float) -> subprocess.Popen[str]:
    """A process whose main thread is in a library for long."""
    words = [sys.executable, "-c", PROGRAM, str(state), str(drain_seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


@pytest.mark.parametrize(("how", "code"), [("ESTOP", 4), ("SIGTERM", 0), ("SIGINT", 0)])
def test_a_process_whose_main_thread_is_in_a_library_ends_in_time_with_its_code(
    tmp_path: Path, how: str, code: int
) -> None:
    with in_a_library(tmp_path, 2.5) as process:
        if how == "ESTOP":
            (tmp_path / "ESTOP").touch()
        else:
            process.send_signal(signal.Signals[how])
        said = process.communicate(timeout=5)[0]
    assert process.returncode == code
    assert "did not stop in time" in said
    assert not (tmp_path / "_PIPE_RUNNING").exists()


def test_the_second_interrupt_ends_at_once_even_in_a_library(tmp_path: Path) -> None:
    with in_a_library(tmp_path, 60.0) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)  # the kernel merges two that come at once
        process.send_signal(signal.SIGINT)
        assert process.wait(2) == 130
    assert not (tmp_path / "_PIPE_RUNNING").exists()


def test_an_interrupt_that_is_ignored_stays_so_and_sigterm_ends_all_the_same(tmp_path: Path) -> None:
    """As a shell starts what it puts into the background: the keyboard's interrupt is for what stands in front."""
    words = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", PROGRAM, str(tmp_path), "2.5"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert "did not stop in time" in process.communicate(timeout=5)[0]
    assert process.returncode == 0


def test_a_test_that_interrupts_does_not_depend_on_how_the_tests_were_started() -> None:
    which = "tests/unit/test_daemon.py::test_the_second_interrupt_ends_at_once_even_in_a_library"
    words = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "pytest", "-q", which]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_the_running_file_of_another_process_is_left_alone(tmp_path: Path) -> None:
    forget_running(tmp_path)
    (tmp_path / "_PIPE_RUNNING").write_text('{"pid": 1}')
    forget_running(tmp_path)
    assert (tmp_path / "_PIPE_RUNNING").exists()


def test_beats_begin_at_once_and_the_last_is_taken_back_after_them() -> None:
    happened: list[str] = []
    beaten = threading.Event()

    def beat() -> None:
        happened.append("beat")
        if len(happened) > 2:
            beaten.set()

    with beating(beat, lambda: happened.append("leave"), 0.01, print):
        assert happened[0] == "beat"
        assert beaten.wait(5)
    assert happened[-1] == "leave"
    assert happened.count("leave") == 1


def test_a_beat_that_fails_is_said_once_and_that_it_is_over_as_well() -> None:
    said: list[str] = []
    beats = iter([TemporaryError("no answer", "", ""), TemporaryError("no answer", "", ""), None])
    over = threading.Event()

    def beat() -> None:
        error = next(beats, None)
        if error is not None:
            raise error

    def say(text: str) -> None:
        said.append(text)
        if "over" in text:
            over.set()

    with beating(beat, lambda: None, 0.01, say):
        assert over.wait(5)
    assert said == [
        "this process could not write its sign of life to the bucket: no answer",
        "this process writes its sign of life again; this is over: no answer",
    ]


def test_a_store_that_does_not_answer_the_last_word_is_no_failure() -> None:
    said: list[str] = []

    def leave() -> None:
        raise TemporaryError("no answer", "", "")

    with beating(lambda: None, leave, 60.0, said.append):
        pass
    assert said == [
        "this process could not delete its sign of life from the bucket; other hosts count it as alive "
        "for 6 more minutes: no answer"
    ]


def test_a_process_is_known_by_its_name() -> None:
    me = this_process()
    host, boot, pid, start, chance = me.name.rsplit(".", 4)
    assert owner_of(me.name) is Owner.RUNS
    assert owner_of(f"{host}.{boot}.{pid}.{int(start) - 1}.{chance}") is Owner.GONE
    assert owner_of(f"{host}.00000001.{pid}.{start}.{chance}") is Owner.GONE, "before the last boot"
    assert owner_of(f"pod-7.{boot}.{pid}.{start}.{chance}") is Owner.OF_THIS_KERNEL
    assert owner_of(f"elsewhere.00000001.{pid}.{start}.{chance}") is Owner.ELSEWHERE
    assert owner_of("tmp1234") is Owner.NOBODY


def test_a_child_whose_parent_is_gone_ends_before_it_does_anything(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pipeline.extraction.isolation", str(tmp_path), "1"]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == [], "a child that worked says so with a file"


def test_children_that_die_of_the_stop_itself_make_no_item_poison(tmp_path: Path) -> None:
    world = world_of(tmp_path, "7,a,http://shop.example/bang-1", compute={"strikes": 1, "lost": 1})
    asked: list[bool] = []
    context = replace(world.context(), stopping=lambda: bool(asked))

    class Stopping(StubServed):
        def alone(self, task: T, refs: Sequence[ImageRef]) -> Computed[T]:
            asked.append(True)
            return super().alone(task, refs)

    def serve(asked: Asked, feature_set: FeatureSet) -> Served:
        return Stopping(world.fingerprints[str(asked)], world.hand.clock(), world.asked)

    turns = LakeStages(context, serve, strict=True)
    turns.take("ship")
    assert turns.take("compute").problems == 1, "the net raised: a strike"
    assert turns.take("compute").stopped
    keys = [key for key in world.bucket.files if "/c/" in key]
    assert not [key for key in keys if "/r/" in key]
    ends = [body_of(AttemptEnd, world.bucket.files[key][0], key).kind for key in sorted(keys) if key[-2:] == ".x"]
    assert ends == ["strike", "abandoned"]
    asked.clear()
    world.run()
    assert [row["reason"] for row in tables(world, "failures")] == ["poison"], "undisturbed, it is the item's"


def test_a_set_that_could_not_be_loaded_is_tried_again_after_a_while(tmp_path: Path) -> None:
    """Its weights were still being copied: the daemon goes on by itself once they are whole."""
    world = world_of(tmp_path, "7,a,http://shop.example/1")
    tries: list[str] = []

    def serve(asked: Asked, feature_set: FeatureSet) -> Served:
        tries.append(str(asked))
        if len(tries) == 1:
            raise NetError("the weights are truncated")
        return world.serve(asked, feature_set)

    turns = LakeStages(world.context(), serve, strict=False)
    turns.take("ship")
    for _ in range(2):
        assert turns.take("compute").tasks == 0
    assert tries == ["demo"]
    assert "this host cannot compute set demo: the weights are truncated" in world.said
    world.hand.at += LOAD_AGAIN_SECONDS
    assert turns.take("compute").tasks == 1


def test_names_that_no_configuration_knows_are_said_and_not_kept(tmp_path: Path) -> None:
    world = world_of(tmp_path, "7,a,http://shop.example/1")
    world.turns().take("ship")
    context = world.context()
    known = poll(context)
    (state,) = known.states
    assert state.plan is not None
    sets = ServedSets(context, world.serve, strict=False)
    for number in range(100):
        unknown = replace(state, plan=state.plan.model_copy(update={"set": f"old-{number}"}))
        assert sets.computable(replace(known, states=(unknown,))) == {}
    assert not any(one for one in vars(sets).values() if isinstance(one, dict)), "it has kept nothing"
    assert any("no set old-99" in text for text in world.said)
    assert sets.computable(known) == {state.name: Computable(Asked("demo"), world.fingerprints["demo"])}
