"""What people who come from CaffeOnSpark type: taken where it means the same, else named with what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.cli.spark_train import submitted
from pipeline.errors import SolverError
from pipeline.training.data.make import make
from pipeline.training.draws.draws import OurDraws

pytest.importorskip("pyspark")


@pytest.mark.parametrize(
    ("given", "typed"),
    [
        ("-train -conf s.prototxt -clusterSize 2", "spark train -conf s.prototxt -clusterSize 2"),
        ("-conf s.prototxt -train", "spark train -conf s.prototxt"),
        ("train -conf s.prototxt", "spark train -conf s.prototxt"),
        ("train s.prototxt --on spark", "train s.prototxt --on spark"),
        ("-features fc7 -output o t", "spark features -features fc7 -output o t"),
        ("features t -features fc7", "spark features t -features fc7"),
        ("--config hathi.toml --once", "spark --config hathi.toml --once"),
    ],
)
def test_spark_submit_takes_the_words_of_both(given: str, typed: str) -> None:
    assert submitted(given.split()) == typed.split()


@pytest.mark.parametrize(
    ("word", "says"),
    [("-model file:/x", "PREFIX_iter_N"), ("-test", "hathi train test"), ("-features ip1", "hathi spark features")],
)
def test_what_a_training_does_not_do_is_refused_with_what_to_type(
    word: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["spark", "train", "-conf", "s.prototxt", *word.split()]) == 2
    said = capsys.readouterr().err
    assert f"hathi spark train takes no {word.split()[0]}" in said
    assert says in said


def test_a_net_with_caffeonsparks_fields_is_told_which_layer_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "MemoryData" top: "data" top: "label" '
        'source_class: "com.yahoo.ml.caffe.ImageDataFrame" }'
    )
    (tmp_path / "s.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1')
    assert main(["spark", "train", "-conf", "s.prototxt", "-clusterSize", "2", "-devices", "1"]) == 2
    said = capsys.readouterr().err
    assert "the field is CaffeOnSpark's: write a layer of type" in said
    assert "-devices is not needed" in said


def test_a_source_with_caffeonsparks_file_is_a_path(tmp_path: Path) -> None:
    from pipeline.codec import caffe_pb2

    spec = caffe_pb2.LayerParameter(name="data", type="Data", top=["data"])
    spec.data_param.source, spec.data_param.batch_size = f"file:{tmp_path}/nothing", 1
    with pytest.raises(SolverError, match=rf"data_param\.source: {tmp_path}/nothing is no LevelDB"):
        make(spec, True, OurDraws(1), Path())
