"""The price of a training: counted by hand, refused by layer, and all of it without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.training.price import Price, check
from tests.unit.training.databases import GOLDEN
from tests.unit.training.runs import folder_of

DATA = (
    'layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param { '
    "shape { dim: 5 dim: 2 dim: 9 dim: 9 } shape { dim: 5 } } }\n"
)
CONV = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
    "convolution_param { num_output: 3 kernel_size: 3 } }\n"
)
TOP = (
    'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }\n'
    'layer { name: "flat" type: "Flatten" bottom: "conv" top: "flat" }\n'
    'layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip" inner_product_param { num_output: 4 } }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" include { phase: TRAIN } }\n'
    'layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }\n'
)
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 50 test_iter: 2 test_interval: 5 '


def price(folder: Path, net: str, solver: str = SOLVER, **fields: object) -> Price:
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(solver)
    path = folder / "spec.json"
    path.write_text(json.dumps({"solver": "solver.prototxt", **fields}))
    return check(path)


def refusals(found: Price) -> list[tuple[str, str]]:
    return [(one.layer, one.says) for one in found.refused]


def test_a_net_is_priced_as_one_counts_by_hand(tmp_path: Path) -> None:
    found = price(tmp_path, DATA + CONV + TOP, SOLVER + 'type: "Adam" iter_size: 3', until=20)
    conv, ip = 3 * 2 * 9 + 3, 4 * 147 + 4
    tops = 5 * 162 + 5 + 2 * 5 * 147 + 5 * 4  # data, label; conv, and ReLU in place; ip
    costs = 5 * 147 * 18, 5 * 147 * 4
    assert (found.parameters, found.activations) == (conv + ip, tops + 1)
    rows = {one.name: (one.parameters, one.activations, one.multiply_adds, one.backward) for one in found.train.layers}
    assert rows == {
        "d": (0, 815, 0, 0), "conv": (conv, 735, costs[0], costs[0]), "relu": (0, 735, 0, 0), "flat": (0, 0, 0, 0),
        "ip": (ip, 20, costs[1], 2 * costs[1]), "loss": (0, 1, 0, 0),
    }  # fmt: skip
    assert found.multiply_adds == 3 * (2 * costs[0] + 3 * costs[1])
    size = 4 * (conv + ip)
    assert (found.bytes.weights, found.bytes.gradients, found.bytes.history) == (size, size, 2 * size)
    assert (found.bytes.activations, found.bytes.snapshot) == (4 * (tops + 1), 3 * size)
    assert found.bytes.memory == 4 * size + 4 * (tops + 1)
    assert (found.iterations, found.refused) == (20, ())
    (test,) = found.tests
    assert (test.phase, test.backward, [one.name for one in test.layers][-1]) == ("TEST", 0, "acc")


def test_what_does_not_learn_costs_nothing_backward_and_shared_weights_count_once(tmp_path: Path) -> None:
    frozen = CONV.replace("convolution_param", "param { lr_mult: 0 } param { lr_mult: 0 } convolution_param")
    second = (
        'layer { name: "again" type: "InnerProduct" bottom: "flat" top: "again" param { name: "w" } '
        'inner_product_param { num_output: 4 } } layer { name: "end" type: "Silence" bottom: "again" }'
    )
    named = TOP.replace("inner_product_param", 'param { name: "w" } inner_product_param')
    found = price(tmp_path, DATA + frozen + named + second)
    rows = {one.name: (one.parameters, one.backward) for one in found.train.layers}
    assert rows["conv"] == (57, 0)
    assert rows["ip"] == (592, 5 * 147 * 4)
    assert rows["again"] == (4, 0)


def test_all_that_speaks_against_a_net_is_told_by_layer(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    net = (
        DATA
        + CONV.replace("kernel_size: 3", "kernel_size: 30")
        + 'layer { name: "odd" type: "Oddity" bottom: "data" top: "odd" }\n'
        + 'layer { name: "lmdb" type: "Data" top: "x" data_param { source: "none" batch_size: 1 backend: LMDB } }\n'
        + 'layer { name: "reads" type: "ReLU" bottom: "x" top: "y" }\n'
    )
    found = price(tmp_path, net)
    assert [layer for layer, _ in refusals(found)] == ["lmdb", "conv", "odd"]
    assert "is no LMDB" in refusals(found)[0][1]
    assert "unknown layer type 'Oddity'" in refusals(found)[2][1]


def test_what_cannot_be_trained_is_told_by_layer(tmp_path: Path) -> None:
    inputs = DATA.replace("DummyData", "Input").replace("dummy_data_param", "input_param")
    net = (
        inputs
        + CONV
        + 'layer { name: "tanh" type: "TanH" bottom: "conv" top: "conv" }\n'
        + 'layer { name: "double" type: "Power" bottom: "conv" top: "conv" power_param { scale: 2 } }\n'
        + TOP.replace('name: "relu" type: "ReLU"', 'name: "cut" type: "Threshold"').replace(" top: ", " top: ", 1)
    )
    found = price(tmp_path, net)
    assert [layer for layer, _ in refusals(found)] == ["d", "cut", "tanh"]
    assert "fed by a program" in refusals(found)[0][1]
    plain = net.replace(inputs, DATA).replace('name: "cut" type: "Threshold"', 'name: "relu" type: "ReLU"')
    assert [layer for layer, _ in refusals(price(tmp_path, plain))] == ["tanh"]
    assert refusals(price(tmp_path, plain, as_caffe=True)) == []
    no_loss = (DATA + CONV + TOP).replace("phase: TRAIN", "phase: TEST")
    assert refusals(price(tmp_path, no_loss)) == [("", "the net net has no loss")]


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    found = price(tmp_path, DATA + CONV + TOP, weights=["none.caffemodel"])
    assert len(found.refused) == 1
    assert "none.caffemodel" in found.refused[0].says


def test_a_specification_or_a_text_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="momentumm"):
        price(tmp_path, DATA, SOLVER + "momentumm: 1")
    with pytest.raises(PipelineError, match="unknown field 'price'"):
        price(tmp_path, DATA, price=1)


def test_the_command_prints_it_and_loads_no_engine(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    folder = folder_of(GOLDEN / "training_stream" / "adam_step", tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps({"solver": "solver.prototxt", "folder": str(folder)}))
    code = (
        "import sys; from pipeline.training.__main__ import main; "
        "found = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(found)"
    )
    command = [sys.executable, "-c", code, "check", str(tmp_path / "spec.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["refused"] == []
    assert found["bytes"]["memory"] > found["bytes"]["weights"] == 4 * found["parameters"]
    assert found["examples"] > 1
    (folder / "solver.prototxt").unlink()
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stdout) == (2, "")
    assert "solver.prototxt cannot be read" in done.stderr


def test_a_net_of_any_size_has_a_price_at_once(tmp_path: Path) -> None:
    """A product of 6 GB: nothing of that size is made."""
    found = price(tmp_path, DATA + CONV + TOP.replace("num_output: 4", "num_output: 10000000"))
    assert found.bytes.weights > 5e9
    assert found.refused == ()
