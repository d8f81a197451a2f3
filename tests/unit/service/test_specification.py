"""A tenant's solver and net: rebuilt from what is known, priced, or refused by what is wrong and where."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.errors import TemporaryError
from pipeline.nets.caffe import prototxt
from pipeline.service.problems import of_error
from pipeline.service.specification import child, judging
from pipeline.service.specification.facts import data_of
from pipeline.service.specification.judging import judge
from pipeline.service.specification.words import FILES, Asked, BadSpecification, Data, Judged, Limits, Problem
from pipeline.training import solver_text

DATA = Data(10, 3, 32, 32, {"train": 4000, "test": 1000})
SOLVER = """base_lr: 0.01
lr_policy: "fixed"
max_iter: 1000
test_iter: 10
test_interval: 100
"""
NET = """name: "small"
layer { name: "in" type: "Data" top: "data" top: "label" data_param { batch_size: 50 source: "/etc/shadow" } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def judged(asked: Asked) -> Judged:
    """As `judge`, in this process."""
    data = asdict(asked.data) if asked.data is not None else None
    given = {"solver": asked.solver, "net": asked.net, "data": data, "limits": asdict(asked.limits)}
    found = child._judge(given)
    if found["problems"]:
        raise BadSpecification([Problem(*one) for one in found["problems"]])
    return Judged(found["solver"], found["net"], found["price"], found["warnings"], found["inputs"])


def problems(solver: str = SOLVER, net: str = NET, data: Data | None = DATA, **limits: Any) -> tuple[Problem, ...]:
    with pytest.raises(BadSpecification) as refused:
        judged(Asked(solver, net, data, Limits(**limits)))
    return refused.value.problems


def layers(*more: str) -> str:
    return NET + "\n".join(more) + "\n"


def test_a_good_one_is_ours_and_priced() -> None:
    found = judge(Asked(SOLVER, NET, DATA))
    assert found.price["parameters"] == 10 * 3 * 32 * 32 + 10
    assert (found.price["iterations"], found.price["examples"]) == (1000, 50)
    pass_ = 50 * 10 * 3 * 32 * 32
    assert found.price["multiply_adds"] == 2 * pass_  # the data needs no gradient
    assert found.price["seconds"] == round((1000 * 2 * pass_ + 11 * 10 * pass_) / 5e10, 3)
    net = prototxt.parse(found.net)
    assert [(one.type, one.data_param.source) for one in net.layer if one.type == "Data"] == [
        ("Data", "train_lmdb"), ("Data", "test_lmdb")]  # fmt: skip
    solver = solver_text.parse(found.solver, "solver")
    assert (solver.net, solver.snapshot_prefix) == ("net.prototxt", "snapshot")


def test_no_word_of_a_tenant_names_a_file_that_is_read() -> None:
    solver = SOLVER + 'net: "/etc/passwd"\nsnapshot_prefix: "/root/x"\nsolver_mode: GPU\ndevice_id: 3\nrandom_seed: 7\n'
    net = NET.replace('type: "Data"', 'type: "ImageData"').replace(
        "data_param {", 'image_data_param { root_folder: "/etc/"'
    )
    net = net.replace('top: "label" image', 'top: "label" transform_param { mean_file: "/etc/hosts" scale: 2 } image')
    found = judged(Asked(solver, net, DATA))
    for text in (found.solver, found.net):
        assert "/etc" not in text
        assert "/root" not in text
    assert not {"random_seed", "device_id", "solver_mode"} & set(found.solver.split(": ")[0::2])
    files = [one.data_param.source for one in prototxt.parse(found.net).layer if one.type == "Data"]
    assert set(files) <= set(FILES)
    assert 'mean_file: "mean.binaryproto"' in found.net
    assert len(found.warnings) == 6
    assert judged(Asked(found.solver, found.net, DATA)).net == found.net  # what is rebuilt stays as it is


BROUGHT = """name: "small"
layer { name: "in" type: "Data" top: "data" top: "label" include { phase: TRAIN }
        transform_param { scale: 0.5 mean_file: "mean" } data_param { batch_size: 50 source: "train" } }
layer { name: "in" type: "HDF5Data" top: "data" top: "label" include { phase: TEST }
        hdf5_data_param { batch_size: 10 source: "held_out" shuffle: true } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def test_a_net_whose_data_a_job_brings_names_inputs_and_no_file() -> None:
    found = judged(Asked(SOLVER, BROUGHT, None))
    assert (list(found.inputs), found.price, found.warnings) == (["held_out", "mean", "train"], {}, [])
    first, second = (one for one in prototxt.parse(found.net).layer if one.name == "in")
    assert (first.data_param.source, first.transform_param.mean_file) == ("inputs/train", "inputs/mean")
    assert (second.hdf5_data_param.source, second.hdf5_data_param.shuffle) == ("inputs/held_out", True)
    assert judged(Asked(found.solver, found.net, None)).net == found.net
    for source in ("/etc/shadow", "../train", "a/b", "inputs/../x", "", "x" * 99):
        (wrong,) = problems(net=BROUGHT.replace('"held_out"', f'"{source}"'), data=None)
        assert (wrong.pointer, "names a file" in wrong.message) == ("/net/layer/1", True)
    (wrong,) = problems(net=BROUGHT.replace('"mean"', '"/etc/hosts"'), data=None)
    assert "mean_file" in wrong.detail
    image = BROUGHT.replace('type: "Data"', 'type: "ImageData"').replace(" data_param", " image_data_param")
    assert "files of its own" in problems(net=image, data=None)[0].message
    assert problems(SOLVER + "base_lr: nan", BROUGHT, None)[0].pointer == "/solver"
    assert (
        "no data layer for test" in problems(net=BROUGHT.replace("phase: TEST", "phase: TRAIN"), data=None)[0].message
    )


def test_a_net_within_the_solver_is_taken() -> None:
    inner = "net_param {\n" + NET + "}\n"
    assert judged(Asked(SOLVER + inner, "", DATA)).price == judged(Asked(SOLVER, NET, DATA)).price
    (found,) = problems(SOLVER + inner)
    assert (found.pointer, found.message) == ("/solver/net_param", "two nets are given")


WRONG: list[tuple[str, str, tuple[str, int, int], str]] = [
    (SOLVER + "gama: 3\n", NET, ("/solver", 6, 1), "syntax error"),
    (SOLVER + "gamma: {\n", NET, ("/solver", 6, 8), "syntax error"),
    (SOLVER, NET + "layer { nme: 3 }\n", ("/net", 5, 9), "syntax error"),
    (SOLVER, NET + "layer { name: 'x\n", ("/net", 5, 15), "syntax error"),
    (SOLVER, "layer { " * 300, ("/net", 1, 9), "syntax error"),
    (SOLVER + 'weights: "/etc/x"\n', NET, ("/solver/weights", 0, 0), "weights cannot be given"),
    (SOLVER + 'train_state { stage: "a" }\n', NET, ("/solver/train_state", 0, 0), "cannot be given"),
    (SOLVER.replace("1000", "-5"), NET, ("/solver/max_iter", 0, 0), "max_iter is -5"),
    (SOLVER.replace("1000", "2000000000"), NET, ("/solver/max_iter", 0, 0), "max_iter is 2,000,000,000"),
    (SOLVER + "stepvalue: 1\n" * 10_001, NET, ("/solver/stepvalue", 0, 0), "10,001 stepvalues"),
    (SOLVER.replace("fixed", "\\x1b[2J"), NET, ("/solver", 0, 0), "unknown lr_policy"),
    (SOLVER.replace("0.01", "nan"), NET, ("/solver", 0, 0), "base_lr is nan"),
    (SOLVER + "iter_size: 0\n", NET, ("/solver", 0, 0), "iter_size is under 1"),
    (SOLVER, layers('layer { name: "p" type: "Python" python_param { module: "os" } }'), ("/net/layer/3", 0, 0),
     "runs"),
    (SOLVER, layers('layer { name: "w" type: "WindowData" top: "x" }'), ("/net/layer/3", 0, 0), "cannot be used"),
    (SOLVER, layers('layer { name: "h" type: "HDF5Output" bottom: "ip" }'), ("/net/layer/3", 0, 0), "cannot be used"),
    (SOLVER, layers('layer { name: "n" type: "NoSuch" bottom: "ip" top: "x" }'), ("/net/layer/3", 0, 0), "NoSuch"),
    (SOLVER, layers('layer { name: "i" type: "InfogainLoss" bottom: "ip" bottom: "label" top: "x" '
                        'infogain_loss_param { source: "/etc/x" } }'), ("/net/layer/3", 0, 0), "names a file"),
    (SOLVER, layers('layer { name: "v" type: "Softmax" bottom: "ip" top: "x" '
                        'video_data_param { video_file: "/etc/x" } }'), ("/net/layer/3", 0, 0), "names a file"),
    (SOLVER, layers('layer { name: "b" type: "InnerProduct" bottom: "ip" top: "x" blobs { data: 1 } }'),
         ("/net/layer/3", 0, 0), "learned values"),
    (SOLVER, layers('layer { name: "c" type: "Convolution" bottom: "data" top: "x" '
                        'convolution_param { num_output: 4 kernel_size: 99 } }'), ("/net/layer/3", 0, 0), ""),
    (SOLVER, NET.replace("batch_size: 50", ""), ("/net/layer/0", 0, 0), "no batch_size"),
    (SOLVER, NET.replace("num_output: 10", "num_output: 4"), ("/net/layer/1", 0, 0), "4 outputs"),
    (SOLVER, 'input: "data" input_dim: 1 ' + NET, ("/net/input", 0, 0), "the net has input"),
    (SOLVER, "", ("/net", 0, 0), "no data layer"),
    (SOLVER, "a" * (2**20 + 1), ("/net", 0, 0), "too long"),
    (SOLVER, "\0", ("/net", 0, 0), "NUL"),
    (SOLVER, 'layer { name: "x" }\n' * 2001, ("/net", 0, 0), "2,001 layers"),
    (SOLVER, NET.replace("num_output: 10", "num_output: 2000000000"), ("/net/layer/1", 0, 0), ""),
    (SOLVER, NET.replace("batch_size: 50", "batch_size: 4000000000"), ("/net/layer/0", 0, 0), ""),
    (SOLVER, NET.replace("data_param", "transform_param { crop_size: 99 } data_param"), ("/net/layer/0", 0, 0),
     "crop_size is 99"),
]  # fmt: skip


@pytest.mark.parametrize(("solver", "net", "place", "says"), WRONG, ids=map(str, range(len(WRONG))))
def test_what_is_wrong_is_named_with_its_place(solver: str, net: str, place: tuple[str, int, int], says: str) -> None:
    found = problems(solver, net)
    places = [(one.pointer, one.line, one.column) for one in found]
    assert place in places
    mine = found[places.index(place)]
    assert says in f"{mine.message} {mine.detail}"


def test_several_problems_are_told_at_once() -> None:
    found = problems(
        SOLVER + 'weights: "x"\n', layers('layer { name: "p" type: "Python" }', 'layer { name: "q" type: "Python" }')
    )
    assert [one.pointer for one in found] == ["/solver/weights", "/net/layer/3", "/net/layer/4"]


def test_limits_name_the_layer_and_the_number() -> None:
    (found,) = problems(parameters=1000)
    assert found.pointer == "/net/layer/1"
    assert "30,730 numbers" in found.message
    (found,) = problems(memory=2**16)
    assert "layer 'in'" in found.message
    (found,) = problems(seconds=1e-6)
    assert found.pointer == "/solver/max_iter"


def test_data_that_do_not_fit_are_named() -> None:
    assert "several sizes" in problems(data=replace(DATA, height=0, width=0))[0].message
    assert "grey and coloured" in problems(data=replace(DATA, channels=0))[0].message
    assert "no side test" in problems(data=replace(DATA, sides={"train": 5}))[0].message
    found = judged(Asked(SOLVER, NET, replace(DATA, labels=7)))
    assert found.warnings == ["layer 'ip' has 10 outputs, the dataset 7 labels"]


def test_tests_that_take_other_weights_than_the_training_are_refused() -> None:
    one, two = (NET.splitlines()[1].replace(" data_param", f" include {{ phase: {phase} }} {crop} data_param")
                for phase, crop in (("TRAIN", "transform_param { crop_size: 28 }"), ("TEST", "")))  # fmt: skip
    (found,) = problems(net="\n".join([one, two, *NET.splitlines()[2:]]))
    assert found.pointer == "/net/layer/2"
    assert "23,530 numbers, and takes 30,730 in tests" in found.message


def test_snapshots_are_bounded() -> None:
    found = judged(Asked(SOLVER.replace("1000", "100000") + "snapshot: 1\n", NET, DATA))
    assert "snapshot: 100\n" in found.solver


def test_what_takes_too_much_to_read_is_a_problem_and_ends_its_reader_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = "from pipeline.process.life import limit_processor\nlimit_processor(0.05)\nwhile True: pass"
    monkeypatch.setattr(judging, "python_of", lambda module: [sys.executable, "-c", reader])
    with pytest.raises(BadSpecification) as refused:
        judge(Asked(SOLVER, NET, DATA))
    assert "more time to read" in refused.value.message


def test_a_host_that_is_too_busy_to_judge_says_so_and_blames_no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "SECONDS", 0.01)
    with pytest.raises(TemporaryError) as refused:
        judge(Asked(SOLVER, NET, DATA))
    assert "too busy" in refused.value.message
    answer = of_error(refused.value)
    assert (answer.status, answer.retry_after) == (503, 10)


def test_the_price_is_shown_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = judged(Asked(SOLVER, NET, DATA))
    shape = "dummy_data_param { shape { dim: 50 dim: 3 dim: 32 dim: 32 } shape { dim: 50 } }"
    net = NET.replace('type: "Data"', 'type: "DummyData"').replace(
        'data_param { batch_size: 50 source: "/etc/shadow" }', shape
    )
    (tmp_path / "net.prototxt").write_text(net)
    (tmp_path / "solver.prototxt").write_text(SOLVER + 'net: "net.prototxt"\n')
    assert main(["train", "price", "solver.prototxt", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["parameters"], told["bytes"]) == (found.price["parameters"], found.price["bytes"])
    assert main(["train", "price", "solver.prototxt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "type", "parameters", "activations", "multiply-adds", "backward"]
    assert lines[2].split() == ["ip", "InnerProduct", "30,730", "500", "1,536,000", "1,536,000"]
    (tmp_path / "net.prototxt").write_text(net + 'layer { name: "p" type: "Python" bottom: "ip" top: "x" }\n')
    assert main(["train", "price", "solver.prototxt"]) == 1
    assert "refused: layer 'p' (Python)" in capsys.readouterr().out
    assert main(["train", "price"]) == 2


def test_a_dataset_says_what_a_net_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)

    def encoded(form: str, *shape: int) -> bytes:
        return cv2.imencode(form, rng.integers(0, 255, shape, np.uint8))[1].tobytes()

    def data_for(**files: bytes) -> Data:
        out = tmp_path / f"set-{len(list(tmp_path.iterdir()))}"
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"{name[0]}/{name}", content)
        assert main(["dataset", "import", "a.zip", str(out), "--split", "50/50"]) == 0
        return data_of(out)

    colours = {f"{label}{at}": encoded(".jpg", 12, 16, 3) for label in "ab" for at in range(4)}
    assert data_for(**colours) == Data(2, 3, 12, 16, {"train": 4, "test": 4})
    (made,) = tmp_path.glob("set-*")
    grey = {f"{label}{at}": encoded(".jpg" if at else ".png", 12, 16) for label in "ab" for at in range(4)}
    assert data_for(**grey) == Data(2, 1, 12, 16, {"train": 4, "test": 4})
    mixed = data_for(**colours, a9=encoded(".png", 9, 16), b9=encoded(".png", 12, 16, 4))
    assert mixed == Data(2, 0, 0, 16, {"train": 5, "test": 5})
    (tmp_path / "net.prototxt").write_text(NET.replace("num_output: 10", "num_output: 2"))
    (tmp_path / "solver.prototxt").write_text(SOLVER + 'net: "net.prototxt"\n')
    capsys.readouterr()
    assert main(["train", "price", "solver.prototxt", "--dataset", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 2 * 3 * 12 * 16 + 2
    assert main(["train", "price", "solver.prototxt", "--dataset", str(made)]) == 0
    assert "learned numbers: 1,154" in capsys.readouterr().out
    (tmp_path / "net.prototxt").write_text(NET.replace("num_output: 10", "num_output: 1"))
    assert main(["train", "price", "solver.prototxt", "--dataset", str(made)]) == 1
    assert "refused: /net/layer/1: layer 'ip' has 1 outputs" in capsys.readouterr().out
