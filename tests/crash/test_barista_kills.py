"""kill -9 of a barista, of its customers, of both, of a whole process group: nothing is left, and the next one starts.

200 kills.  The long form: `python -m tests.crash.test_barista_kills --kills 2000`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail("torch is missing: run scripts/torch.sh", pytrace=False)
    pytest.skip("LEFT OUT: torch is missing: scripts/torch.sh", allow_module_level=True)

from pipeline.barista import interface, starting
from pipeline.process.host import start_of
from tests.crash.barista_forks import EOF_SEEN
from tests.unit.barista.served import ROOT, descriptors, environ, solver_in, until

KILLS = 200
CUSTOMERS = 4


class Forks:
    """Asks a process that has torch imported for baristas and customers."""

    def __init__(self) -> None:
        own = f"mount -t tmpfs tmpfs /dev/shm && exec {sys.executable} -m tests.crash.barista_forks"
        self._process = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", own], cwd=ROOT, text=True, env=environ(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._line() == "ready"

    def ask(self, **request: Any) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def named(self) -> list[str]:
        """The memory with a name that they have made: their /dev/shm is their own."""
        return os.listdir(f"/proc/{self._process.pid}/root/dev/shm")

    def held(self) -> int:
        """Mappings and descriptors of a barista's memory in what they have started, and in nobody else."""
        return descriptors(self._process.pid)

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


class Bar:
    """One interface file, with a barista and customers anew for each kill."""

    def __init__(self, forks: Forks, folder: Path) -> None:
        self._forks, self._folder = forks, folder
        self.file = folder / "x.interface"
        self._order = {
            "solver": str(solver_in(folder / "solver")),
            "interface": str(self.file),
            "threads": 1,
            "idle": 0,
        }
        self._rounds = 0
        self.seen = 0
        """Customers that saw the end of their barista."""

    def barista(self) -> tuple[int, list[int]]:
        """A barista and its customers at work, as process numbers."""
        pid = self._forks.ask(ask="barista", order=self._order)
        flags = self._flags(CUSTOMERS)
        customers = [self._forks.ask(ask="customer", file=str(self.file), seed=seed, flag=str(flag))
                     for seed, flag in enumerate(flags)]  # fmt: skip
        assert until(lambda: all(one.exists() for one in flags))
        return pid, customers

    def group(self) -> tuple[int, int]:
        """An owner with its customers in one process group, and the barista that it owns."""
        flags = self._flags(1 + CUSTOMERS)
        owner = self._forks.ask(ask="owner", order=self._order, flags=list(map(str, flags)))
        assert until(lambda: all(one.exists() for one in flags) and flags[0].read_text() != "")
        return owner, int(flags[0].read_text())

    def _flags(self, count: int) -> list[Path]:
        self._rounds += 1
        return [self._folder / f"{self._rounds}-{number}" for number in range(count)]

    def end(self, *pids: int) -> list[int]:
        """Waits for processes that end by themselves or were killed; their exit codes."""
        return [self._forks.ask(ask="wait", pid=one) for one in pids]


def kill_barista(bar: Bar, chance: random.Random) -> int:
    pid, customers = bar.barista()
    os.kill(pid, signal.SIGKILL)
    assert bar.end(pid, *customers) == [-signal.SIGKILL, *[EOF_SEEN] * CUSTOMERS]
    bar.seen += CUSTOMERS
    return 1


def kill_customers(bar: Bar, chance: random.Random) -> int:
    """One after the other; those beside them and the barista go on."""
    pid, customers = bar.barista()
    for number, one in enumerate(customers):
        os.kill(one, signal.SIGKILL)
        assert bar.end(one) == [-signal.SIGKILL]
        left = CUSTOMERS - number - 1
        assert until(lambda left=left: starting.about(bar.file, 60)["customers"] == left)  # type: ignore[misc]
    assert starting.stop(bar.file, 60)
    assert bar.end(pid) == [0]
    return CUSTOMERS


def kill_both(bar: Bar, chance: random.Random) -> int:
    pid, customers = bar.barista()
    all_of_them = [pid, *customers]
    chance.shuffle(all_of_them)
    for one in all_of_them:
        os.kill(one, signal.SIGKILL)
    codes = bar.end(*all_of_them)
    assert set(codes) <= {-signal.SIGKILL, EOF_SEEN}
    return len(all_of_them)


def kill_group(bar: Bar, chance: random.Random) -> int:
    owner, pid = bar.group()
    os.killpg(owner, signal.SIGKILL)
    assert bar.end(owner) == [-signal.SIGKILL]
    assert until(lambda: start_of(pid) == "")
    return 1 + CUSTOMERS


WAYS: list[Callable[[Bar, random.Random], int]] = [kill_barista, kill_customers, kill_both, kill_group]


@contextmanager
def forks() -> Iterator[Forks]:
    one = Forks()
    try:
        yield one
    finally:
        one.close()


def killed(kills: int, folder: Path, seed: int) -> str:
    """So many kills, in all ways by turns; what was left after them is nothing."""
    chance = random.Random(seed)
    with forks() as forking:
        before = forking.named(), forking.held()
        assert before[0] == []
        bar, done, rounds = Bar(forking, folder), 0, 0
        while done < kills:
            done += WAYS[rounds % len(WAYS)](bar, chance)
            rounds += 1
            assert until(lambda: interface.alive(bar.file) is None), rounds
        assert until(lambda: (forking.named(), forking.held()) == before), (forking.named(), forking.held())
        assert str(bar.file) not in Path("/proc/net/unix").read_text()
        bar.barista()
        assert forking.held() > before[1], "what is counted is there while they run"
        assert starting.stop(bar.file, 60)
        left = sorted(one.name for one in folder.iterdir() if one.name.startswith("x."))
        assert left == ["x.interface.lock"], left
    return f"{done} kills in {rounds} rounds; {bar.seen} customers saw the end of their barista"


def test_nothing_is_left_after_200_kills_and_nothing_blocks_the_next_start(tmp_path: Path) -> None:
    print(killed(KILLS, tmp_path, 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    wanted = parser.parse_args()
    print(f"seed {wanted.seed}")
    with tempfile.TemporaryDirectory() as where:
        print(killed(wanted.kills, Path(where), wanted.seed))
