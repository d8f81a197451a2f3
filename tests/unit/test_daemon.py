"""The loop, the lock, ESTOP and beats, without waiting for real time."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest
import schedule

from pipeline.clock import Clock
from pipeline.daemon import Stop, loop
from pipeline.host import gone, start_of, this_process
from pipeline.lock import EstopEngaged, Held, holder, locked, refuse_estop, running_file


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
