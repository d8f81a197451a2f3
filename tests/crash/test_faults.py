"""Faults under the stores of a daemon at work: nothing is lost, nothing wrong is delivered, and it goes on by itself.

One wrapper strikes the calls of a real process; where the machine can do it itself (too few descriptors, a mount that
becomes read-only, a full disk) it is done to the process.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.site import DAY, NOW, Site
from tests.crash.stories import ship_some
from tests.crash.zygote import ROOT, Zygote
from tests.environment import environ
from tests.faults.faults import Fault
from tests.faults.gate import CHANGES

SERVE = ("serve", "ship", "compute", "aggregate", "deliver")
CHANGE = "|".join(sorted(CHANGES))
SOON = 120.0


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """What is delivered where nothing goes wrong."""
    site = Site(tmp_path_factory.mktemp("whole"), zygote)
    ship_some(site)
    assert site.hathi("run", journal=False) == 0, site.said
    return site


def until(true: Callable[[], bool], what: Callable[[], str]) -> None:
    """Waits until it is so."""
    ends = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < ends, what()
        time.sleep(0.02)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass
class Daemon:
    """`hathi serve` with all stages in one process."""

    site: Site
    pid: int

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in self.site.logs.glob("*.log"))

    def says(self, text: str) -> None:
        """Waits until the log holds it; the process must live on."""
        until(lambda: text in self.log or not lives(self.pid), lambda: f"{text!r} is not in:\n{self.log}")
        assert lives(self.pid), self.site.said + self.log
        assert text in self.log

    def delivers(self, whole: Site) -> None:
        """Waits until all is as it should be, then ends it and looks at what stands."""
        until(
            lambda: not lives(self.pid) or (self.site.done(whole) and self.site.nothing_open()),
            lambda: f"not delivered; {self.site.ledger()}\n{self.log}",
        )
        assert lives(self.pid), self.site.said + self.log
        os.kill(self.pid, signal.SIGTERM)
        assert self.site.zygote.wait(self.pid) == 0, self.site.said
        assert self.site.left() == []
        code = self.site.zygote.wait(self.site.start(["verify", "--deep"], ["why", "7", "a"], journal=False))
        assert code == 0, self.site.said


def daemon(site: Site, **options: object) -> Daemon:
    return Daemon(site, site.start(list(SERVE), HATHI_DAEMON__BEAT_SECONDS="0.3", **options))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Trouble:
    """What goes wrong, and what the log says of it: cause and remedy."""

    name: str
    faults: tuple[tuple[str, Fault], ...]
    cause: str = ""
    remedy: str = ""
    strikes: int = 12
    """So many before the cause goes away."""

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def both(name: str, how: str, cause: str = "", remedy: str = "", **more: object) -> Trouble:
    """A trouble of both stores, as long as it lasts."""
    fault = Fault(how, times=0, **more)  # type: ignore[arg-type]
    return Trouble(name, (("bucket", fault), ("lake", fault)), cause, remedy)


MANIFESTS = ("/plan$", "/b/", "/end$", "/r/", "/t/", "/out$")
TROUBLES = [
    both("no server answers", "refused", "no connection for", r"is it up\?"),
    both("each third call fails", "refused", every=3),
    both("each fourth answer is lost", "answer lost", verbs=CHANGE, every=4),
    both("a storm of SlowDown", "slow down", "SlowDown", "tried again|tries it again", every=2),
    both("expired credentials", "expired", "the credentials have expired", "renew them"),
    both("a full disk", "full", "the disk is full", "free space", verbs="put|put_new|make_folder"),
    both("a read-only disk", "read only", "not allowed", "give this user the right", verbs=CHANGE),
    both("lists that lag", "lagging", verbs="list", seconds=0.4),
    both("lists that break off", "broken off", verbs="list", every=3),
    both("slow answers", "slow", seconds=0.05),
    Trouble("the lake alone is away", (("lake", Fault("refused", times=0)),), "no connection for", r"is it up\?"),
    Trouble(
        "truncated manifests",
        (
            *(("bucket", Fault("truncated", "get", keys, times=2)) for keys in MANIFESTS),
            ("lake", Fault("truncated", "get", "outputByPartner|_index|_manifest", times=3)),
        ),
        "not JSON",
        "left alone|ignores and keeps|move the (object|folder) away",
        strikes=0,
    ),
    Trouble(
        "truncated data",
        tuple(
            ("bucket", Fault("truncated", "get|open", keys))
            for keys in (r"/d/.*/0000\d\.pb$", r"\.features\.parquet$", r"carried", r"cnn_features")
        ),
        "does not hold the bytes that were written",
        "verify --deep",
        strikes=0,
    ),
    Trouble(
        "flipped bits",
        tuple(
            ("bucket", Fault("flipped", "get|open", keys))
            for keys in (r"/d/.*/0000\d\.pb$", r"\.failures\.parquet$", r"carried", r"part-00000")
        ),
        "does not hold the bytes that were written",
        "verify --deep",
        strikes=0,
    ),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
def test_a_daemon_lives_through_it_and_delivers_the_same(
    trouble: Trouble, tmp_path: Path, zygote: Zygote, whole: Site
) -> None:
    site = Site(tmp_path, zygote)
    ship_some(site)
    flag = tmp_path / "trouble"
    flag.touch()
    faults: dict[str, list[Fault]] = {}
    for place, fault in trouble.faults:
        there = str(flag) if fault.times == 0 else ""
        faults.setdefault(place, []).append(Fault(**{**fault.__dict__, "while_there": there}))
    running = daemon(site, faults=faults)
    until(
        lambda: len(site.noted()) >= trouble.strikes or not lives(running.pid), lambda: f"{site.noted()}\n{running.log}"
    )
    if trouble.cause:
        running.says(trouble.cause)
    flag.unlink()
    running.delivers(whole)
    lines = [line for line in running.log.splitlines() if trouble.cause and trouble.cause in line]
    begun = [line for line in lines if "this is over: " not in line]
    assert all(re.search(trouble.remedy, line) for line in begun), begun
    assert len(lines) == len(set(lines)), "each thing is said once: " + "\n".join(lines)


def test_a_clock_that_jumps_ahead_and_back(tmp_path: Path, zygote: Zygote, whole: Site) -> None:
    site = Site(tmp_path, zygote)
    ship_some(site)
    clock = tmp_path / "clock"

    def stands_at(seconds: float) -> None:
        (tmp_path / "next").write_text(str(seconds))
        os.rename(tmp_path / "next", clock)

    stands_at(NOW - 3 * DAY)
    running = daemon(site, clock=f"@{clock}")
    running.says("more than a day in the future")
    stands_at(NOW + 2 * DAY)
    until(lambda: (site.bucket / "shop" / "c").exists(), lambda: running.log)
    stands_at(NOW)
    until(lambda: site.rows() == whole.rows(), lambda: running.log)
    running.delivers(site)


def test_too_few_descriptors(tmp_path: Path, zygote: Zygote, whole: Site) -> None:
    site = Site(tmp_path, zygote)
    running = daemon(site)
    running.says("started")
    until(lambda: len(list(site.bucket.glob("shop/h/alive/*"))) == 1, lambda: running.log)
    before = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
    opened = len(os.listdir(f"/proc/{running.pid}/fd"))
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (opened, before[1]))
    ship_some(site)
    running.says("too many open files")
    assert "ulimit -n" in running.log
    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, before)
    running.delivers(whole)


@pytest.mark.parametrize("what", ["lake", "bucket", "state"])
def test_a_mount_that_becomes_read_only_and_a_disk_that_is_full(what: str, tmp_path: Path, whole: Site) -> None:
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, "-m", "tests.crash.mounts", str(tmp_path), what],
        cwd=ROOT,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["rows"] == [list(row) for row in whole.rows()]
