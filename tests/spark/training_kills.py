"""Kills at random in trainings on a local cluster: `python -m tests.spark.training_kills --kills 30 --seed 1`.

Python workers, executor JVMs and the driver get SIGKILL, workers SIGSTOP as well, whenever it comes; a driver that is
gone is begun again.  Every training ends with the bits of one process that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from pipeline.training.assembly import How
from pipeline.training.job import Wanted
from tests.spark.conftest import SHORT, spark_environ
from tests.unit.training import shared_runs
from tests.unit.training.runs import Within, train

ITERATIONS = 200
SAID = "said.txt"
PATIENCE = 600.0
VICTIMS = ("worker", "executor", "driver", "hung")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def executor_of(worker: int) -> int:
    """The JVM above a Python worker.  Raises ValueError where it is gone: then something else is above."""
    found = parent(parent(worker))
    if b"CoarseGrainedExecutorBackend" not in Path(f"/proc/{found}/cmdline").read_bytes():
        raise ValueError(f"process {found} is no executor")
    return found


def workers_in(folder: Path) -> list[int]:
    """Python workers that train in this folder; the JVM of the driver may be there as well."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            with suppress(OSError):
                if (path / "cwd").readlink() == folder and b"pyspark.daemon" in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
    return sorted(found)


def command(folder: Path, executors: int, *more: str) -> subprocess.Popen[bytes]:
    """`hathi train --on spark`, with a cluster of its own; what it says goes to SAID of the folder.

    Not to a pipe: the JVM of a driver that was killed says more as it ends, and would wait for somebody to read it.
    """
    words = ["train", "solver.prototxt", "--on", f"spark=local-cluster[{executors},1,900]", "--threads", "1"]
    words += [word for name, value in SHORT.items() for word in ("--spark-conf", f"{name}={value}")]
    with (folder / SAID).open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli.main", *words, *more], cwd=folder, env=spark_environ(),
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def hit(victim: str, driver: subprocess.Popen[bytes], folder: Path, draws: random.Random) -> bool:
    """Whether somebody was there to be hit."""
    with suppress(OSError, ValueError):
        found = workers_in(folder)
        if not found:
            return False  # a driver that only starts has nothing to lose
        if victim == "driver":
            driver.kill()
        elif victim == "executor":
            os.kill(executor_of(draws.choice(found)), signal.SIGKILL)
        else:
            os.kill(draws.choice(found), signal.SIGSTOP if victim == "hung" else signal.SIGKILL)
        return True
    return False


def disturbed(folder: Path, kills: int, draws: random.Random) -> Counter[str]:
    """One training to its end, with at most so many kills; how many of each kind there were."""
    done: Counter[str] = Counter()
    driver = command(folder, 2, "--shards", "8", "--patience", "8")
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        wait = draws.uniform(0.0, 8.0)
        with suppress(subprocess.TimeoutExpired):
            driver.wait(wait)
            if driver.returncode == 0:
                return done
            if driver.returncode != -signal.SIGKILL:
                print((folder / SAID).read_text())
            driver = command(folder, 2, "--shards", "8", "--patience", "8")
            continue
        if sum(done.values()) < kills:
            victim = draws.choice(VICTIMS)
            done[victim] += hit(victim, driver, folder, draws)
    os.killpg(driver.pid, signal.SIGKILL)
    raise SystemExit(f"the training did not end within {PATIENCE:.0f} s after {done}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draws, done = random.Random(args.seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="hathi-kills-") as place:
        text = shared_runs.solver(ITERATIONS)
        whole = shared_runs.write(Path(place, "whole"), None, text)
        with Within(whole):
            train(Wanted(Path("solver.prototxt"), how=How(threads=1, shards=8)))
        wanted, number = shared_runs.bits(whole, ITERATIONS), 0
        while sum(done.values()) < args.kills:
            number += 1
            folder = shared_runs.write(Path(place, str(number)), None, text)
            done += disturbed(folder, args.kills - sum(done.values()), draws)
            same = shared_runs.bits(folder, ITERATIONS) == wanted
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(done.items()))
            print(f"training {number}: {'the same bits' if same else 'OTHER BITS'}; so far: {kinds}", flush=True)
            if not same:
                raise SystemExit(1)


if __name__ == "__main__":
    main()
