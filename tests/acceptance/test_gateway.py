"""`./run-all.sh CONFIG`: a gateway's daemons and a compute box, with folders as lake and bucket."""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.acceptance.conftest import Clone, wait_until

CONFIG = "config/gateway.toml"
CRON = "scripts/compute-cron.sh config/compute.toml"


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
    computed = gateway.run(CRON)
    assert (computed.returncode, computed.stdout) == (0, "")
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


def test_estop_kill_of_everything_and_a_new_start_lose_nothing(gateway: Clone, shop: str) -> None:
    bucket, lake = gateway.path / "work/shared-bucket", gateway.path / "work/gateway/lake"
    gateway_estop, box_estop = (gateway.path / f"work/{host}/state/ESTOP" for host in ("gateway", "compute"))
    rows = [f"505,again-{number},{shop}/mug-{number % 12:02}.jpg" for number in range(90)]
    before = set((bucket / "main/c").glob("*/plan"))

    assert gateway.run(f"./run-all.sh {CONFIG}").returncode == 0
    (lake / "refs" / "again.csv").write_text("\n".join(["partner_id,sku,url", *rows, ""]))
    wait_until(lambda: set((bucket / "main/c").glob("*/plan")) - before, "ship has begun with the new refs")
    (name,) = {path.parent.name for path in set((bucket / "main/c").glob("*/plan")) - before}
    gateway_estop.touch()
    kill_all(gateway, "gateway")
    refused = gateway.run(f"./run-all.sh {CONFIG}")
    assert (refused.returncode, "ESTOP engaged" in refused.stdout) == (4, True)
    gateway_estop.unlink()
    assert gateway.run(f"./run-all.sh {CONFIG}").returncode == 0
    wait_until(lambda: (bucket / f"main/c/{name}/end").exists(), "ship went on")

    with subprocess.Popen(
        ["bash", "-c", CRON], cwd=gateway.path, env=gateway.environ, start_new_session=True, stderr=subprocess.DEVNULL
    ) as cron:
        wait_until(lambda: list((bucket / f"main/c/{name}").glob("*/t/*/*")), "the box has claimed a batch")
        box_estop.touch()
        os.killpg(cron.pid, signal.SIGKILL)
    kill_all(gateway, "compute")
    assert gateway.run(CRON).returncode == 4
    assert (gateway.path / "work/compute/state/_PIPE_RUNNING").exists(), "it died, and could not take it away"
    assert "the last run of compute died" in gateway.run("scripts/print_logs.sh config/compute.toml").stdout
    box_estop.unlink()
    done = gateway.run(CRON)
    assert (done.returncode, done.stdout) == (0, "")
    assert "the last run died: pid" in (gateway.path / "logs/compute-aggregate.log").read_text()

    wait_until(lambda: (bucket / f"main/c/{name}/done").exists(), "what was open is delivered")
    count = duckdb.sql(
        f"select count(*), count(distinct external_id) from '{lake}/features/*/505/features/*.parquet'"
    ).fetchall()
    assert count == [(90, 90)]
    assert gateway.run(f"./run-all.sh stop {CONFIG}").returncode == 0
    verified = gateway.run(f".venv/bin/hathi verify --deep --config {CONFIG}")
    assert verified.returncode == 0, verified.stdout


def test_without_a_configuration_status_and_stop_are_about_what_was_started(gateway: Clone, tmp_path: Path) -> None:
    """Also when its file has been broken since; what something else started is named, and left alone."""
    mine = tmp_path / "mine.toml"
    text = (gateway.path / CONFIG).read_text().replace("../work/", f"{tmp_path}/")
    mine.write_text(text)
    (tmp_path / "gateway/lake/refs").mkdir(parents=True)
    other = tmp_path / "other.toml"
    other.write_text(text.replace(f'state = "{tmp_path}/gateway/state"', f'state = "{tmp_path}/other/state"'))
    with subprocess.Popen(
        [".venv/bin/hathi", "serve", "deliver", "--config", str(other)], cwd=gateway.path, env=gateway.environ
    ) as theirs:
        try:
            assert gateway.run(f"./run-all.sh {mine}").returncode == 0
            mine.write_text("broken = [")
            shown = gateway.run("./run-all.sh status")
            assert shown.returncode == 0, shown.stdout
            assert f"configuration {mine}:" in shown.stdout
            assert shown.stdout.count(" runs: process ") == 2
            assert f"something else, which has to end it: process {theirs.pid}: hathi serve deliver" in shown.stdout
            stopped = gateway.run("./run-all.sh stop")
            assert (stopped.returncode, stopped.stdout.count(" stopped")) == (0, 2), stopped.stdout
            assert theirs.poll() is None
        finally:
            gateway.run("./run-all.sh kill")
            theirs.terminate()


def kill_all(gateway: Clone, host: str) -> None:
    """`kill -9` of whoever left his number in a lock file of the host, unless the number is another's by now."""
    for path in (gateway.path / "work" / host / "state").glob("*.lock"):
        if not (left := path.read_text()):
            continue  # let go in good order: a prune that is over
        process = Path("/proc") / left.split()[1]
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if str(gateway.path) in (process / "cmdline").read_text():
                os.kill(int(process.name), signal.SIGKILL)


def test_the_systemd_unit_says_what_systemd_understands(gateway: Clone, tmp_path: Path) -> None:
    unit = gateway.path / "config" / "systemd" / "hathi@.service"
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(unit.read_text())
    service = parsed["Service"]
    assert (service["SuccessExitStatus"], service["Restart"]) == ("4", "on-failure")
    for key in ("ExecStart", "ExecStartPre"):
        program = service[key].split()[0].replace("/opt/hathi", str(gateway.path))
        assert os.access(program, os.X_OK), program
    words = service["ExecStart"].replace("/opt/hathi", str(gateway.path)).replace("%i", "ship").split()
    assert Path(words[-1]).exists()
    assert gateway.run(f"{' '.join(words[:2])} --help").returncode == 0
    if shutil.which("systemd-analyze"):  # where there is none, the lines above are what can be looked at
        copy = tmp_path / "hathi@ship.service"
        copy.write_text(unit.read_text().replace("/opt/hathi", str(gateway.path)))
        done = gateway.run(f"systemd-analyze verify {copy}", PATH=os.environ["PATH"])
        assert (done.returncode, str(copy) in done.stdout) == (0, False), done.stdout


@pytest.mark.parametrize(
    "name", ["hathi-service", "hathi-service-worker@", "hathi-service-scale", "hathi-service-prune"]
)
def test_the_units_of_the_service_say_what_systemd_understands(gateway: Clone, tmp_path: Path, name: str) -> None:
    folder = gateway.path / "config" / "systemd"
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string((folder / f"{name}.service").read_text())
    service = parsed["Service"]
    assert service["SuccessExitStatus"] == "4"
    words = service["ExecStart"].replace("/opt/hathi", str(gateway.path)).split()
    assert os.access(words[0], os.X_OK)
    assert Path(words[-1]).exists()
    assert gateway.run(f"{' '.join(words[:2])} --help").returncode == 0
    if shutil.which("systemd-analyze"):  # where there is none, the lines above are what can be looked at
        copies = []
        for unit in folder.glob(f"{name}.*"):
            copies.append(tmp_path / unit.name.replace("@", "@1"))
            copies[-1].write_text(unit.read_text().replace("/opt/hathi", str(gateway.path)))
        done = gateway.run(f"systemd-analyze verify {' '.join(map(str, copies))}", PATH=os.environ["PATH"])
        assert (done.returncode, str(tmp_path) in done.stdout) == (0, False), done.stdout


def test_with_estop_nothing_is_started(gateway: Clone) -> None:
    estop = gateway.path / "work/gateway/state/ESTOP"
    estop.parent.mkdir(parents=True, exist_ok=True)
    estop.touch()
    try:
        done = gateway.run(f"./run-all.sh {CONFIG}")
    finally:
        estop.unlink()
    assert done.returncode == 4
    assert f"run-all: ESTOP engaged: nothing starts on this host until you remove {estop}" in done.stdout


def test_a_configuration_that_is_wrong_starts_nothing(gateway: Clone, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text((gateway.path / CONFIG).read_text().replace("poll_seconds = 10.0", "poll_second = 10.0"))
    done = gateway.run(f"./run-all.sh {path}", HATHI_DAEMON__POLL_SECONDS="1")
    assert done.returncode == 2
    assert "unknown key daemon.poll_second" in done.stdout
