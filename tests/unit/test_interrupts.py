"""An interrupt from the keyboard ends a program wherever it comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.process.interrupts import ended_by_interrupts

ROOT = Path(__file__).parents[2]
DESTRUCTOR = """
import os, signal
from pipeline.process.interrupts import keep_interrupts
{kept}
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        self.gone = True
Late()
print("went on")
"""
RAISES = """
from pipeline.process.interrupts import keep_interrupts
keep_interrupts()
class Late:
    def __del__(self):
        raise ValueError("told as ever")
Late()
print("went on")
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_interrupt_in_a_destructor_which_python_drops_ends_the_program() -> None:
    dropped = run(DESTRUCTOR.format(kept=""))
    assert (dropped.returncode, dropped.stdout) == (0, "went on\n"), "Python drops none any more: this is not needed"
    ended = run(DESTRUCTOR.format(kept="keep_interrupts()"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_other_exceptions_that_python_drops_are_told_as_ever() -> None:
    found = run(RAISES)
    assert (found.returncode, found.stdout) == (0, "went on\n")
    assert "told as ever" in found.stderr


def test_interrupts_end_the_program_by_the_system_alone_where_nothing_else_hears_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("signal.default_int_handler", signal.getsignal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with ended_by_interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr("signal.default_int_handler", object())
    with ended_by_interrupts():
        assert signal.getsignal(signal.SIGINT) is before, "somebody hears them"


def test_a_thread_in_which_no_signal_is_heard_may_import_as_well() -> None:
    raised: list[BaseException] = []

    def importing() -> None:
        try:
            with ended_by_interrupts():
                pass
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=importing)
    thread.start()
    thread.join()
    assert raised == []
