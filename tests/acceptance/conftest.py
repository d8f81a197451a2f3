"""A fresh clone of what is committed, and the commands of its README run in it as typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.environment import environ
from tests.servers.demand import free_port

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Clone:
    """A clone and the environment that a newcomer would have in it."""

    path: Path
    environ: dict[str, str]

    def run(self, command: str, timeout: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
        """A command line as typed into a shell; stdout and stderr together."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.path,
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def readme(self) -> list[tuple[str, list[str]]]:
        """(command, the lines that it prints) of each command in the README's console blocks."""
        found: list[tuple[str, list[str]]] = []
        for block in re.findall(r"^```console\n(.*?)^```", (self.path / "README.md").read_text(), re.S | re.M):
            for line in block.splitlines():
                if line.startswith("$ "):
                    found.append((line[2:], []))
                else:
                    found[-1][1].append(line)
        return found


def wait_until(happened: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Other processes work at their own pace: looks until it happened, and says what did not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def make_clone(folder: Path) -> Clone:
    path = folder / "hathi"
    trust = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(path)], check=True, env={**os.environ, **trust})
    kept = environ("PYTHON")
    # The venv of the tests must not answer for the clone's own; and a port of its own lets two test runs be.
    kept["PATH"] = ":".join(part for part in kept["PATH"].split(":") if part != str(ROOT / ".venv" / "bin"))
    return Clone(path, {**kept, "SAMPLE_PORT": str(free_port()), "SAMPLE_MINUTES": "0.05"})


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The clone in which the README's commands are typed, in their order."""
    return make_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def other_clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """One that a module may maltreat."""
    return make_clone(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def shop(other_clone: Clone) -> Iterator[str]:
    """The origin of the sample's shop, with the sample rendered for it under shop/ in that clone."""
    port = str(free_port())
    done = other_clone.run(f"./scripts/venv.sh runtime && .venv/bin/python sample/render.py --work shop --port {port}")
    assert done.returncode == 0, done.stdout
    command = [sys.executable, "sample/server.py", "shop/sample/web", "--port", port]
    with subprocess.Popen(command, cwd=other_clone.path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield f"http://127.0.0.1:{port}"
        server.kill()
