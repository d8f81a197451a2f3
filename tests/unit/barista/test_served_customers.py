"""A barista and its customers, real processes all of them: each gets what is its own, and nobody disturbs another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hathi import barista
from pipeline.barista import interface
from pipeline.barista.customer import Customer
from pipeline.barista.messages import Refused, socket_made
from pipeline.errors import ConfigError, PermanentError, TemporaryError
from pipeline.process.host import start_of
from pipeline.training import rates
from pipeline.training.learning import Learning
from pipeline.training.statistics import take_up
from tests.unit.barista.inputs import ROWS, batch
from tests.unit.barista.served import ROOT, Single, running, same, solver_in, until

MANY = 16
PASSES = """
import os, sys
import numpy as np
from pipeline.barista.customer import Customer
from tests.unit.barista.inputs import batch

file, out, go = sys.argv[1:]
children = []
for seed in range({many}):
    child = os.fork()
    if child:
        children.append(child)
        continue
    code = 1
    try:
        with Customer(file) as customer:
            while not os.path.exists(go):
                pass
            for number in range({passes}):
                answer = customer.gradient(batch(seed * 100 + number), number=seed * 100 + number)
            np.savez(f"{{out}}/{{seed}}.npz", loss=answer.loss, version=answer.version,
                     **{{name.replace("/", "|"): one for name, one in customer.gradients.items()}})
        code = 0
    finally:
        os._exit(code)
codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in children]
assert "torch" not in sys.modules
sys.exit(max(codes))
"""
FOREVER = """
import sys
from pipeline.barista.customer import Customer
from tests.unit.barista.inputs import batch

with Customer(sys.argv[1]) as customer:
    print(customer.about()["customers"], flush=True)
    while True:
        customer.gradient(batch(1))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("barista")


@pytest.fixture(scope="module")
def single(place: Path) -> Single:
    return Single(solver_in(place))


@pytest.fixture(scope="module")
def file(place: Path) -> Iterator[Path]:
    path = place / "served.interface"
    with barista.start(solver_in(place), path, threads=1, idle=0):
        yield path


@pytest.fixture
def customer(file: Path) -> Iterator[Customer]:
    with Customer(file, seconds=120) as one:
        yield one


def test_sixteen_customers_at_once_get_the_gradients_of_their_own_data_to_the_bit(
    file: Path, single: Single, tmp_path: Path
) -> None:
    passes, go = 6, tmp_path / "go"
    command = [sys.executable, "-c", PASSES.format(many=MANY, passes=passes), str(file), str(tmp_path), str(go)]
    with running(command, cwd=ROOT) as (many,):
        assert until(lambda: _customers(file) == MANY)
        go.touch()
        assert many.wait(240) == 0
    for seed in range(MANY):
        number = seed * 100 + passes - 1
        loss, gradients = single.gradient(batch(number), number)
        found = dict(np.load(tmp_path / f"{seed}.npz"))
        assert float(found.pop("loss")) == float(loss), seed
        assert int(found.pop("version")) == 0
        assert same({name.replace("|", "/"): one for name, one in found.items()}, gradients), seed
    assert len({np.load(tmp_path / f"{seed}.npz")["ip2|0"].tobytes() for seed in range(MANY)}) == MANY


def _customers(file: Path) -> int:
    from pipeline.barista.starting import about

    return int(about(file, 60)["customers"])


def test_fewer_rows_than_a_batch_give_what_a_net_of_so_many_rows_computes(
    customer: Customer, single: Single, tmp_path: Path
) -> None:
    net = (Path(single.read.net.source.split(": ")[-1])).read_text()
    smaller = Single(solver_in(tmp_path / "smaller", net.replace(f"dim: {ROWS} ", "dim: 3 ")))
    assert smaller.net.inputs["data"][0] == 3
    for name, values in single.weights().items():
        smaller.net.load(smaller.net.learned[smaller.names.index(name)].slot, values)
    answer = customer.gradient(batch(4, 3), number=4, blobs=["ip2", "conv"])
    loss, gradients = smaller.gradient(batch(4, 3), 4)
    assert answer.loss == float(loss)
    assert same(dict(customer.gradients), gradients)
    assert {name: one.shape for name, one in answer.blobs.items()} == {
        "loss": (), "ip2": (3, 5), "conv": (3, 6, 8, 8),
    }  # fmt: skip


def test_a_pass_leaves_data_parameters_and_statistics_as_they_are(customer: Customer) -> None:
    before = {name: one.copy() for name, one in customer.parameters.items()}
    given = batch(9)
    customer.gradient(given)
    customer.forward(phase="TRAIN")
    assert same(before, dict(customer.parameters))
    assert same(given, dict(customer.data))
    assert customer.gradients["bn/2"].tolist() == [1.0]


def test_a_forward_pass_tests_as_the_solvers_own_test_net_does(customer: Customer, single: Single) -> None:
    answer = customer.forward(batch(2), blobs=["ip2"])
    test = single.nets.tests[0].network
    kept = test.keep()
    result = test.forward(batch(2))
    value = kept.value("ip2")
    assert value is not None
    assert answer.loss == float(result.loss)
    assert answer.blobs["ip2"].tobytes() == value.tobytes()
    assert answer.blobs["accuracy"].tobytes() == result.outputs["accuracy"].tobytes()


def test_updates_are_those_of_a_single_process_to_the_bit_and_each_has_a_version(place: Path, tmp_path: Path) -> None:
    """Nesterov, decay, a falling rate, two passes summed by two customers, and BatchNorm's sums of both."""
    path = solver_in(tmp_path / "one")
    alone = Single(path)
    learning = Learning(alone.read.update, alone.net)
    with (
        barista.start(path, tmp_path / "x.interface", threads=1) as served,
        Customer(served.interface) as first,
        Customer(served.interface) as second,
    ):
        for step in range(4):
            numbers = (2 * step, 2 * step + 1)
            for each, number in zip((first, second), numbers, strict=True):
                each.gradient(batch(number), number=number, version=step)
            for name, gradient in first.gradients.items():
                gradient += second.gradients[name]
            updated = first.update(passes=2, version=step)
            assert (updated.version, updated.iteration) == (step + 1, step + 1)
            with pytest.raises(Refused, match=f"of version {step + 1}, not {step}"):
                second.gradient(version=step)
            found = [alone.gradient(batch(number), number)[1] for number in numbers]
            summed = {name: found[0][name] + found[1][name] for name in alone.names}
            alone.net.clear()
            moving = {slot for one in alone.net.moving for slot in one.blobs}
            by_slot = {one.slot: summed[name] for name, one in zip(alone.names, alone.net.learned, strict=True)}
            for slot, values in by_slot.items():
                if slot not in moving:
                    alone.net.place_gradient(slot, values.copy())
            rate = rates.rate_of(alone.read.policy, step, 0)
            assert learning.update(rate, step, lambda clipped: None, 2) is None
            take_up(alone.net, {slot: by_slot[slot] for slot in moving})
            assert updated.rate == rate
            assert same(dict(first.parameters), alone.weights())
            assert same(dict(second.parameters), alone.weights()), "both map the same memory"
        history = b"".join(np.asarray(one).tobytes() for one in learning.history)
        assert b"".join(one.tobytes() for one in first.history.values()) == history
        assert any(one.any() for one in first.history.values())
        assert same(dict(second.copy()), dict(first.parameters))
        assert second.version == 4


def test_weights_are_taken_once_a_version_by_whoever_has_them_first(place: Path, tmp_path: Path) -> None:
    path = solver_in(tmp_path / "given")
    with (
        barista.start(path, tmp_path / "x.interface", threads=1) as served,
        Customer(served.interface) as first,
        Customer(served.interface) as second,
    ):
        for name, one in first.given.items():
            one[...] = first.parameters[name] + 1
        wanted = {name: one.copy() for name, one in first.given.items()}
        assert first.weights(41)
        assert not second.weights(41), "zeros that stand in the other slot are not looked at"
        assert second.version == 41
        assert same(dict(second.parameters), wanted)
        first.given["ip2/0"][0, 0] = np.nan
        with pytest.raises(Refused, match="the weights ip2/0 is not finite"):
            first.weights(42)
        assert same(dict(second.parameters), wanted)
        first.gradient(batch(0))
        first.gradients["conv/0"][...] = np.inf
        with pytest.raises(Refused, match="the gradient of conv/0 is not finite"):
            first.update()
        assert same(dict(second.parameters), wanted)
        assert second.about()["version"] == 41


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"data": np.zeros((ROWS, 1, 12, 13))}, r"'data' is given with the shape \(8, 1, 12, 13\)"),
        ({"data": np.zeros((ROWS + 1, 1, 12, 12))}, "'data' is given with the shape"),
        ({"data": np.zeros(())}, "'data' is given with the shape"),
        ({"data": np.zeros((3, 1, 12, 12)), "label": np.zeros(4)}, "'label' is given with the shape"),
        ({"image": np.zeros(3)}, "the net takes no 'image'"),
    ],
)
def test_data_of_another_shape_are_named_before_anything_is_asked(
    customer: Customer, data: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        customer.gradient(data)
    assert customer.gradient(batch(0)).version == 0


@pytest.mark.parametrize("label", [-1, 5, 2.5, np.nan, np.inf, 1e30])
def test_a_label_that_the_net_does_not_know_is_named(customer: Customer, label: float) -> None:
    given = batch(0)
    given["label"][3] = label
    with pytest.raises(Refused, match="'label' holds the label"):
        customer.gradient(given)
    assert np.isfinite(customer.gradient(batch(0)).loss)


SAID = [
    b"\xff\xfe",
    b"[]",
    b"{}",
    b'{"verb": "brew"}',
    b'{"verb": "gradient"}',
    b'{"verb": "layout"}',
    b'{"verb": "gradient", "rows": 1.5}',
    b'{"verb": "gradient", "rows": true}',
    b'{"verb": "gradient", "rows": 0}',
    b'{"verb": "gradient", "rows": 8, "number": -1}',
    b'{"verb": "gradient", "rows": 8, "blobs": "ip2"}',
    b'{"verb": "gradient", "rows": 8, "blobs": ["no such"]}',
    b'{"verb": "forward", "rows": 8, "phase": "BREW"}',
    b'{"verb": "update", "passes": 0}',
    b'{"verb": "update", "rate": "1"}',
    b'{"verb": "update", "rate": 1e999}',
    b'{"verb": "weights"}',
    b"x" * 100_000,
]


def test_whatever_a_customer_says_is_answered_and_nobody_else_notices(file: Path, customer: Customer) -> None:
    customer.gradient(batch(0), number=0)
    kept = {name: one.copy() for name, one in customer.gradients.items()}
    answers = []
    with socket_made() as other:
        other.connect(str(interface.socket_of(file)))
        for one in SAID:
            other.send(one)
            answers.append(json.loads(other.recv(1 << 17)))
    assert ["error" in one for one in answers] == [b"layout" not in one for one in SAID]
    assert all(one["error"][0] for one in answers if "error" in one)
    customer.gradient(batch(0), number=0)
    assert same(kept, dict(customer.gradients))


def test_a_customer_that_takes_no_answers_is_sent_away(file: Path, customer: Customer) -> None:
    with socket_made() as deaf:
        deaf.connect(str(interface.socket_of(file)))
        deaf.settimeout(60)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _for_ever(lambda: deaf.send(b'{"verb": "about"}'))
    assert np.isfinite(customer.gradient(batch(0)).loss)


def _for_ever(say: Callable[[], object]) -> None:
    while True:
        say()


def test_a_customer_that_is_killed_in_the_middle_frees_its_slot_which_is_zeros_for_the_next(
    file: Path, single: Single
) -> None:
    before = _customers(file)
    command = [sys.executable, "-c", FOREVER, str(file)]
    with running(command, command, command, cwd=ROOT) as begun:
        for one in begun:
            assert one.stdout is not None
            assert int(one.stdout.readline()) > before
        with Customer(file) as beside:
            for one in begun:
                one.send_signal(signal.SIGKILL)
                beside.gradient(batch(7), number=7)
                assert same(dict(beside.gradients), single.gradient(batch(7), 7)[1])
        assert until(lambda: _customers(file) == before)
    with ExitStack() as all_slots:
        rest = [all_slots.enter_context(Customer(file)) for _ in range(16 - before)]
        assert not any(one.any() for each in rest for one in (*each.data.values(), *each.gradients.values()))
        with pytest.raises(Refused, match="all 16 slots of the barista are taken"):
            Customer(file)
        assert np.isfinite(rest[0].gradient(batch(0)).loss)
    assert until(lambda: _customers(file) == before)


def test_a_customer_of_another_user_is_sent_away(file: Path, customer: Customer) -> None:
    if os.geteuid():
        pytest.skip("only root may become another user")
    code = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.chdir(os.path.dirname(sys.argv[1]))\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    s.connect(os.path.basename(sys.argv[1])); print('in')\n"
        '    print(s.send(b\'{"verb": "about"}\') and s.recv(99))\n'
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )
    path = interface.socket_of(file)

    def other() -> list[str]:
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert other() == ["PermissionError"]
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    path.parent.chmod(0o711)
    try:
        said = other()
        assert said[0] == "in"
        assert said[1] in ("b''", "ConnectionResetError", "BrokenPipeError")
    finally:
        path.chmod(0o600)
        path.parent.chmod(0o700)
    assert np.isfinite(customer.gradient(batch(0)).loss)


def test_the_end_of_a_killed_barista_is_seen_at_once_and_told_of_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.interface"
    served = barista.start(solver_in(tmp_path / "killed"), path, threads=1)
    with Customer(path) as customer:
        gradient = customer.gradient(batch(0))
        kept = customer.gradients["ip2/0"].copy()
        os.kill(served.pid, signal.SIGKILL)
        assert until(lambda: start_of(served.pid) == "")
        with pytest.raises(PermanentError, match=r"the barista of .* has ended") as told:
            customer.gradient(batch(0))
        assert "ended unexpectedly" in told.value.detail
        assert np.array_equal(customer.gradients["ip2/0"], kept), "what was mapped stays"
        assert gradient.version == 0
    with pytest.raises(PermanentError, match="has ended"):
        Customer(path)
    with barista.start(solver_in(tmp_path / "killed"), path, threads=1) as again:
        assert again.fresh
        assert again.pid != served.pid
        with Customer(path) as customer:
            customer.gradient(batch(0))
            assert np.array_equal(customer.gradients["ip2/0"], kept)
    assert not path.exists()


def test_an_answer_that_does_not_come_in_time_is_an_error(tmp_path: Path) -> None:
    """Somebody listens there, and says nothing."""
    path = tmp_path / "hung.interface"
    interface.write(path, interface.Interface("solver.prototxt", os.getpid(), "2026-01-01 00:00:00", "0"))
    with interface.listening(path), pytest.raises(TemporaryError, match="did not answer in time"):
        Customer(path, seconds=0.2)
