"""`from hathi import training`: what a program does with a solver is what pycaffe does with it."""

from __future__ import annotations

import doctest
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hathi
from hathi import training
from pipeline.training.job import Wanted
from tests.acceptance.documents import blocks
from tests.unit.training import runs
from tests.unit.training.runs import GOLDEN, blobs, folder_of

ROOT = Path(__file__).parents[3]
DUMMY = (
    'layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 6 dim: 4 } '
    'shape { dim: 6 } data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }\n'
)
FED = (
    'layer { name: "in" type: "Input" top: "data" top: "label" input_param { '
    "shape { dim: 6 dim: 4 } shape { dim: 6 } } }\n"
)
NET = (
    'name: "tiny"\n%s'
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" '
    'inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }\n'
    'layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n'
)
SOLVER = 'net: "net.prototxt" test_iter: 2 test_interval: 5 max_iter: 20 base_lr: 0.1 momentum: 0.9 random_seed: 1 '
FIXED = SOLVER + 'lr_policy: "fixed" display: 5 snapshot_prefix: "tiny"'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET % DUMMY)
    Path("solver.prototxt").write_text(FIXED)
    return tmp_path


def opened(text: str = FIXED, net: str = NET % DUMMY, name: str = "solver", **options: object) -> training.Solver:
    Path(f"{name}.net.prototxt").write_text(net)
    Path(f"{name}.prototxt").write_text(text.replace("net.prototxt", f"{name}.net.prototxt"))
    return training.load(f"{name}.prototxt", threads=1, **options)  # type: ignore[arg-type]


def weights(solver: training.Solver) -> np.ndarray:
    return solver.net.params["ip"][0].data.copy()


def test_the_example_does_what_it_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = inspect.getdoc(hathi.training.load)
    assert text is not None
    example = doctest.DocTestParser().get_doctest(text, {}, "load", None, None)
    assert len(example.examples) > 8
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("seed", ["random_seed: 1", ""])
@pytest.mark.parametrize(
    "layer",
    [
        'type: "PReLU" prelu_param { channel_shared: true }',
        'type: "PReLU" prelu_param { channel_shared: true filler { type: "gaussian" std: 1 } }',
        'type: "Scale" scale_param { num_axes: 0 bias_term: true }',
        'type: "Scale" scale_param { num_axes: 0 filler { type: "uniform" min: 1 max: 2 } }',
        'type: "Bias" bias_param { num_axes: 0 }',
    ],
)
def test_a_layer_whose_weight_is_one_number_trains_and_is_saved_and_read(here: Path, layer: str, seed: str) -> None:
    net = NET.replace('name: "relu" type: "ReLU"', f'name: "one" {layer}') % DUMMY
    with opened(FIXED.replace("random_seed: 1", seed), net) as solver:
        before = solver.net.params["one"][0].data.copy()
        solver.step(3)
        after = solver.net.params["one"][0].data.copy()
        solver.snapshot()
        assert before.shape == ()
        assert after != before
    with opened(FIXED.replace("random_seed: 1", seed), net) as again:
        again.restore("tiny_iter_3.solverstate")
        assert again.net.params["one"][0].data == after


def test_the_pages_blocks_run_in_order(here: Path) -> None:
    page = [one for one in blocks(ROOT) if one.page == "docs/pycaffe.md" and one.language == "python"]
    assert page
    names: dict[str, object] = {}
    for block in page:
        exec(compile(block.text, block.name, "exec"), names)


def test_steps_of_a_program_are_the_commands_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lmdb")
    case = GOLDEN / "training_stream" / "adam_step"
    for name in ("command", "program"):
        monkeypatch.chdir(folder_of(case, tmp_path / name))
        if name == "command":
            whole = runs.train(Wanted(Path("solver.prototxt"), until=10))
            command = blobs(Path("s_iter_10.caffemodel"))
            continue
        lines: list[str] = []
        with training.load("solver.prototxt", log=lines.append) as solver:
            for count in (1, 4, 5):
                solver.step(count)
            assert solver.iter == 10
            assert Path(solver.snapshot()).exists()
        program = blobs(Path("s_iter_10.caffemodel"))
    assert all(np.array_equal(one, program[key]) for key, one in command.items())
    assert next(line for line in runs.said(lines) if "loss = " in line) in runs.said(whole.lines)


def test_parameters_are_the_live_numbers(here: Path) -> None:
    solver = opened()
    solver.step(1)
    data = solver.net.params["ip"][0].data
    before = data.copy()
    solver.step(1)
    assert not np.array_equal(data, before)
    data[...] = 0
    solver.net.params["ip"][1].data[...] = [0, 3]
    assert np.array_equal(solver.net.forward(["ip"])["ip"], [[0, 3]] * 6)
    assert np.array_equal(solver.test_nets[0].forward(["ip"])["ip"], [[0, 3]] * 6)
    assert np.array_equal(solver.test_nets[0].params["ip"][0].data, data)


def test_a_pass_forward_and_back_and_an_update_are_a_step(here: Path) -> None:
    text = FIXED + " test_initialization: false"  # a test net of DummyData draws, too
    stepped, other = opened(text, name="one"), opened(text, name="other")
    stepped.step(3)
    for _ in range(3):
        other.net.clear_param_diffs()
        loss = other.net.forward()["loss"]
        other.net.backward()
        other.apply_update()
    assert np.array_equal(weights(stepped), weights(other))
    assert other.iter == 3
    assert np.array_equal(loss, stepped.net.blobs["loss"].data)


def test_blobs_hold_what_the_last_pass_computed_and_its_gradients(here: Path) -> None:
    net = opened(net=NET % FED).net
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 0, 1, 1, 0], np.float32)
    assert net.inputs == ["data", "label"]
    assert list(net.blobs) == ["data", "label", "ip", "loss"]
    net.blobs["data"].data[...], net.blobs["label"].data[...] = x, label
    found = net.forward()
    scores = x @ net.params["ip"][0].data.T
    assert np.allclose(net.blobs["ip"].data, np.maximum(scores, 0), atol=1e-6)
    net.backward()
    prob = np.exp(net.blobs["ip"].data)
    prob /= prob.sum(1, keepdims=True)
    slope = prob.copy()
    slope[np.arange(6), label.astype(int)] -= 1
    slope = slope / 6 * (scores > 0)  # in place: the diff is that of what ReLU has read
    assert np.allclose(net.blobs["ip"].diff, slope, atol=1e-6)
    assert np.allclose(net.params["ip"][0].diff, slope.T @ x, atol=1e-6)
    assert np.allclose(found["loss"], -np.log(prob[np.arange(6), label.astype(int)]).mean(), atol=1e-6)
    net.forward()
    net.backward()
    assert np.allclose(net.params["ip"][0].diff, 2 * slope.T @ x, atol=1e-6), "they are added"
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


IMAGES = (
    'layer { name: "in" type: "Input" top: "data" top: "label" input_param { '
    "shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } } }\n"
)
LAYERS = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
    'convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }\n'
    'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }\n'
    'layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }\n'
    'layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }\n'
    'layer { name: "left" type: "InnerProduct" bottom: "flat" top: "left" '
    'inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }\n'
    'layer { name: "right" type: "Power" bottom: "flat" top: "right" power_param { power: 2 } }\n'
    'layer { name: "norm" type: "Reduction" bottom: "right" top: "norm" loss_weight: 0.5 }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "left" bottom: "label" top: "loss" }\n'
)


def test_every_blob_is_what_another_engine_computes(here: Path) -> None:
    solver = opened(FIXED + " debug_info: true", net=IMAGES + LAYERS)
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    label = np.array([1, 2], np.float32)

    def compare(net: training.Net) -> None:
        other = hathi.load_net("solver.net.prototxt", "w.caffemodel", blobs=list(net.blobs), phase="TRAIN")
        for name, values in other.forward({"data": x, "label": label}).items():
            assert np.allclose(net.blobs[name].data, values, atol=1e-5), name
            assert net.blobs[name].data.shape == values.shape

    for net in (*solver.test_nets, solver.net):
        net.save("w.caffemodel")
        net.forward(data=x, label=[1, 2])
        compare(net)
    solver.step(1)  # a pass that debug_info watches as well
    compare(solver.net)
    assert solver.net.blobs["flat"].diff.shape == (2, 36)
    assert np.array_equal(solver.net.blobs["flat"].diff.ravel(), solver.net.blobs["pool"].diff.ravel())
    assert solver.net.blobs["flat"].diff.any()


def test_a_backward_pass_begins_at_a_layer_with_what_a_program_put_there(here: Path) -> None:
    net = opened(net=NET % FED + " force_backward: true").net
    x = np.arange(24, dtype=np.float32).reshape(6, 4)
    net.forward(data=x, label=np.zeros(6))
    seed = np.arange(12, dtype=np.float32).reshape(6, 2)
    net.blobs["ip"].diff[...] = seed
    found = net.backward(start="ip")
    assert np.allclose(found["data"], seed @ net.params["ip"][0].data, rtol=1e-5)
    assert np.allclose(net.params["ip"][0].diff, seed.T @ x, rtol=1e-5)
    once = net.params["ip"][1].diff.copy()
    net.forward()
    net.clear_param_diffs()
    net.backward()
    plain = net.params["ip"][1].diff.copy()
    net.forward()
    net.clear_param_diffs()
    net.backward(loss=np.float32(2))
    assert np.allclose(net.params["ip"][1].diff, 2 * plain, atol=1e-6)
    assert np.allclose(once, seed.sum(0))


def test_a_pass_ends_at_a_layer_and_draws_nothing_for_those_behind(here: Path) -> None:
    drop = 'layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }\n'
    text = (NET % FED).replace('layer { name: "loss"', drop + 'layer { name: "loss"')
    x = np.random.default_rng(3).normal(size=(6, 4)).astype(np.float32)
    one, other = (opened(net=text, name=name).net for name in ("one", "other"))
    scores = x @ one.params["ip"][0].data.T
    assert one.forward(data=x, end="ip").keys() == {"ip"}
    assert np.allclose(one.blobs["ip"].data, scores, atol=1e-6), "before ReLU, which writes in place"
    assert np.allclose(one.forward(end="relu")["ip"], np.maximum(scores, 0), atol=1e-6)
    assert not one.blobs["loss"].data.any()
    one.blobs["ip"].diff[...] = 1
    one.backward(start="relu")
    assert np.allclose(one.params["ip"][1].diff, (scores > 0).sum(0))
    assert np.array_equal(one.forward()["loss"], other.forward(data=x)["loss"]), "the first masks of both"
    assert np.array_equal(opened(net=text).test_nets[0].forward(end="ip", data=x)["ip"].shape, (6, 2))


def test_a_pass_begins_at_a_layer_with_what_the_program_has_written_into_its_bottoms(here: Path) -> None:
    drop = 'layer { name: "drop" type: "Dropout" bottom: "ip" top: "dropped" }\n'
    more = 'layer { name: "ip2" type: "InnerProduct" bottom: "dropped" top: "ip2" inner_product_param { num_output: 2 '
    text = (NET % FED).replace(
        'layer { name: "loss"', drop + more + 'weight_filler { type: "xavier" } } }\nlayer { name: "loss"'
    )
    text = text.replace('bottom: "ip" bottom: "label"', 'bottom: "ip2" bottom: "label"')
    rng = np.random.default_rng(3)
    x, label = rng.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 1, 0, 1, 0], np.float32)
    net = opened(net=text).net
    net.forward(data=x, label=label)
    written = rng.normal(size=(6, 2)).astype(np.float32)
    net.blobs["dropped"].data[...] = written
    before = net.blobs["ip"].data.copy()
    found = net.forward(start="ip2", blobs=["ip2"])
    scores = written @ net.params["ip2"][0].data.T + net.params["ip2"][1].data
    assert np.allclose(found["ip2"], scores, atol=1e-6)
    prob = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert np.allclose(found["loss"], -np.log(prob[np.arange(6), label.astype(int)]).mean(), atol=1e-6)
    assert np.array_equal(net.blobs["ip"].data, before), "what stands before stays"
    net.clear_param_diffs()
    slope = prob.copy()
    slope[np.arange(6), label.astype(int)] -= 1
    with pytest.raises(hathi.Error, match="the last forward pass began with layer 'ip2'"):
        net.backward()
    net.forward(start="ip2")
    net.backward(end="ip2")
    assert np.allclose(net.params["ip2"][0].diff, (slope / 6).T @ written, atol=1e-6)
    assert not net.params["ip"][0].diff.any()
    assert set(net.forward(start="relu", end="drop")) == {"dropped"}


def test_a_pass_over_a_blob_in_place_reads_what_its_memory_holds(here: Path) -> None:
    """As in Caffe: relu, begun again, reads what relu has written."""
    net = opened(net=NET % FED).net
    net.forward(data=np.random.default_rng(1).normal(size=(6, 4)))
    net.blobs["ip"].data[...] = [[-1, 2]] * 6
    assert np.array_equal(net.forward(start="relu", end="relu")["ip"], [[0, 2]] * 6)
    prob = np.exp(np.array([0.0, 2.0])) / np.exp([0.0, 2.0]).sum()
    assert np.allclose(net.forward(start="loss")["loss"], -np.log(prob[0]), atol=1e-6)


def test_a_pass_that_begins_behind_the_data_takes_no_batch(here: Path) -> None:
    solver = opened()
    net = solver.net
    net.forward()
    first = net.blobs["data"].data.copy()
    net.forward(start="ip")
    assert np.array_equal(net.blobs["data"].data, first)
    net.forward()
    assert not np.array_equal(net.blobs["data"].data, first)
    other = opened(name="other").net
    other.forward()
    other.forward()
    assert np.array_equal(net.blobs["data"].data, other.blobs["data"].data), "nothing was left out"


def test_a_backward_pass_ends_at_a_layer_and_gives_the_gradients_of_its_bottoms(here: Path) -> None:
    def run(**how: str) -> tuple[training.Net, dict[str, np.ndarray]]:
        net = opened(net=IMAGES + LAYERS).net
        net.forward(data=np.random.default_rng(1).normal(size=(2, 3, 8, 8)), label=[1, 2])
        return net, net.backward(**how)  # type: ignore[arg-type]

    whole, _ = run()
    part, found = run(end="left")
    assert set(found) == {"flat"}
    assert not part.params["conv"][0].diff.any()
    assert whole.params["conv"][0].diff.any()
    assert np.array_equal(part.params["left"][0].diff, whole.params["left"][0].diff)
    assert np.array_equal(found["flat"], whole.blobs["flat"].diff), "of all that read it behind"
    assert found["flat"].any()
    one, found = run(end="conv")
    assert set(found) == {"data"}
    assert np.array_equal(one.params["conv"][0].diff, whole.params["conv"][0].diff)


def test_names_of_pycaffe_are_there_or_say_what_stands_for_them(here: Path) -> None:
    solver = opened(net=IMAGES + LAYERS)
    net = solver.net
    assert [one.type for one in net.layers][:3] == ["Input", "Convolution", "ReLU"]
    assert net.layer_dict["conv"].blobs[0].data is not None
    assert np.shares_memory(net.layers[1].blobs[0].data, net.params["conv"][0].data)
    assert net._layer_names == net.layer_names == list(net.layer_dict)
    assert (net.bottom_names["loss"], net.top_names["conv"]) == (["left", "label"], ["conv"])
    assert net.blob_loss_weights["norm"] == 0.5
    assert net.blob_loss_weights["conv"] == 0.0
    blob = net.blobs["data"]
    assert (blob.num, blob.channels, blob.height, blob.width) == (2, 3, 8, 8)
    assert net.blobs["label"].channels == 1
    assert (solver.param.max_iter, solver.param.lr_policy, solver.param.momentum2) == (
        20,
        "fixed",
        pytest.approx(0.999),
    )
    net.save_hdf5("w.any")
    kept = net.params["left"][0].data.copy()
    net.params["left"][0].data[...] = 0
    net.load_hdf5("w.any")
    assert np.array_equal(net.params["left"][0].data, kept)
    lacking = [
        (lambda: net.forward_all(), "no 'forward_all'", "loop over batches"),
        (lambda: solver.test_net, "no 'test_net'", r"solver.test_nets\[0\]"),
        (lambda: setattr(solver.param, "base_lr", 0.1), "base_lr cannot be set", "in the solver's file"),
        (lambda: training.SGDSolver, "hathi.training has no 'SGDSolver'", r"training.load\(FILE\)"),
        (lambda: training.set_mode_gpu, "no 'set_mode_gpu'", "leave it out"),
    ]
    for call, says, hint in lacking:
        with pytest.raises(hathi.Error, match=says) as refused:
            call()
        assert isinstance(refused.value, AttributeError)
        assert re.search(hint, refused.value.hint)
    assert not hasattr(net, "forward_all")
    with pytest.raises(AttributeError, match=r"docs/pycaffe\.md"):
        net.colour  # noqa: B018
    with pytest.raises(AttributeError, match="no field 'colour'"):
        solver.param.colour  # noqa: B018


def test_a_reshaped_input_gives_all_blobs_other_shapes_with_the_next_pass(here: Path) -> None:
    whole = LAYERS.replace('layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }\n', (
        'layer { name: "flat" type: "Pooling" bottom: "pool" top: "flat" '
        "pooling_param { pool: AVE global_pooling: true } }\n"
    ))  # fmt: skip
    net = opened(net=IMAGES + whole).net
    x = np.random.default_rng(2).normal(size=(3, 3, 12, 6)).astype(np.float32)
    net.blobs["data"].reshape(3, 3, 12, 6)
    net.blobs["label"].reshape(3)
    net.reshape()
    found = net.forward(data=x, label=[0, 1, 2], blobs=["pool"])
    assert found["pool"].shape == (3, 4, 5, 2)
    assert net.blobs["conv"].data.shape == (3, 4, 10, 4)
    net.backward()
    assert net.blobs["conv"].diff.shape == (3, 4, 10, 4)
    net.save("w.caffemodel")
    other = hathi.load_net("solver.net.prototxt", "w.caffemodel", blobs=["left"], phase="TRAIN")
    net.blobs["data"].reshape(2, 3, 8, 8)
    net.blobs["label"].reshape(2)
    y = np.random.default_rng(5).normal(size=(2, 3, 8, 8)).astype(np.float32)
    assert np.allclose(
        net.forward(["left"], data=y)["left"], other.forward({"data": y, "label": [0, 0]})["left"], atol=1e-5
    )
    with pytest.raises(hathi.Error, match="follows from what the net is fed"):
        net.blobs["conv"].reshape(1)
    flat = opened(net=IMAGES + LAYERS, name="product").net
    flat.blobs["data"].reshape(2, 3, 9, 9)
    with pytest.raises(hathi.Error, match="takes images of one size alone"):
        flat.forward()


def test_weights_of_which_nothing_is_taken_are_warned_of(here: Path) -> None:
    opened(net=IMAGES + LAYERS).net.save("other.caffemodel")
    with pytest.warns(UserWarning, match=r"other\.caffemodel gives nothing to the net"):
        opened(name="tiny").net.copy_from("other.caffemodel")


def test_callbacks_come_as_an_iteration_starts_and_before_its_update(here: Path) -> None:
    solver, order = opened(SOLVER.replace("0.9", "0") + 'lr_policy: "fixed" snapshot_prefix: "tiny"'), []
    before = weights(solver)

    def ready() -> None:
        order.append(("ready", solver.iter))
        solver.net.params["ip"][0].diff[...] = 1

    solver.add_callback(lambda: order.append(("start", solver.iter)), ready)
    solver.step(2)
    assert order == [("start", 0), ("ready", 0), ("start", 1), ("ready", 1)]
    assert np.allclose(weights(solver), before - 0.2, atol=1e-6), "the update takes what the callback left"


INTERRUPTED = """
import os, signal, threading
import numpy as np
from hathi import training

def raises(run):
    try:
        run()
    except KeyboardInterrupt:
        return True

one, other = (training.load("solver.prototxt", threads=1) for _ in range(2))
before = signal.getsignal(signal.SIGINT)
one.add_callback(lambda: os.kill(os.getpid(), signal.SIGINT) if one.iter == 2 else None, lambda: None)
assert raises(lambda: one.step(10))
assert signal.getsignal(signal.SIGINT) is before
other.step(3)
assert one.iter == 3
assert np.array_equal(one.net.params["ip"][0].data, other.net.params["ip"][0].data)
one.step(1)
assert one.iter == 4
thread = threading.Thread(target=other.step, args=(2,))  # a solver steps in any thread
thread.start()
thread.join()
assert other.iter == 5
other.add_callback(lambda: os.kill(os.getpid(), signal.SIGINT), lambda: None)
assert raises(other.solve)
assert os.path.exists("tiny_iter_6.solverstate")
print("whole")
"""


def test_ctrl_c_ends_a_step_with_its_iteration_whole(here: Path) -> None:
    """In a process of its own, whose handler is the one that Python begins with."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, env=environ)
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr


def test_the_window_of_average_loss_begins_anew_with_each_step(here: Path) -> None:
    lines: list[str] = []
    solver = opened(FIXED.replace("display: 5", "display: 1 average_loss: 4"), log=lines.append)
    solver.step(3)
    lines.clear()
    solver.step(1)
    (said,) = [line for line in runs.said(lines) if "loss = " in line and "Iteration" in line]
    (own,) = [line for line in runs.said(lines) if "Train net output" in line]
    assert said.rpartition(" = ")[2] == own.split("loss = ")[1].split()[0]


def test_reading_the_rate_moves_multistep_by_one_step_at_most(here: Path) -> None:
    text = SOLVER + 'lr_policy: "multistep" gamma: 0.1 stepvalue: 0 stepvalue: 0 snapshot_prefix: "tiny"'
    solver = opened(text)
    assert [round(solver.lr, 6) for _ in range(3)] == [0.01, 0.001, 0.001]


def test_a_snapshot_after_passes_of_the_programs_own_goes_on_to_the_bit(here: Path) -> None:
    solver = opened()
    solver.step(4)
    solver.net.forward()
    solver.test_nets[0].forward()
    state = solver.snapshot()
    solver.step(6)
    whole = weights(solver)
    other = opened()
    other.restore(state)
    assert other.iter == 4
    other.step(6)
    assert np.array_equal(weights(other), whole)
    solver.restore(state)
    solver.step(6)
    assert np.array_equal(weights(solver), whole)


def test_solve_ends_as_the_command_does_and_the_solver_lives_on(here: Path) -> None:
    rows: list[dict[str, object]] = []
    solver = opened(rows=lambda row: rows.append(dict(row)))
    solver.step(7)
    solver.solve()
    assert solver.iter == solver.max_iter == 20
    assert Path("tiny_iter_20.caffemodel").exists()
    assert [row["step"] for row in rows if row["kind"] == "test"] == [0, 5, 10, 15, 20]
    assert not list(here.glob("*metrics*")), "a program has the rows itself"
    assert solver.test_nets[0].forward()["loss"].shape == ()
    solver.solve("tiny_iter_20.solverstate")
    solver.step(1)
    assert solver.iter == 21


def test_shared_weights_are_one_memory_and_gradients_are_not(here: Path) -> None:
    one, other = opened(name="one"), opened(FIXED.replace("seed: 1", "seed: 2"), name="other")
    assert not np.array_equal(weights(one), weights(other))
    one.share_weights(other.net)
    before = weights(one)
    other.step(1)
    assert not np.array_equal(weights(one), before)
    assert np.array_equal(weights(one), weights(other))
    assert np.array_equal(other.test_nets[0].params["ip"][0].data, weights(one))
    one.net.clear_param_diffs()
    assert other.net.params["ip"][0].diff.any()
    assert not one.net.params["ip"][0].diff.any()
    wide = opened(net=(NET % DUMMY).replace("num_output: 2", "num_output: 3"), name="wide")
    with pytest.raises(hathi.Error, match="layer 'ip'"):
        one.share_weights(wide.net)


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_weights_are_saved_and_copied_in_both_forms(here: Path, name: str) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    one, other = opened(name="one"), opened(FIXED.replace("seed: 1", "seed: 2"), name="other")
    one.net.save(name)
    other.net.copy_from(name)
    assert np.array_equal(weights(one), weights(other))


def test_memory_data_is_given_arrays(here: Path) -> None:
    memory = (
        'layer { name: "m" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 6 channels: 4 height: 1 width: 1 } }\n"
    )
    solver = opened(net=NET % memory)
    images = np.random.default_rng(0).normal(size=(12, 4, 1, 1)).astype(np.float32)
    for net in (solver.net, *solver.test_nets):
        net.set_input_arrays(images, np.ones(12))
    solver.net.forward()
    solver.net.forward()
    assert np.array_equal(solver.net.blobs["data"].data, images[6:])
    solver.step(2)
    with pytest.raises(hathi.Error, match="no MemoryData layer"):
        opened(name="dummy").net.set_input_arrays(images, np.ones(12))


def test_what_a_net_does_not_do_is_refused_by_name(here: Path) -> None:
    solver = opened()
    with pytest.raises(hathi.Error, match="layer 'd' stands before layer 'ip'"):
        solver.net.forward(start="ip", end="d")
    with pytest.raises(hathi.Error, match="no layer 'fc7'"):
        solver.net.forward(start="fc7")
    with pytest.raises(hathi.Error, match="no layer 'fc7'"):
        solver.net.forward(end="fc7")
    with pytest.raises(hathi.Error, match="call forward before each backward"):
        solver.net.backward()
    with pytest.raises(hathi.Error, match="only tests"):
        solver.test_nets[0].backward()
    with pytest.raises(hathi.Error, match="'x' is no input"):
        solver.net.forward(x=np.zeros(3))
    solver.net.forward()
    with pytest.raises(hathi.Error, match="no layer 'fc7'"):
        solver.net.backward(start="fc7")
    with pytest.raises(hathi.Error, match="'ip' is no output"):
        solver.net.backward(ip=np.zeros((6, 2)))
    with pytest.raises(KeyError, match="no blob 'fc7'"):
        solver.net.blobs["fc7"]


def test_a_step_of_no_whole_number_and_a_closed_solver_are_refused_by_name(here: Path) -> None:
    with opened() as solver:
        with pytest.raises(TypeError, match="float"):
            solver.step(2.5)  # type: ignore[arg-type]
        with pytest.raises(hathi.Error, match="has no meaning"):
            solver.step(-1)
        solver.step(np.int64(2))  # type: ignore[arg-type]
        assert solver.iter == 2
    for call in (lambda: solver.step(1), solver.solve):
        with pytest.raises(hathi.Error, match="the solver is closed") as refused:
            call()
        assert "training.load(FILE)" in refused.value.hint
    assert weights(solver).shape == (2, 4)


def test_a_program_chooses_the_precision(here: Path) -> None:
    exact, rounded = (opened(name=name, precision=name) for name in ("float32", "bf16"))
    for one in (exact, rounded):
        one.step(3)
    assert 0 < float(np.abs(weights(exact) - weights(rounded)).max()) < 0.05
    with pytest.raises(hathi.Error, match="no precision 'fp16'"):
        opened(precision="fp16")
