"""Which processor computes, and that every tensor of a training is there: without a card."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.cli.main import main
from pipeline.errors import SolverError
from pipeline.training.assembly import How
from pipeline.training.engine import devices
from pipeline.training.engine.building import build, build_test
from pipeline.training.engine.devices import device_of, rounds_fast
from pipeline.training.engine.net import TorchNetwork
from pipeline.training.engine.program import Arithmetic
from pipeline.training.job import Wanted
from pipeline.training.learning import Learning
from pipeline.training.updates import SOLVERS, Update
from tests.unit.training.runs import Within, train
from tests.unit.training.test_engine_gradients import CASES, Case, feeds_of, text_of
from tests.unit.training.trained import graph_of

CARD, NOWHERE = torch.device("cuda:0"), torch.device("meta")
PLACED = [case for case in CASES if case.kind != "Filter"]  # whose shapes follow from values


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return int(request.param)


@pytest.mark.parametrize(
    ("cards", "asked", "solver", "device"),
    [
        (0, "", None, "cpu"), (0, "", 0, "cpu"), (0, "none", 0, "cpu"),
        (2, "", None, "cpu"), (2, "", 1, "cuda:1"), (2, "none", 1, "cpu"), (2, "0", 1, "cuda:0"),
        (2, "1", None, "cuda:1"), (1, "all", None, "cuda:0"),
    ],
    indirect=["cards"],
)  # fmt: skip
def test_the_command_decides_and_else_the_solver(cards: int, asked: str, solver: int | None, device: str) -> None:
    assert device_of(asked, solver) == torch.device(device)
    assert (os.environ.get("CUBLAS_WORKSPACE_CONFIG") == ":4096:8") is device.startswith("cuda")


@pytest.mark.parametrize(
    ("cards", "asked", "solver", "says"),
    [
        (0, "0", None, "--gpu 0: torch finds no card"), (0, "all", 0, "--gpu all: torch finds no card"),
        (2, "2", None, "--gpu 2: there is no such card"), (2, "", 3, "device_id: 3: there is no such card"),
        (2, "all", None, "--gpu all asks for several cards"), (2, "0,1", None, "--gpu 0,1 asks for several cards"),
        (1, "first", None, "--gpu first is no card"), (1, "-1", None, "--gpu -1 is no card"),
    ],
    indirect=["cards"],
)  # fmt: skip
def test_a_card_that_is_not_there_is_refused_with_what_to_do(
    cards: int, asked: str, solver: int | None, says: str
) -> None:
    with pytest.raises(SolverError) as refused:
        device_of(asked, solver)
    assert refused.value.message == says
    assert refused.value.exit_code == 2
    assert refused.value.hint


def test_the_command_names_a_card_that_is_not_there_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "net.prototxt").write_text('layer { name: "d" type: "DummyData" top: "d" }')
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1')
    with Within(tmp_path), pytest.raises(SolverError, match="--gpu 0: torch finds no card"):
        train(Wanted(Path("solver.prototxt"), how=How(1, gpu="0")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.prototxt", "solver.prototxt"]


def test_a_cpu_with_a_unit_for_bfloat16_is_known_by_its_flags(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("flags\t: fpu avx512_bf16 amx_tile\n")
    assert not rounds_fast(devices.CPU, info)
    info.write_text("flags\t: fpu amx_bf16 amx_tile\n")
    assert rounds_fast(devices.CPU, info)
    assert not rounds_fast(devices.CPU, tmp_path / "none")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values: what the program reads of them is 0."""
    monkeypatch.setattr(torch.Tensor, "__float__", lambda self: 0.0)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(
        TorchNetwork, "array", lambda self, tensor, into=None: np.zeros(tuple(tensor.shape), np.float32)
    )


def of(case: Case) -> str:
    return f"{case.kind}-{case.body[:60]}-{case.tops}"


def test_a_tensor_that_stays_behind_is_found(unread: None) -> None:
    """What the next test stands on: torch computes shapes and devices for a card that is not there."""
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match="same device"):
        torch.ones(2) + torch.ones(2, device=CARD)


@pytest.mark.parametrize("case", PLACED, ids=of)
def test_every_tensor_of_a_pass_is_on_the_card(case: Case, unread: None) -> None:
    text, feeds = text_of(case)
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = build(graph_of(text), Arithmetic(CARD, exact=case.exact))
        net.forward(feeds_of(net, feeds))
        assert {net.tensor(one.slot).device for one in net.learned} <= {CARD}


@pytest.mark.parametrize("case", PLACED, ids=of)
def test_gradients_are_where_the_weights_are(case: Case, unread: None) -> None:
    text, feeds = text_of(case)
    net = build(graph_of(text), Arithmetic(NOWHERE, exact=case.exact))
    net.backward(feeds_of(net, feeds))
    test = build_test(graph_of(text, "TEST"), net)
    for one in net.learned:
        assert net.tensor(one.slot).device == net.gradient_tensor(one.slot).device == NOWHERE
    assert all(test.tensor(one.slot).device == NOWHERE for one in test.learned)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_update_and_its_history_are_where_the_weights_are(solver: str, unread: None) -> None:
    text, feeds = text_of(next(case for case in CASES if case.kind == "InnerProduct"))
    net = build(graph_of(text), Arithmetic(NOWHERE))
    learning = Learning(Update(solver, 0.9, weight_decay=0.1, regularization="L1", clip=1.0, iter_size=2), net)
    net.backward(feeds_of(net, feeds))
    assert learning.update(0.1, 3, lambda clipped: None) is None
    learning.restore([np.zeros(tuple(one.shape), np.float32) for one in learning.history])
    assert {one.device for one in learning.history} == {NOWHERE}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "test", "net", "weights", "--gpu", "0"], "hathi train test takes no --gpu"),
        (["train", "test", "net", "weights", "--precision", "bf16"], "hathi train test takes no --precision"),
        (["train", "time", "net", "--gpu", "0"], "hathi train time takes no --gpu"),
        (["train", "solver", "--job", "--gpu", "0"], "--gpu and --job exclude each other"),
    ],
)
def test_an_option_that_a_command_does_not_take_is_refused(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err
