"""`hathi train time`: Caffe's lines, each layer's share, and what belongs to whom."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from pipeline.cli.main import main
from pipeline.errors import PipelineError
from pipeline.training.assembly import How
from pipeline.training.engine.program import Program
from pipeline.training.engine.stopwatch import Stopwatch
from pipeline.training.solver import Flags
from pipeline.training.timing import measure, net_of

NET = (
    'name: "n"  # net: nothing of a solver\n'
    'layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param { '
    'shape { dim: 4 dim: 2 dim: 9 dim: 9 } shape { dim: 4 } data_filler { type: "gaussian" std: 1 } '
    'data_filler { type: "constant" value: 1 } } }\n'
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 3 '
    'kernel_size: 3 weight_filler { type: "xavier" } } }\n'
    'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }\n'
    'layer { name: "flat" type: "Flatten" bottom: "conv" top: "flat" }\n'
    'layer { name: "left" type: "InnerProduct" bottom: "flat" top: "left" inner_product_param { num_output: 3 '
    'weight_filler { type: "xavier" } } }\n'
    'layer { name: "right" type: "InnerProduct" bottom: "flat" top: "right" inner_product_param { num_output: 3 '
    'weight_filler { type: "xavier" } } }\n'
    'layer { name: "sum" type: "Eltwise" bottom: "left" bottom: "right" top: "sum" }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "sum" bottom: "label" top: "loss" }\n'
)
LAYERS = ["d", "conv", "relu", "flat", "flat_flat_0_split", "left", "right", "sum", "loss"]
MS = r"[-+.e\d]+ ms\."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 5')
    return tmp_path


@pytest.mark.parametrize("file", ["net.prototxt", "solver.prototxt"])
def test_the_command_prints_caffes_lines(here: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    assert main(["train", "time", file, "--iterations", "3", "--threads", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    lines = [re.sub(r"^.*?\] ", "", line) for line in err.splitlines()]
    forms = [
        r"Use CPU\.", "Performing Forward", r"Initial loss: [.\d]+", "Performing Backward",
        r"\*\*\* Benchmark begins \*\*\*", r"Testing for 3 iterations\.",
        *[rf"Iteration: {number} forward-backward time: {MS}" for number in (1, 2, 3)], "Average time per layer: ",
        *[rf"{name:>10}\t{way}: {MS}" for name in LAYERS for way in ("forward", "backward")],
        rf"Average Forward pass: {MS}", rf"Average Backward pass: {MS}", rf"Average Forward-Backward: {MS}",
        rf"Total Time: {MS}", r"\*\*\* Benchmark ends \*\*\*",
    ]  # fmt: skip
    assert len(lines) == len(forms)
    assert [line for line, form in zip(lines, forms, strict=True) if not re.fullmatch(form, line)] == []
    found = json.loads(out)
    assert found["iterations"] == 3
    assert [one["name"] for one in found["layers"]] == LAYERS
    times = {one["name"]: (one["forward"], one["backward"]) for one in found["layers"]}
    assert [name for name, (ahead, _) in times.items() if not ahead] == ["flat", "flat_flat_0_split"]
    assert [name for name, (_, back) in times.items() if not back] == ["d", "flat", "flat_flat_0_split"]
    assert sum(map(sum, times.values())) <= found["both"] * 1.001
    assert found["forward"] == pytest.approx(sum(ahead for ahead, _ in times.values()))


def test_a_layer_that_takes_long_has_its_time_and_nobody_else(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Injected time: only the two products let the clock go on, forward by 5 and backward by 7."""
    clock = [0.0]
    compute = Program._compute

    def slow(self: Program, operation: object, values: dict[str, torch.Tensor]) -> None:
        compute(self, operation, values)  # type: ignore[arg-type]
        if operation.kind == "Gemm":  # type: ignore[attr-defined]
            clock[0] += 5
            name = operation.outputs[0]  # type: ignore[attr-defined]
            values[name].register_hook(lambda gradient: clock.__setitem__(0, clock[0] + 7))

    monkeypatch.setattr(Program, "_compute", slow)
    found = measure(Path("net.prototxt"), 2, Flags(), How(1), lambda where, says: None, lambda: clock[0])
    times = {one.name: (one.forward, one.backward) for one in found.layers if one.forward or one.backward}
    assert times == {"left": (5, 7), "right": (5, 7)}
    assert (found.forward, found.backward, found.both) == (10, 14, 24)


def test_events_of_a_backward_pass_belong_to_who_is_at_work() -> None:
    clock = [0.0]
    watch, nothing = Stopwatch(lambda: clock[0]), torch.zeros(1)

    def at(seconds: float) -> torch.Tensor:
        clock[0] = seconds
        return nothing

    watch.begin()
    watch.top(0, 0, at(1))
    watch.top(1, 0, at(3))
    watch.top(1, 1, at(4))
    watch.turn()
    watch.top_gradient(2, 0, at(5))  # what comes before the first layer is the loss's own
    watch.bottom_gradient(2, 0, at(7))
    watch.top_gradient(1, 0, at(7.5))
    watch.top_gradient(0, 0, at(9))
    clock[0] = 12
    watch.end()
    assert watch.forward == {0: 1, 1: 3}
    assert watch.backward == {2: 3.5, 1: 1.5, 0: 3}


def test_a_file_is_a_solver_by_its_fields_whatever_they_are_written_like(here: Path) -> None:
    Path("line.prototxt").write_text('test_iter: 1 test_interval: 1 net: "net.prototxt" lr_policy:"fixed" base_lr :1')
    assert [net_of(Path(name), Flags()).name for name in ("line.prototxt", "net.prototxt")] == ["n", "n"]
    Path("typo.prototxt").write_text('net: "net.prototxt" base_lr: 1 momentumm: 2')
    with pytest.raises(PipelineError, match="momentumm"):
        net_of(Path("typo.prototxt"), Flags())
    with pytest.raises(PipelineError, match=r"none\.prototxt"):
        net_of(Path("none.prototxt"), Flags())


def test_a_net_without_a_loss_is_timed_forward(here: Path) -> None:
    Path("net.prototxt").write_text(NET[: NET.index('layer { name: "loss"')])
    found = measure(Path("net.prototxt"), 1, Flags(), How(1), lambda where, says: None)
    assert found.forward > 0
    assert [one.name for one in found.layers if one.backward] == []
