"""hathi train template finetune: files that train, with what is frozen equal to the bit; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.images.preparing import Preparation
from pipeline.nets.caffe import prototxt
from pipeline.settings import Preprocess
from pipeline.training.dataset.examples import read
from sample import random_features
from tests.unit.training.databases import datum, images, lmdb_of
from tests.unit.training.made_sets import clouds, made
from tests.unit.training.runs import blobs
from tests.unit.training.test_judging import NET, tinted

pytest.importorskip("lmdb")
CLASSIFIER = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 6 kernel_size: 3 } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc1" type: "InnerProduct" bottom: "conv" top: "fc1" inner_product_param { num_output: 8 } }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2" inner_product_param { num_output: 40 } }
layer { name: "drop" type: "Dropout" bottom: "fc2" top: "fc2" }
layer { name: "prob" type: "Softmax" bottom: "fc2" top: "prob" }
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    made(tmp_path / "set", {"train": tinted(64, 1), "validation": tinted(20, 2), "test": tinted(30, 3)})
    random_features.write(tmp_path / "random.caffemodel")
    (tmp_path / "small.prototxt").write_text(CLASSIFIER)
    return tmp_path


def template(site: Path, net: Path, *more: str) -> int:
    return main(["train", "template", "finetune", str(site / "out"), "--net", str(net), *more])


def test_a_new_layer_on_frozen_ones_learns_and_they_stay_to_the_bit(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert template(site, NET, "--dataset", str(site / "set"), "--blob", "features", "--freeze", "all") == 0
    said = capsys.readouterr().out
    assert "layer 'score' is new, of 3 classes; 64 examples to train with, 20 to test with" in said
    solver = site / "out" / "solver.prototxt"
    assert "max_iter: 40" in solver.read_text(), "20 passes of 2 batches"
    assert "test_iter: 1" in solver.read_text()
    assert main(["train", str(solver), "--weights", str(site / "random.caffemodel"), "--json", "--threads", "1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    last = rows[-1]["model"]
    before, after = blobs(site / "random.caffemodel"), blobs(Path(last))
    for key, values in before.items():
        assert np.array_equal(values, after[key]), f"{key} moved"
    words = ["evaluate", "--net", str(site / "out" / "deploy.prototxt"), "--weights", last, "--json",
             "--set", "preprocess.reduced_decode=false"]  # fmt: skip
    assert main([*words, "--dataset", str(site / "set"), "--side", "validation"]) == 0
    told = json.loads(capsys.readouterr().out)
    test = ["train", "test", str(site / "out" / "train_val.prototxt"), last, "--iterations", "1", "--json"]
    assert main(test) == 0
    own = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["accuracy"] == pytest.approx(own["outputs"]["accuracy"][0], abs=1e-6)
    assert told["loss"] == pytest.approx(own["loss"], abs=1e-4)
    assert told["accuracy"] > 0.4, "it learnt nothing"


def layers_of(path: Path) -> dict[str, Any]:
    return {layer.name: layer for layer in prototxt.read(path).layer}


def test_the_last_layer_that_learns_is_renamed_and_lower_ones_learn_slowly(site: Path) -> None:
    assert template(site, site / "small.prototxt", "--dataset", str(site / "set"), "--freeze", "norm") == 0
    text = layers_of(site / "out" / "train_val.prototxt")
    new = text["fc2_of_3"]
    assert (new.inner_product_param.num_output, [one.lr_mult for one in new.param]) == (3, [10.0, 20.0])
    assert list(text["drop"].bottom) == list(text["drop"].top) == list(new.top) == ["fc2_of_3"]
    assert list(text["loss"].bottom) == ["fc2_of_3", "label"]
    assert [one.lr_mult for one in text["conv"].param] == [0.0, 0.0]
    assert text["norm"].batch_norm_param.use_global_stats
    assert not text["fc1"].param, "what is not frozen learns with the rate of the solver"
    assert not {"prob", "fc2"} & text.keys()
    deploy = layers_of(site / "out" / "deploy.prototxt")
    assert list(deploy) == ["data", "conv", "norm", "relu", "fc1", "fc2_of_3", "drop", "prob"]
    assert not deploy["conv"].param


def test_an_lmdb_is_used_where_it_lies_with_crops(site: Path) -> None:
    source = lmdb_of(site / "lmdb", [datum(one, at % 2) for at, one in enumerate(images(12, (3, 20, 24)))])
    given = ["--dataset", str(source), "--test", str(source), "--classes", "2"]
    assert template(site, site / "small.prototxt", *given) == 0
    data = [one for one in prototxt.read(site / "out" / "train_val.prototxt").layer if one.type == "Data"]
    assert [(one.data_param.source, one.transform_param.crop_size) for one in data] == [(str(source), 16)] * 2
    assert data[1].data_param.batch_size == 12
    assert main(["train", str(site / "out" / "solver.prototxt"), "--until", "1", "--threads", "1"]) == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "needs a net and a dataset"),
        (["--dataset", "rows"], "holds features"),
        (["--dataset", "set", "--classes", "2"], "--classes does not fit"),
        (["--dataset", "set", "--freeze", "conv9"], "no such layer below the new one"),
        (["--dataset", "set", "--blob", "conv9"], "conv9"),
        (["--dataset", "set", "--mean", "a"], "--mean a holds no numbers"),
        (["--dataset", "alone"], "nothing to test with"),
        (["--dataset", "nowhere", "--test", "set"], "nowhere is no dataset"),
    ],
)
def test_a_template_that_cannot_be_is_refused_and_nothing_is_left(
    more: list[str], says: str, site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(site / "rows", {"train": clouds(20, 4, 2)})
    made(site / "alone", {"train": tinted(4, 1)})
    monkeypatch.chdir(site)
    before = sorted(one.name for one in site.iterdir())
    assert template(site, site / "small.prototxt", *more) == 2
    assert says in capsys.readouterr().err
    assert sorted(one.name for one in site.iterdir()) == before


def test_a_net_of_grey_images_trains_on_what_it_gets_when_it_serves(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = site / "grey.prototxt"
    net.write_text(CLASSIFIER.replace("dim: 1 dim: 3", "dim: 1 dim: 1"))
    words = ["--dataset", str(site / "set")]
    assert template(site, net, *words, "--mean", "1,2,3") == 2
    assert "is of 3 channels" in capsys.readouterr().err
    assert template(site, net, *words) == 0
    text = layers_of(site / "out" / "train_val.prototxt")
    assert list(text["data"].transform_param.mean_value) == [0.0]
    how = Preparation(Preprocess.model_validate({"mean": [0.0], "reduced_decode": False}), (16, 16), channels=1)
    sides = zip(read(site / "set", "validation"), read(site / "out" / "test_lmdb"), strict=True)
    for given, made_ in sides:
        prepared = how(given.datum.data)
        assert isinstance(prepared, np.ndarray)
        assert made_.datum.channels == 1
        assert np.array_equal(made_.image(), prepared.astype(np.uint8))
