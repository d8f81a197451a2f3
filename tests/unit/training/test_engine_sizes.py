"""Images of other sizes, one a batch: the net's shapes follow the batch, as Caffe's Reshape has it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hathi import training
from pipeline.errors import PipelineError
from pipeline.training import setting_up
from pipeline.training.draws.draws import draws
from pipeline.training.engine import building
from pipeline.training.job import Wanted
from pipeline.training.network import Network
from pipeline.training.solver import NetText
from tests.unit.training import runs
from tests.unit.training.databases import datum, encoded, lmdb_of
from tests.unit.training.runs import blobs
from tests.unit.training.trained import FLOAT64

pytest.importorskip("lmdb")
SIZES = ((12, 10), (9, 17), (12, 10), (20, 8), (9, 17))
DATA = (
    'layer { name: "data" type: "Data" top: "data" top: "label" transform_param { mirror: true scale: 0.01 } '
    'data_param { source: "db" batch_size: %d backend: LMDB } }\n'
)
LIST = (
    'layer { name: "data" type: "ImageData" top: "data" top: "label" transform_param { scale: 0.01 } '
    'image_data_param { source: "list.txt" batch_size: 1 shuffle: true } }\n'
)
NET = (
    'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" '
    'convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }\n'
    'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }\n'
    'layer { name: "relu" type: "ReLU" bottom: "bn" top: "bn" }\n'
    'layer { name: "pool" type: "Pooling" bottom: "bn" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }\n'
    "%s"
    'layer { name: "score" type: "Convolution" bottom: "pool" top: "score" '
    'convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }\n'
    'layer { name: "all" type: "Pooling" bottom: "score" top: "all" '
    "pooling_param { pool: AVE global_pooling: true } }\n"
    'layer { name: "flat" type: "Flatten" bottom: "all" top: "flat" }\n'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "flat" bottom: "label" top: "loss" }\n'
    'layer { name: "accuracy" type: "Accuracy" bottom: "flat" bottom: "label" top: "accuracy" '
    "include { phase: TEST } }\n"
)
DROP = 'layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }\n'
SOLVER = (
    'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 10 snapshot_prefix: "s" display: 1 random_seed: 3 '
    "test_iter: 5 test_interval: 5 "
)


def picture(number: int) -> np.ndarray:
    height, width = SIZES[number % len(SIZES)]
    return np.random.default_rng(number).integers(0, 256, (3, height, width), np.uint8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(range(len(SIZES)))
    return tmp_path


def write(numbers: range | list[int], net: str = DATA % 1 + NET % "", solver: str = SOLVER) -> None:
    shutil.rmtree("db", ignore_errors=True)
    lmdb_of(Path("db"), [datum(picture(number), number % 3) for number in numbers])
    Path("net.prototxt").write_text(net)
    Path("solver.prototxt").write_text(solver)


def learned(solver: training.Solver) -> dict[str, np.ndarray]:
    return {f"{name}{at}": one.data.copy() for name, of in solver.net.params.items() for at, one in enumerate(of)}


def test_each_step_is_that_of_a_net_of_the_images_own_size(here: Path) -> None:
    """To the bit: the same weights, on a database of that one image."""
    plain = SOLVER.replace("random_seed: 3 ", "").replace("test_iter: 5 test_interval: 5 ", "")
    no_mirror = (DATA % 1).replace("mirror: true ", "") + NET % ""
    write(range(len(SIZES)), no_mirror, plain)
    whole = training.load("solver.prototxt", threads=1, check=True)
    for number in range(len(SIZES)):
        lmdb_of(Path(f"one{number}"), [datum(picture(number), number % 3)])
        Path("net.prototxt").write_text(no_mirror.replace('"db"', f'"one{number}"'))
        single = training.load("solver.prototxt", threads=1)
        for name, of in single.net.params.items():
            for at, one in enumerate(of):
                one.data[...] = whole.net.params[name][at].data
        before = learned(whole)
        single.step(1)
        whole.step(1)
        assert whole.net.blobs["data"].data.shape == (1, 3, *SIZES[number])
        assert whole.net.blobs["conv"].data.shape == (1, 4, *SIZES[number])
        after = learned(single)
        assert all(np.array_equal(one, after[key]) for key, one in learned(whole).items()), number
        assert any(not np.array_equal(one, before[key]) for key, one in after.items())
        single.close()


@pytest.mark.parametrize("data", ["Data", "ImageData"])
def test_a_training_of_many_sizes_goes_on_to_the_bit_with_dropout_mirror_and_tests(data: str, here: Path) -> None:
    net = (DATA % 1 if data == "Data" else LIST) + NET % DROP
    write(range(len(SIZES)), net)
    for number in range(len(SIZES)):
        Path(f"{number}.png").write_bytes(encoded(picture(number)))
    Path("list.txt").write_text("".join(f"{number}.png {number % 3}\n" for number in range(len(SIZES))))
    whole = runs.train(Wanted(Path("solver.prototxt"), data_threads=1))
    kept = blobs(Path("s_iter_10.caffemodel"))
    assert sum("Test net output" in line for line in whole.lines) == 6
    for path in here.glob("s_*"):
        path.unlink()
    runs.train(Wanted(Path("solver.prototxt"), until=4))
    runs.train(Wanted(Path("solver.prototxt"), data_threads=3))
    again = blobs(Path("s_iter_10.caffemodel"))
    assert all(np.array_equal(one, again[key]) for key, one in kept.items())


def test_the_gradient_of_another_size_is_that_of_central_differences(here: Path) -> None:
    from google.protobuf import text_format

    from pipeline.codec import caffe_pb2

    text = caffe_pb2.NetParameter()
    text_format.Parse(DATA % 1 + (NET % "").replace('"BatchNorm"', '"Power"'), text)
    made = setting_up.set_up(
        NetText(text, "net", caffe_pb2.NetState(phase=caffe_pb2.TRAIN)), draws(1, 0), lambda _: None
    )
    net = building.build(made.graph, FLOAT64, building.Wanted(), made.values)
    building.reshapes(net, made.reshaped, building.Wanted())
    rng = np.random.default_rng(0)
    feeds = {"data": rng.normal(size=(1, 3, 7, 13)).astype(np.float32), "label": np.array([2], np.float32)}
    assert net.inputs["data"] != feeds["data"].shape
    net.backward(feeds)
    checked = 0
    for one in net.learned:
        values, gradient = net.tensor(one.slot), net.gradient_tensor(one.slot).clone()
        flat = values.detach().view(-1)
        for at in range(0, flat.numel(), max(1, flat.numel() // 5)):
            kept, step = float(flat[at]), 1e-5
            found = []
            for move in (step, -step):
                flat[at] = kept + move
                found.append(loss_of(net, feeds))
            flat[at] = kept
            slope = (found[0] - found[1]) / (2 * step)
            assert slope == pytest.approx(float(gradient.view(-1)[at]), abs=1e-7), (one.layer, at)
            checked += 1
    assert checked > 15
    made.close()


def loss_of(net: Network, feeds: dict[str, np.ndarray]) -> float:
    return net.forward(feeds).loss


def test_a_net_that_takes_one_size_alone_is_refused_before_the_first_iteration(here: Path) -> None:
    product = (
        'layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 3 } }\n'
    )
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }\n'
    write(range(len(SIZES)), DATA % 1 + (NET % "").partition('layer { name: "score"')[0] + product + loss)
    with pytest.raises(PipelineError, match=r"takes images of one size alone.*layer 'fc'.*crop_size"):
        runs.train(Wanted(Path("solver.prototxt")))
    assert not list(here.glob("s_iter*"))
    write([0, 2], DATA % 1 + (NET % "").partition('layer { name: "score"')[0] + product + loss)
    assert runs.train(Wanted(Path("solver.prototxt"))).ended.iteration == 10, "of one size it is no fault"


def test_more_images_a_batch_are_of_one_size_and_channels_never_change(here: Path) -> None:
    write(range(len(SIZES)), DATA % 2 + NET % "")
    with pytest.raises(PipelineError, match=r"3 of 5 examples.*need a crop_size, or a batch_size of 1"):
        runs.train(Wanted(Path("solver.prototxt")))
    write([0])
    grey = datum(picture(1)[:1], 1)
    lmdb_of(Path("mixed"), [datum(picture(0), 0), grey])
    Path("net.prototxt").write_text((DATA % 1).replace('"db"', '"mixed"') + NET % "")
    with pytest.raises(PipelineError, match=r"1 of 2 examples.*it is 1 x 9 x 17"):
        runs.train(Wanted(Path("solver.prototxt")))


def test_hathi_train_test_takes_images_of_many_sizes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli.main import main

    assert main(["train", "solver.prototxt", "--until", "5", "--threads", "1"]) == 0
    capsys.readouterr()
    assert main(["train", "test", "net.prototxt", "s_iter_5.caffemodel", "--iterations", "5", "--json"]) == 0
    assert '"accuracy"' in capsys.readouterr().out
    assert main(["train", "time", "solver.prototxt", "--iterations", "5", "--json"]) == 0
