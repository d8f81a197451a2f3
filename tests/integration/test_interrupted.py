"""A run that is stopped before its end says so: by its exit code, by how far it came, and by what it leaves."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.operations.health.this_host import programs
from pipeline.process.lock import left_behind
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.integration.test_drain import Place, Slow, web

__all__ = ["web"]
DONE, LATER = 16, 16
PATIENCE = 60.0


@pytest.fixture
def place(web: str, tmp_path: Path) -> Iterator[Place]:
    """One batch whose images come at once, and one whose images wait to be let through."""
    random_features.write(tmp_path / "w.caffemodel")
    other = web.replace("127.0.0.1", "localhost")  # a host of its own, whose images take no connection of the first
    urls = [f"{web}/{number}.png" for number in range(DONE)]
    urls += [f"{other}/later/{number}.png" for number in range(LATER)]
    refs = [{"partner_id": 1, "external_id": url, "url": url} for url in urls]
    Slow.let_through.clear()
    yield Place(tmp_path / "here", "\n".join(map(json.dumps, refs)), tmp_path / "w.caffemodel")
    Slow.let_through.set()


def begun(place: Place, *words: str, stdin: int = subprocess.DEVNULL, **more: int) -> subprocess.Popen[str]:
    """A run whose first batch is done, and whose second waits."""
    command = [sys.executable, "-m", "pipeline.cli.main", "run", "--config", str(place.config), *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    process = subprocess.Popen(command, cwd=ROOT, env=environ(), stdin=stdin, text=True, **streams)  # type: ignore[call-overload]
    ends = time.monotonic() + PATIENCE
    while not list((place.folder / "bucket").glob("shop/c/*/*/r/*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.05)
    return process  # type: ignore[no-any-return]


def well(place: Place) -> None:
    """Nothing there says that a program ended unexpectedly, and the same command does the rest."""
    running, died = programs(place.state)
    assert running == {}
    assert not [how for how in died.values() if "unexpectedly" in how]
    assert place.left() == []
    Slow.let_through.set()
    with place.start("run") as process:
        said = process.communicate(timeout=PATIENCE)[1]
    assert (process.returncode, place.complete) == (0, True), said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_a_signal_ends_says_how_far_it_came_and_with_which_code(
    place: Place, number: signal.Signals, code: int
) -> None:
    with begun(place) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert out == "", "no table that looks like a whole run"
    done = (
        f"stopped by {number.name}: {DONE} of {DONE + LATER} images are done; those of an unfinished batch are fetched"
    )
    assert err.splitlines()[-1] == f"{done} again. Type the same command to go on."
    assert done in (place.folder / "logs" / "run.log").read_text()
    well(place)


def test_estop_says_it_too(place: Place) -> None:
    with begun(place) as process:
        (place.state / "ESTOP").touch()
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (4, "")
    assert f"stopped by ESTOP: {DONE} of {DONE + LATER} images are done" in err
    assert err.splitlines()[-1].endswith("`hathi start` takes ESTOP back; then type the same command to go on.")
    (place.state / "ESTOP").unlink()
    well(place)


@pytest.mark.parametrize(("terminal", "code"), [(False, 0), (True, 143)])
def test_crons_run_that_is_asked_to_end_has_ended_well_and_a_persons_was_interrupted(
    place: Place, terminal: bool, code: int
) -> None:
    main, sub = pty.openpty()
    try:
        with begun(place, "--once", stdin=sub if terminal else subprocess.DEVNULL) as process:
            process.terminate()
            err = process.communicate(timeout=PATIENCE)[1]
    finally:
        os.close(main)
        os.close(sub)
    assert process.returncode == code, err
    well(place)


def test_two_interrupts_end_it_at_once_and_leave_no_sign_of_a_death(place: Place) -> None:
    with begun(place) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)  # the kernel merges two that come at once
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE)
    assert code in (130, -signal.SIGINT), "a shell says 130 of both; the second one may find it at its very end"
    assert programs(place.state) == ({}, {})


def test_a_terminals_interrupt_reaches_the_run_and_its_line_stands_below_the_display(place: Place) -> None:
    main, sub = pty.openpty()
    with begun(place, stdin=sub, stderr=sub, stdout=sub) as process:
        os.close(sub)
        process.send_signal(signal.SIGINT)
        said = b""
        while True:
            try:
                more = os.read(main, 4096)
            except OSError:  # the last one who had the terminal is gone
                break
            if not more:
                break
            said += more
        assert process.wait(PATIENCE) == 130
    os.close(main)
    assert b"images are done; those of an unfinished batch" in said
    assert b"nothing to do" not in said
    well(place)


def test_a_run_whose_output_nobody_reads_any_more_stops_in_good_order_with_141(place: Place) -> None:
    read, write = os.pipe()
    with begun(place, stdout=write, stderr=write) as process:
        os.close(write)
        os.close(read)
        Slow.let_through.set()
        assert process.wait(PATIENCE) == 141
    assert "stopped by SIGPIPE: " in (place.folder / "logs" / "run.log").read_text()
    assert programs(place.state) == ({}, {})


def test_a_run_that_is_refused_has_said_why_and_its_lock_says_so(place: Place) -> None:
    place.config.write_text(place.config.read_text() + "[notify]\n")
    words = ["run", "--config", str(place.config), "--set", "compute.free_bytes=1e18"]
    command = [sys.executable, "-m", "pipeline.cli.main", *words]
    done = subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, "is nearly full: nothing was begun" in done.stderr) == (1, True), done.stderr
    lock = (place.state / "compute.lock").read_text()
    assert lock.startswith("ended 20")
    assert " with an error (pid " in lock
    assert "is nearly full: nothing was begun" in lock
    assert left_behind(place.state, "compute") == lock.strip(), "not that it ended unexpectedly"
    well(place)
