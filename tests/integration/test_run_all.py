"""`./run-all.sh CONFIG` and ESTOP: it asks `hathi stop --show`; this host's file decides where that cannot say."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.process.lock import left_behind
from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.integration.test_compute_cron import Installation
from tests.servers.demand import until

NOTHING_STARTS = "run-all: ESTOP engaged: nothing starts on"


class Gateway(Installation):
    """An installation with a gateway's configuration, and what `run-all.sh` does there."""

    @property
    def config(self) -> Path:
        return self.gateway("shop")

    @property
    def estop(self) -> Path:
        return self.folder / "shop" / "state" / "ESTOP"

    @property
    def remote_estop(self) -> Path:
        return self.folder / "bucket" / "shop" / "h" / "alive" / "ESTOP"

    def run_all(self, *words: str) -> tuple[int, str]:
        command = ["./run-all.sh", *words, str(self.config)]
        done = subprocess.run(
            command,
            cwd=self.root,
            env=environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path, ("shop",))
    made.make()
    shutil.copy(ROOT / "run-all.sh", made.root)
    made.refs("shop", "one")
    yield made
    made.run_all("kill")


def engage(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()


def test_estop_here_or_in_the_bucket_refuses_the_start_and_status_says_where_it_stands(gateway: Gateway) -> None:
    for place, where in (
        (gateway.estop, f"this host until you remove {gateway.estop}"),
        (gateway.remote_estop, f"any host until you delete {gateway.remote_estop}"),
    ):
        engage(place)
        code, said = gateway.run_all()
        assert (code, said.splitlines()[-1]) == (4, "run-all: nothing was started"), said
        assert f"{NOTHING_STARTS} {where}" in said
        assert f"{NOTHING_STARTS} {where}" in gateway.run_all("status")[1]
        place.unlink()
    assert not list((gateway.folder / "shop" / "state").glob("*.lock")), "no daemon has begun"
    code, said = gateway.run_all()
    assert (code, said.count("run-all: started")) == (0, 2), said
    assert "ESTOP" not in said


@pytest.mark.parametrize("engaged", [False, True])
def test_a_bucket_that_does_not_answer_leaves_the_file_to_decide_and_that_is_said(
    gateway: Gateway, engaged: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # it takes the connection and never answers
        far = f'url = "s3://far/x"\nendpoint = "http://127.0.0.1:{deaf.getsockname()[1]}"\nregion = "r"\n'
        far += 'access_key = "k"\nsecret_key = "k"'
        text = gateway.config.read_text()
        gateway.config.write_text(re.sub(r'(?m)^url = ".*/bucket"$', far, text))
        if engaged:
            engage(gateway.estop)
        code, said = gateway.run_all()
    assert said.startswith("run-all: not seen: whether ESTOP stands in the bucket"), said
    assert (code, NOTHING_STARTS in said) == ((4, True) if engaged else (0, False)), said


@pytest.mark.parametrize("engaged", [False, True])
def test_a_configuration_that_cannot_be_read_starts_nothing_says_why_and_tells_of_estop_all_the_same(
    gateway: Gateway, engaged: bool
) -> None:
    gateway.config.write_text(gateway.config.read_text() + "nonsense = [\n")
    if engaged:
        engage(gateway.estop)
    code, said = gateway.run_all()
    assert "run-all: the configuration cannot be read: " in said
    assert "run-all: not seen: whether ESTOP stands in the bucket" in said
    assert (code, f"{NOTHING_STARTS} this host" in said) == ((4, True) if engaged else (2, False)), said
    code, said = gateway.run_all("status")
    assert (code, f"{NOTHING_STARTS} this host" in said, "ship does not run" in said) == (1, engaged, True), said
    assert gateway.run_all("stop")[0] == 0


DIES = """#!/bin/bash
if [ "$1 $2" = "serve deliver" ]; then
    echo "pid $$ since now" >"{state}/deliver.lock"
    sleep 0.4
    echo "hathi: its port is taken"
    exit 7
fi
exec {real} "$@"
"""


def test_a_daemon_that_ends_in_its_first_second_is_not_said_to_be_started(gateway: Gateway) -> None:
    command = gateway.root / ".venv" / "bin" / "hathi"
    real = command.rename(command.with_name("hathi-itself"))
    command.write_text(DIES.format(state=gateway.folder / "shop" / "state", real=f'"{real}"'))
    command.chmod(0o755)
    code, said = gateway.run_all()
    assert code == 7, said
    assert "run-all: started ship" in said
    assert "started deliver" not in said
    assert "run-all: deliver did not start:\nhathi: its port is taken" in said


def test_a_daemon_that_a_signal_ends_is_told_with_it(gateway: Gateway) -> None:
    assert gateway.run_all()[0] == 0
    state = gateway.folder / "shop" / "state"
    process = int((state / "ship.lock").read_text().split()[1])
    os.kill(process, signal.SIGSEGV)
    end = state / "ship.ended"
    until(
        lambda: end.exists() and end.read_text() == f"pid {process} exit 139\n", "its parent writes down how it ended"
    )
    assert "): killed by SIGSEGV" in left_behind(state, "ship")
    printed = subprocess.run(
        [gateway.root / "scripts" / "print_logs.sh", gateway.config], env=environ(), capture_output=True, text=True
    )
    assert f"not running: ended unexpectedly (pid {process} since" in printed.stdout
    assert "): killed by SIGSEGV" in printed.stdout
    assert gateway.run_all("stop")[0] == 0
    assert not (state / "deliver.ended").exists(), "who ends in good order needs nobody who tells"
