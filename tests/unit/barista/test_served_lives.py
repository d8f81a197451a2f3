"""How a barista begins and ends: who begins it, what refuses it, what ends it, and what is said of one that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hathi import barista
from pipeline.barista import interface, starting
from pipeline.barista.customer import Customer
from pipeline.barista.starting import Order
from pipeline.errors import FormatError, PermanentError
from pipeline.process.host import start_of
from tests.unit.barista.inputs import batch
from tests.unit.barista.served import LAYERS, ROOT, SOLVER, environ, hathi, solver_in, until

MEMORY = (
    'layer { name: "in" type: "MemoryData" top: "data" top: "label" '
    "memory_data_param { batch_size: 4 channels: 1 height: 12 width: 12 } }\n"
)
OLD = (
    'input: "data" input_shape { dim: 4 dim: 7 } input: "target" input_shape { dim: 4 dim: 3 }\n'
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
    'inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }\n'
    'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }\n'
)
SEQUENCE = (
    'layer { name: "in" type: "Input" top: "x" top: "cont" top: "y" input_param { shape { dim: 5 dim: 2 dim: 3 } '
    "shape { dim: 5 dim: 2 } shape { dim: 5 dim: 2 } } }\n"
    'layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h" '
    'recurrent_param { num_output: 4 weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }\n'
    'layer { name: "ip" type: "InnerProduct" bottom: "h" top: "ip" '
    'inner_product_param { num_output: 3 axis: 2 weight_filler { type: "xavier" } } }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" softmax_param { axis: 2 } }\n'
)
ALONE = "".join(line + "\n" for line in SOLVER.splitlines()).replace("test_iter: 1 test_interval: 50 ", "")


@pytest.mark.parametrize(
    ("net", "text"),
    [
        pytest.param(MEMORY + LAYERS, SOLVER, id="MemoryData, BatchNorm and Dropout"),
        pytest.param(OLD, ALONE.replace('"Nesterov"', '"Adam" momentum2: 0.99'), id="inputs of the old form, Adam"),
        pytest.param(SEQUENCE, ALONE.replace('"Nesterov"', '"SGD"') + "clip_gradients: 1\n", id="an LSTM, clipped"),
    ],
)
def test_the_command_tries_every_verb_of_any_net(tmp_path: Path, net: str, text: str) -> None:
    path = solver_in(tmp_path / "solver", net, text)
    done = hathi("test", path, "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["verb"] for one in said} == {
        "layout", "about", "gradient", "forward", "copy", "update", "weights", "stop",
    }  # fmt: skip
    assert all(one["done"] for one in said)


def test_a_barista_of_a_person_is_started_listed_tried_and_stopped_by_its_solver(tmp_path: Path) -> None:
    path = solver_in(tmp_path / "mine", text=SOLVER.replace("CPU", "GPU"))
    more = {"cwd": path.parent}
    begun = hathi("start", path.name, "--threads", "1", "--idle", "100", **more)
    try:
        assert begun.returncode == 0, begun.stderr
        file = Path(begun.stdout.strip())
        assert "solver_mode: GPU; the barista computes on the CPU" in begun.stderr
        assert file.parent.stat().st_mode & 0o777 == 0o700
        again = hathi("start", path.name, **more)
        assert (again.returncode, again.stdout) == (0, begun.stdout)
        rows = [json.loads(line) for line in hathi("list", "--json").stdout.splitlines()]
        (row,) = [one for one in rows if one["interface"] == str(file)]
        assert (row["state"], row["customers"], row["solver"]) == ("runs", "0 of 16", str(path))
        tried = hathi("test", "--interface", file)
        assert tried.returncode == 0, tried.stderr
        assert tried.stdout.count("left out") == 3
        assert hathi("test", path, "--interface", file).returncode == 2
    finally:
        ended = hathi("stop", path.name, **more)
    assert ended.returncode == 0, ended.stderr
    assert "has ended" in ended.stdout
    assert start_of(row["pid"]) == ""
    assert hathi("stop", path.name, **more).returncode == 2
    assert str(file) not in hathi("list").stdout


def test_of_eight_that_start_at_once_one_begins_it_and_all_get_the_same(tmp_path: Path) -> None:
    order = Order(str(solver_in(tmp_path / "eight")), str(tmp_path / "eight.interface"), threads=1)
    found: list[starting.Started] = []
    threads = [threading.Thread(target=lambda: found.append(starting.start(order))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    try:
        assert len(found) == 8
        assert len({one.pid for one in found}) == 1
        assert sum(one.fresh for one in found) == 1
        other = Order(str(solver_in(tmp_path / "other")), order.interface)
        with pytest.raises(PermanentError, match="a barista of another training runs at") as told:
            starting.start(other)
        assert str(tmp_path / "other") in told.value.detail
    finally:
        assert starting.stop(Path(order.interface), 60)


def test_what_is_in_the_way_is_named_and_stays_as_it_is(tmp_path: Path) -> None:
    path = solver_in(tmp_path / "solver")
    file = tmp_path / "x.interface"
    taken = interface.socket_of(file)
    taken.mkdir()
    done = hathi("start", path, "--interface", file)
    assert done.returncode == 1
    assert f"the socket {taken} is taken" in done.stderr
    assert taken.is_dir()
    assert not file.exists()
    mine = tmp_path / "mine.txt"
    mine.write_text("mine\n")
    for action in ("start", "stop", "test"):
        words = [path] if action == "start" else []
        done = hathi(action, *words, "--interface", mine)
        assert done.returncode == 2
        assert f"{mine} is no interface file of a barista" in done.stderr
    assert mine.read_text() == "mine\n"
    done = hathi("start", path, "--interface", "/proc/no/such.interface")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize(
    ("net", "text", "says"),
    [
        ("layer {", SOLVER, "net.prototxt"),
        (LAYERS, SOLVER, "data"),
        (MEMORY + LAYERS, SOLVER.replace("momentum: 0.9", "momentum: oops"), "oops"),
    ],
)
def test_a_solver_that_cannot_be_trained_is_refused_as_by_a_training(
    tmp_path: Path, net: str, text: str, says: str
) -> None:
    done = hathi("start", solver_in(tmp_path / "solver", net, text), "--interface", tmp_path / "x.interface")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert interface.alive(tmp_path / "x.interface") is None
    assert not (tmp_path / "x.interface").exists()


def test_an_interface_file_of_another_hathi_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.interface"
    interface.write(file, interface.Interface("solver.prototxt", 1, "2026-01-01 00:00:00", "9.9", 2))
    with pytest.raises(FormatError, match="of another version of Hathi"):
        Customer(file)


def test_a_long_path_of_an_interface_file_works_like_a_short_one(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a" * 60] * 4)
    with barista.start(solver_in(tmp_path / "solver"), folder / "x.interface", threads=1) as served:
        assert len(str(interface.socket_of(folder / "x.interface"))) > 108
        with Customer(served.interface) as customer:
            assert customer.gradient(batch(0)).version == 0


def test_a_barista_without_customers_ends_and_one_with_a_customer_stays(tmp_path: Path) -> None:
    file = tmp_path / "x.interface"
    with barista.start(solver_in(tmp_path / "solver"), file, threads=1, idle=2) as served:
        with Customer(file) as customer:
            time.sleep(4)
            assert customer.about()["customers"] == 1
        assert until(lambda: start_of(served.pid) == "")
    assert not file.exists()
    with pytest.raises(PermanentError, match="no barista is at"):
        Customer(file)


def test_estop_ends_it_and_lets_none_begin(tmp_path: Path) -> None:
    config = tmp_path / "hathi.toml"
    config.write_text(
        f'state = "{tmp_path}/state"\n[bucket]\nurl = "file://{tmp_path}/bucket"\n[logs]\nfolder = "{tmp_path}/logs"\n'
    )
    (tmp_path / "state").mkdir()
    path, file = solver_in(tmp_path / "solver"), tmp_path / "x.interface"
    words = ["start", path, "--interface", file, "--threads", "1", "--config", config]
    done = hathi(*words)
    assert done.returncode == 0, done.stderr
    pid = interface.read(file).pid
    with Customer(file) as customer:
        (tmp_path / "state" / "ESTOP").touch()
        assert until(lambda: start_of(pid) == "", 30)
        with pytest.raises(PermanentError, match="has ended"):
            customer.gradient(batch(0))
    assert not file.exists()
    assert "ESTOP" in (tmp_path / "logs" / "barista.log").read_text()
    done = hathi(*words)
    assert done.returncode == 4
    assert "ESTOP engaged" in done.stderr


def test_an_interface_file_that_somebody_deletes_comes_back_and_without_its_socket_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "x.interface"
    served = barista.start(solver_in(tmp_path / "solver"), file, threads=1)
    try:
        before = file.read_bytes()
        file.unlink()
        assert until(lambda: file.exists() and file.read_bytes() == before, 30)
        rows = [json.loads(line) for line in hathi("list", "--json").stdout.splitlines()]
        assert [one["state"] for one in rows if one["interface"] == str(file)] == ["runs"]
        interface.socket_of(file).unlink()
        assert until(lambda: start_of(served.pid) == "", 30), "nobody can find it any more"
        assert not file.exists()
    finally:
        if start_of(served.pid):
            os.kill(served.pid, signal.SIGKILL)


def test_sigterm_ends_it_in_good_order(tmp_path: Path) -> None:
    file = tmp_path / "x.interface"
    served = barista.start(solver_in(tmp_path / "solver"), file, threads=1)
    os.kill(served.pid, signal.SIGTERM)
    assert until(lambda: start_of(served.pid) == "", 30)
    assert not file.exists()
    assert not interface.socket_of(file).exists()


OWNER = """
import sys, time
from hathi import barista
served = barista.start(sys.argv[1], sys.argv[2], threads=1)
print(served.pid, flush=True)
time.sleep(600)
"""


def test_a_barista_ends_with_its_owner_whatever_it_computes_then(tmp_path: Path) -> None:
    path, file = solver_in(tmp_path / "solver"), tmp_path / "x.interface"
    command = [sys.executable, "-c", OWNER, str(path), str(file)]
    with subprocess.Popen(command, cwd=ROOT, env=environ(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        with Customer(file) as customer:
            customer.gradient(batch(0))
            owner.kill()
            assert until(lambda: start_of(pid) == "", 30)
    assert until(lambda: interface.alive(file) is None)
    assert not file.exists()


def test_a_barista_that_a_shell_owns_ends_with_the_pipe_that_it_holds(tmp_path: Path) -> None:
    path, file = solver_in(tmp_path / "solver"), tmp_path / "x.interface"
    command = [sys.executable, "-m", "pipeline.cli.main", "barista", "start", str(path), "--interface", str(file)]
    more = ["--until-eof", "--threads", "1", "--json"]
    hear, hold = os.pipe()
    done = subprocess.run([*command, *more], cwd=ROOT, env=environ(), stdin=hear, stdout=subprocess.PIPE, check=True)
    os.close(hear)
    pid = json.loads(done.stdout)["pid"]
    assert start_of(pid) != ""
    os.close(hold)
    assert until(lambda: start_of(pid) == "", 30)
    assert not file.exists()


def test_what_a_killed_barista_left_is_told_of_and_removed_by_stop(tmp_path: Path) -> None:
    file = tmp_path / "x.interface"
    served = barista.start(solver_in(tmp_path / "solver"), file, threads=1)
    os.kill(served.pid, signal.SIGKILL)
    assert until(lambda: start_of(served.pid) == "")
    row = next(one for one in hathi("list").stdout.splitlines() if str(file) in one)
    assert "ended unexpectedly" in row
    done = hathi("test", "--interface", file)
    assert done.returncode == 1
    assert f"the barista of {file} has ended" in done.stderr
    assert f"hathi barista start SOLVER --interface {file}" in done.stderr
    done = hathi("stop", "--interface", file)
    assert (done.returncode, "had ended already" in done.stdout) == (0, True)
    assert not file.exists()
