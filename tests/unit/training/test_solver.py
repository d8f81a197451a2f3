"""A solver's text, as Caffe reads it: every field has its value, every refusal its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.codec import caffe_pb2
from pipeline.errors import SolverError
from pipeline.training import solver
from pipeline.training.rates import Policy
from pipeline.training.solver import Flags

GOLDEN = Path(__file__).parents[2] / "golden" / "training_stream"
NET = 'name: "n" layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 } } }'
PLAIN = 'net: "net.prototxt"\nbase_lr: 0.1\nlr_policy: "fixed"\nmax_iter: 10\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "other.prototxt").write_text(NET.replace('"n"', '"other"') + ' state { stage: "own" level: 3 }')
    return tmp_path


def read(text: str, flags: Flags | None = None) -> solver.Solver:
    Path("solver.prototxt").write_text(text)
    return solver.read(Path("solver.prototxt"), flags)


def test_a_solver_of_caffes_examples_has_each_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "log_and_hdf5")
    got = solver.read(Path("solver.prototxt"))
    assert got.policy == Policy("step", 0.05000000074505806, 0.5, 0.0, 15, (), 30)
    assert (got.update.type, got.update.momentum, got.update.clip) == ("SGD", 0.8999999761581421, None)
    assert (got.display.interval, got.display.average, got.seed, got.gpu) == (5, 4, 1701, False)
    assert (got.tests.interval, [test.iterations for test in got.tests.nets]) == (10, [3])
    assert got.snapshots == solver.SnapshotPlan(15, "s", True, True, True)
    assert list(got.net.state.stage) == [""]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('net: "net.prototxt"\nmomentun: 0.9', "solver.prototxt:2:1: syntax error"),
        ("base_lr: 0.1", "names no training net"),
        (PLAIN + 'train_net: "net.prototxt"', "names 2 training nets: net, train_net"),
        (PLAIN + 'type: "AdaGrad" momentum: 0.9', "momentum cannot be used with AdaGrad"),
        (PLAIN + 'type: "RMSProp" momentum: 0.9', "momentum cannot be used with RMSProp"),
        (PLAIN + 'type: "RMSProp" rms_decay: 1', "rms_decay is not in [0, 1)"),
        (PLAIN + 'type: "Adam" momentum: 1', "momentum of Adam is not in [0, 1)"),
        (PLAIN + 'type: "Adam" momentum2: -0.5', "momentum2 of Adam is not in [0, 1)"),
        (PLAIN + 'type: "AdaDelta" momentum: 1.5', "momentum of AdaDelta is not in [0, 1]"),
        (PLAIN + 'type: "AdamW"', "unknown solver type 'AdamW'"),
        (PLAIN + 'solver_type: ADAM type: "Adam"', "has solver_type and type"),
        (PLAIN + "gamma: -1", "gamma is negative"),
        (PLAIN.replace("0.1", "-0.1"), "base_lr is negative"),
        (PLAIN.replace("0.1", "nan"), "base_lr is nan"),
        (PLAIN.replace("fixed", "stairs"), "unknown lr_policy 'stairs'"),
        ('net: "net.prototxt"', "lr_policy is missing"),
        (PLAIN.replace("fixed", "step"), "lr_policy 'step' needs a stepsize"),
        (PLAIN.replace("fixed", "sigmoid"), "lr_policy 'sigmoid' needs a stepsize"),
        (PLAIN + "average_loss: 0", "average_loss is under 1"),
        (PLAIN + "iter_size: 0", "iter_size is under 1"),
        (PLAIN + 'regularization_type: "L3"', "unknown regularization_type 'L3'"),
        (PLAIN + "test_iter: 1", "test_interval is missing"),
        (PLAIN + 'test_net: "net.prototxt" test_interval: 5', "test_iter is given 0 times for 1 test nets"),
        (PLAIN.replace("net:", "train_net:") + "test_iter: 1 test_interval: 5", "test_iter is given 1 times for 0"),
        (PLAIN + "test_iter: 1 test_interval: 1 test_state { } test_state { }", "test_state must be there for"),
        (PLAIN + "test_iter: -1 test_interval: 1", "test_iter is negative"),
    ],
)
def test_what_caffe_refuses_is_refused_by_name(text: str, says: str, folder: Path) -> None:
    with pytest.raises(SolverError) as refused:
        read(text)
    assert says in refused.value.message
    assert refused.value.exit_code == 2


def test_an_unknown_field_names_its_place_and_the_fields_that_are_near(folder: Path) -> None:
    with pytest.raises(SolverError, match=r"solver.prototxt:5:1") as refused:
        read(PLAIN + "momentun: 0.9")
    assert "momentum" in refused.value.hint


def test_a_solver_in_latin_1_is_refused_with_its_place(folder: Path) -> None:
    Path("solver.prototxt").write_bytes(PLAIN.encode() + "# für alle".encode("latin-1"))
    with pytest.raises(SolverError, match=r"solver.prototxt:5:4: the solver is not UTF-8"):
        solver.read(Path("solver.prototxt"))


def test_a_model_in_place_of_a_solver_and_no_file_at_all_are_refused(folder: Path) -> None:
    Path("a.caffemodel").write_bytes(b"\n\x01s\0\0")
    for path in ("a.caffemodel", "none.prototxt"):
        with pytest.raises(SolverError, match=path):
            solver.read(Path(path))


@pytest.mark.parametrize(("old", "new"), [("ADADELTA", "AdaDelta"), ("SGD", "SGD"), ("NESTEROV", "Nesterov")])
def test_the_old_solver_type_is_todays_type(old: str, new: str, folder: Path) -> None:
    assert read(PLAIN + f"solver_type: {old}").update.type == new


def test_a_prefix_is_completed_as_caffe_completes_it(folder: Path) -> None:
    assert read(PLAIN).snapshots.prefix == "solver"
    (folder / "out").mkdir()
    assert read(PLAIN + 'snapshot_prefix: "out"').snapshots.prefix == os.path.join("out", "solver")
    assert read(PLAIN + 'snapshot_prefix: "out/x"').snapshots.prefix == "out/x"


def test_states_are_merged_defaults_first_then_the_net_then_the_solver_and_stages_are_added(folder: Path) -> None:
    text = PLAIN.replace("net.prototxt", "other.prototxt")
    text += 'train_state { stage: "more" } test_iter: 1 test_interval: 1 test_state { level: 7 stage: "t" }'
    got = read(text, Flags(level=5, stages=("a", "b")))
    assert (got.net.state.phase, got.net.state.level) == (caffe_pb2.TRAIN, 5)
    assert list(got.net.state.stage) == ["own", "more", "a", "b"]
    test = got.tests.nets[0].net.state
    assert (test.phase, test.level, list(test.stage)) == (caffe_pb2.TEST, 7, ["own", "t"])


def test_test_nets_are_the_fields_then_the_files_then_the_common_net(folder: Path) -> None:
    text = PLAIN + 'test_net: "other.prototxt" test_net_param { name: "inline" } test_interval: 4'
    got = read(text + " test_iter: 1 test_iter: 2 test_iter: 3 test_iter: 4")
    assert [(test.net.name, test.iterations) for test in got.tests.nets] == [
        ("inline", 1), ("other", 2), ("n", 3), ("n", 4)
    ]  # fmt: skip
    assert [test.net.source for test in got.tests.nets][:2] == ["test_net_param", "test_net file: other.prototxt"]


def test_flags_replace_weights_and_seed(folder: Path) -> None:
    text = PLAIN + 'weights: "a, b" weights: "c" random_seed: 4'
    assert [str(path) for path in read(text).weights] == ["a", "b", "c"]
    got = read(text, Flags(weights=("x,y",), seed=9))
    assert ([str(path) for path in got.weights], got.seed) == (["x", "y"], 9)
    assert read(PLAIN).seed == -1
