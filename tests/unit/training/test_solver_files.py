"""A solver's files: Caffe's own bytes, both of its forms, read back whole or refused by name."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import NetError, PipelineError, SolverError
from pipeline.nets.caffe.writing import Written
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot
from pipeline.nets.graph.saving import save
from pipeline.training import hdf5, solverstate, weights
from pipeline.training.solverstate import Head

GOLDEN = Path(__file__).parents[2] / "golden"
STATES = [
    GOLDEN / "training" / "bn_nesterov_step_iter_10.solverstate",
    GOLDEN / "training" / "lenet_sgd_inv_iter_50.solverstate",
    GOLDEN / "training_stream" / "adam_step" / "s_iter_10.solverstate",
]
LOG = GOLDEN / "training_stream" / "log_and_hdf5"
INPUT = ('name: "s" layer { name: "data" type: "Input" top: "data" top: "label" include { phase: TRAIN } '
         "input_param { shape { dim: 16 dim: 1 dim: 24 dim: 24 } shape { dim: 16 } } }")  # fmt: skip


def graph(text: str, folder: Path, phase: str = "TRAIN") -> CaffeGraph:
    (folder / "net.prototxt").write_text(text)
    state = rules.state_of(phase, 0, [])
    return caffe_graph.read(folder / "net.prototxt", None, state, None, lambda says: None)


def lines(name: str) -> str:
    """The net of a golden run with an Input in place of its Data layers: files are named, and nothing is read."""
    text = (GOLDEN / "training_stream" / name / "net.prototxt").read_text()
    return "\n".join([INPUT, *(line for line in text.splitlines() if '"Data"' not in line and "layer" in line)])


@pytest.mark.parametrize("path", STATES, ids=lambda path: path.stem)
def test_a_state_is_byte_for_byte_caffes(path: Path, tmp_path: Path) -> None:
    state = solverstate.read(path)
    head = Head(state.iteration, state.learned_net, state.step)
    shapes = [one.shape for one in state.history]
    written = solverstate.write(tmp_path / "s", head, shapes, iter(state.history))
    assert (tmp_path / "s").read_bytes() == path.read_bytes()
    assert written == Written(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert f"iter_{state.iteration}" in path.stem


def test_a_state_says_its_iteration_its_step_and_its_weights() -> None:
    state = solverstate.read(STATES[0])
    assert (state.iteration, state.step, state.learned_net) == (10, 0, "bn_nesterov_step_iter_10.caffemodel")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99, 1.0])
def test_a_truncated_state_is_refused_with_its_name(part: float, tmp_path: Path) -> None:
    content = STATES[0].read_bytes()
    cut = tmp_path / "cut.solverstate"
    cut.write_bytes(content[: int(len(content) * part) - 3])
    with pytest.raises(SolverError, match=r"cut.solverstate (is|are) truncated"):
        solverstate.read(cut)


def test_a_model_in_place_of_a_state_is_refused_with_what_to_do() -> None:
    with pytest.raises(SolverError, match=r"is no \.solverstate") as refused:
        solverstate.read(STATES[0].with_suffix(".caffemodel"))
    assert "--weights" in refused.value.hint


def test_a_state_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.solverstate").write_bytes(b"")
    for name in ("empty.solverstate", "none.solverstate"):
        with pytest.raises(SolverError, match=name):
            solverstate.read(tmp_path / name)


def test_nothing_is_left_of_a_state_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "s.solverstate"
    with pytest.raises(NetError):
        solverstate.write(path, Head(1, "w", 0), [(3,), (2,)], iter([np.zeros(3, np.float32)]))
    assert list(tmp_path.iterdir()) == []


def tree(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    h5py = pytest.importorskip("h5py")
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, one: found.__setitem__(
            name, (str(one.id.get_type().dtype), one.shape, one[()].tobytes()) if hasattr(one, "shape")
            else ("group", (), b"")))  # fmt: skip
    return found


def test_a_state_in_hdf5_is_caffes_group_by_group(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    path = LOG / "s_iter_15.solverstate.h5"
    state = hdf5.read_state(path)
    assert (state.iteration, state.step, state.learned_net) == (15, 0, "s_iter_15.caffemodel.h5")
    shapes = [one.shape for one in state.history]
    hdf5.write_state(tmp_path / "s", Head(15, state.learned_net, 0), shapes, state.history)
    assert tree(tmp_path / "s") == tree(path)


def test_weights_in_hdf5_are_caffes_shared_ones_once_and_diffs_beside(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = LOG / "s_iter_15.caffemodel.h5"
    net = graph(lines("log_and_hdf5"), tmp_path)
    values = dict(weights.taken(path, net, lambda says: None))
    assert len(values) == 8
    with h5py.File(path) as file:
        names = {slot: f"diff/{net.plan.steps[slot.step].layer.name}/{slot.blob}" for slot in values}
        diffs = {slot: file[name][()] for slot, name in names.items()}
    hdf5.write_net(tmp_path / "w", net, values.__getitem__, diffs.__getitem__)
    assert tree(tmp_path / "w") == tree(path)


def test_weights_in_hdf5_and_as_a_message_give_the_same_net(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    net = graph(lines("adam_step"), tmp_path)
    path = GOLDEN / "training_stream" / "adam_step" / "s_iter_10.caffemodel"
    values = dict(weights.taken(path, net, lambda says: None))
    hdf5.write_net(tmp_path / "w.h5", net, values.__getitem__)
    again = dict(weights.taken(tmp_path / "w.h5", net, lambda says: None))
    assert again.keys() == values.keys()
    for slot, one in values.items():
        np.testing.assert_array_equal(one, again[slot])


def test_diffs_stand_behind_the_values_of_each_blob_as_caffe_writes_them(tmp_path: Path) -> None:
    from pipeline.codec import caffe_pb2

    net = graph(lines("adam_step"), tmp_path)

    def number(slot: Slot, add: int) -> NDArray[np.float32]:
        return np.full(net.parameters.shapes[slot], slot.step + add, np.float32)

    save(tmp_path / "w", net, lambda slot: number(slot, 0), lambda slot: number(slot, 100))
    read = caffe_pb2.NetParameter.FromString((tmp_path / "w").read_bytes())
    assert read.SerializeToString(deterministic=True) == (tmp_path / "w").read_bytes()
    blobs = [blob for layer in read.layer for blob in layer.blobs]
    assert len(blobs) == 6
    assert all(list(blob.diff) == [one + 100 for one in blob.data] for blob in blobs)


@pytest.mark.parametrize(
    ("old", "new", "layer"),
    [("num_output: 24", "num_output: 25", "ip1"), ("num_output: 5 ", "num_output: 5 bias_term: false ", "ip2")],
)
def test_weights_of_another_net_are_refused_by_layer(old: str, new: str, layer: str, tmp_path: Path) -> None:
    net = graph(lines("adam_step").replace(old, new), tmp_path)
    path = GOLDEN / "training_stream" / "adam_step" / "s_iter_10.caffemodel"
    with pytest.raises(PipelineError, match=f"'{layer}'"):
        list(weights.taken(path, net, lambda line: None))


def test_layers_that_the_net_lacks_are_said_and_left_out(tmp_path: Path) -> None:
    text = lines("adam_step").replace('name: "ip2"', 'name: "new"')
    said: list[str] = []
    path = GOLDEN / "training_stream" / "adam_step" / "s_iter_10.caffemodel"
    values = dict(weights.taken(path, graph(text, tmp_path), said.append))
    assert said == ["Ignoring source layer ip2"]
    assert len(values) == 4


@pytest.mark.parametrize("form", ["message", "hdf5"])
def test_weights_of_which_no_layer_has_a_name_of_the_nets_get_one_warning(form: str, tmp_path: Path) -> None:
    path = GOLDEN / "training_stream" / "adam_step" / "s_iter_10.caffemodel"
    if form == "hdf5":
        pytest.importorskip("h5py")
        own = graph(lines("adam_step"), tmp_path)
        hdf5.write_net(tmp_path / "w.h5", own, dict(weights.taken(path, own, lambda says: None)).__getitem__)
        path = tmp_path / "w.h5"
    text = lines("adam_step")
    for layer in ("conv1", "ip1", "ip2"):
        text = text.replace(f'name: "{layer}"', f'name: "my_{layer}"')
    said: list[str] = []
    assert list(weights.taken(path, graph(text, tmp_path), lambda says: None, said.append)) == []
    assert len(said) == 1
    assert f"{path} gives nothing to the net" in said[0]
    assert "my_conv1, my_ip1, my_ip2" in said[0]
    said.clear()
    assert list(weights.taken(path, graph(lines("adam_step"), tmp_path), lambda says: None, said.append))
    assert said == []


def test_a_damaged_hdf5_file_and_the_wrong_kind_are_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "cut.h5").write_bytes((LOG / "s_iter_15.solverstate.h5").read_bytes()[:2000])
    with pytest.raises(SolverError, match=r"cut.h5"):
        hdf5.read_state(tmp_path / "cut.h5")
    with pytest.raises(SolverError, match=r"is no .solverstate"):
        hdf5.read_state(LOG / "s_iter_15.caffemodel.h5")
    (tmp_path / "text.h5").write_text("train.h5\n")
    with pytest.raises(
        SolverError, match=r"text.h5 cannot be read as HDF5 . it is a text, which begins with 'train.h5'"
    ):
        hdf5.read_state(tmp_path / "text.h5")
    with pytest.raises(SolverError, match=r"cannot be read as HDF5 . it is a folder . give a file of HDF5"):
        hdf5.read_state(tmp_path)
    assert not hdf5.is_hdf5(Path(os.devnull))
