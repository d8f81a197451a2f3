"""`./run-all.sh` when it is not left in peace."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from tests.acceptance.conftest import Clone, wait_until
from tests.servers.demand import free_port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_killed_at_once_it_leaves_no_server_and_the_next_run_does_the_rest(other_clone: Clone) -> None:
    assert other_clone.run("./scripts/venv.sh runtime").returncode == 0
    port = free_port()
    environ = {**other_clone.environ, "SAMPLE_PORT": str(port)}
    with subprocess.Popen(["./run-all.sh"], cwd=other_clone.path, env=environ, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: answers(port), "the shop is open")
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not answers(port), "the shop ended with the run")

    done = other_clone.run("./run-all.sh", SAMPLE_PORT=str(port))
    assert done.returncode == 0, done.stdout
    assert len(list(other_clone.path.glob("work/lake/features/*T*/*/_SUCCESS"))) == 3
    wait_until(lambda: not answers(port), "the shop closed by itself, soon")


def test_the_shop_stays_open_after_a_run_for_as_long_as_one_says_and_a_second_run_uses_it(
    other_clone: Clone, tmp_path: Path
) -> None:
    assert other_clone.run("./scripts/venv.sh runtime").returncode == 0
    port = str(free_port())
    command = f"{other_clone.path}/.venv/bin/hathi sample {tmp_path}/mine --port {port}"
    first = other_clone.run(f"{command} --minutes 0.2")
    assert first.returncode == 0, first.stdout
    assert f"http://127.0.0.1:{port}/ stays open" in first.stdout
    assert answers(int(port))
    second = other_clone.run(f"{command} --minutes 0.2")
    assert second.returncode == 0, second.stdout
    assert "nothing to do" in second.stdout
    sheet = other_clone.run(
        f"cd {tmp_path}/mine && {other_clone.path}/.venv/bin/hathi similar 101 mug-03 --config hathi.toml --out s.png"
    )
    assert sheet.returncode == 0, sheet.stdout
    assert (tmp_path / "mine/s.png").stat().st_size > 20_000, "with the shop's pictures"
    wait_until(lambda: not answers(int(port)), "the shop has closed by itself")


def test_commands_without_a_configuration_find_that_of_their_installation(other_clone: Clone, tmp_path: Path) -> None:
    hathi = other_clone.path / ".venv/bin/hathi"
    for command in ("status", "health"):
        done = other_clone.run(f"cd {tmp_path} && {hathi} {command}")
        assert done.returncode in (0, 1), done.stdout
        assert "lake sample" in done.stdout


def test_a_taken_port_is_named_with_what_to_do(other_clone: Clone) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = other_clone.run("rm -rf work && ./run-all.sh", SAMPLE_PORT=str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stdout
    assert "SAMPLE_PORT" in done.stdout


def test_with_estop_nothing_runs(other_clone: Clone) -> None:
    estop = other_clone.path / "work/state/ESTOP"
    done = other_clone.run(f"rm -rf work && mkdir -p {estop.parent} && touch {estop} && ./run-all.sh")
    assert done.returncode == 4
    assert f"ESTOP engaged: nothing was started; remove {estop}, then start again" in done.stdout
    assert not list(other_clone.path.glob("work/bucket/*"))
