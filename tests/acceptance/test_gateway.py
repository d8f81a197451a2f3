"""`./run-all.sh CONFIG`: a gateway's daemons and a compute box, with folders as lake and bucket."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from tests.acceptance.conftest import Clone, free_port

CONFIG = "config/gateway.toml"
SOON = 60.0


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Other processes work at their own pace: looks until it happened, and says what did not."""
    deadline = time.monotonic() + SOON
    while not happened():
        assert time.monotonic() < deadline, f"not within {SOON} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def gateway(clone: Clone) -> Iterator[Clone]:
    """The clone with a shop that serves, refs in the gateway's lake, and no daemon left behind."""
    port = str(free_port())
    environ = {**clone.environ, "HATHI_DAEMON__POLL_SECONDS": "0.5", "HATHI_FETCH__ALLOW_PRIVATE": "true"}
    mine = Clone(clone.path, environ)
    done = mine.run(f"./scripts/venv.sh runtime && .venv/bin/python sample/render.py --work shop --port {port}")
    assert done.returncode == 0, done.stdout
    (mine.path / "work" / "sample").mkdir(parents=True, exist_ok=True)
    shutil.copy(mine.path / "shop/sample/random_features.caffemodel", mine.path / "work/sample")
    shutil.copytree(mine.path / "shop/lake/refs", mine.path / "work/gateway/lake/refs")
    server = subprocess.Popen(
        [sys.executable, mine.path / "sample/server.py", mine.path / "shop/sample/web", "--port", port],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    try:
        yield mine
    finally:
        mine.run(f"./run-all.sh stop {CONFIG}")
        server.kill()
        server.wait()


def test_the_daemons_and_a_compute_box_deliver_features_until_they_are_stopped(gateway: Clone) -> None:
    done = gateway.run(f"./run-all.sh {CONFIG}")
    assert done.returncode == 0, done.stdout
    assert "started ship" in done.stdout
    assert "started deliver" in done.stdout

    again = gateway.run(f"./run-all.sh {CONFIG}")
    assert again.returncode == 1
    assert "already running: ship" in again.stdout
    assert gateway.run(f"./run-all.sh status {CONFIG}").returncode == 0

    bucket = gateway.path / "work/shared-bucket"
    wait_until(lambda: len(list(bucket.glob("main/c/*/end"))) == 3, "three shipments in the bucket")
    computed = gateway.run(".venv/bin/hathi run --once --config config/compute.toml compute aggregate")
    assert computed.returncode == 0, computed.stdout
    lake = gateway.path / "work/gateway/lake"
    wait_until(lambda: len(list(bucket.glob("main/c/*/done"))) == 3, "three shipments delivered")
    count = duckdb.sql(f"select count(*) from '{lake}/features/*/*/features/*.parquet'").fetchone()
    assert count == (36,)

    summaries = gateway.run("./scripts/print_logs.sh").stdout
    assert "\t[ship]\tSummary" in summaries
    assert "\t[deliver]\tSummary" in summaries

    stopped = gateway.run(f"./run-all.sh stop {CONFIG}")
    assert stopped.returncode == 0, stopped.stdout
    assert stopped.stdout.count("stopped") == 2
    assert gateway.run(f"./run-all.sh status {CONFIG}").returncode == 1


def test_with_estop_nothing_is_started(gateway: Clone) -> None:
    estop = gateway.path / "work/gateway/state/ESTOP"
    estop.parent.mkdir(parents=True, exist_ok=True)
    estop.touch()
    try:
        done = gateway.run(f"./run-all.sh {CONFIG}")
    finally:
        estop.unlink()
    assert done.returncode == 4
    assert f"ESTOP engaged: not started; remove {estop} to start" in done.stdout


def test_a_configuration_that_is_wrong_starts_nothing(gateway: Clone, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text((gateway.path / CONFIG).read_text().replace("poll_seconds = 10.0", "poll_second = 10.0"))
    done = gateway.run(f"./run-all.sh {path}", HATHI_DAEMON__POLL_SECONDS="1")
    assert done.returncode == 2
    assert "unknown key daemon.poll_second" in done.stdout
