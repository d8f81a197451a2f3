"""`./run-all.sh CONFIG`: a gateway's daemons and a compute box, with folders as lake and bucket."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.acceptance.conftest import Clone, wait_until

CONFIG = "config/gateway.toml"


@pytest.fixture(scope="module")
def gateway(other_clone: Clone, shop: str) -> Iterator[Clone]:
    """A clone with refs in the gateway's lake and the net where the compute box looks for it; no daemon is left."""
    environ = {**other_clone.environ, "HATHI_DAEMON__POLL_SECONDS": "0.5", "HATHI_FETCH__ALLOW_PRIVATE": "true"}
    mine = Clone(other_clone.path, environ)
    (mine.path / "work" / "sample").mkdir(parents=True)
    shutil.copy(mine.path / "shop/sample/random_features.caffemodel", mine.path / "work/sample")
    shutil.copytree(mine.path / "shop/lake/refs", mine.path / "work/gateway/lake/refs")
    yield mine
    mine.run(f"./run-all.sh stop {CONFIG}")


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
    count = duckdb.sql(f"select count(*) from '{lake}/features/*/*/features/*.parquet'").fetchall()
    assert count == [(36,)]

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
