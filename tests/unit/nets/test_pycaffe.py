"""Nets that Caffe's own Python module runs; here a stand-in with its interface, since Caffe itself is not here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets import engines
from tests.unit.nets import standin_caffe
from tests.unit.nets.test_golden import case, distance


@pytest.fixture
def caffe(monkeypatch: pytest.MonkeyPatch) -> type[standin_caffe.Net]:
    monkeypatch.setitem(sys.modules, "caffe", standin_caffe.module())
    return standin_caffe.Net


@pytest.mark.parametrize("name", ["mini_alexnet", "mini_googlenet", "mini_resnet"])
def test_caffes_module_gives_every_blob(caffe: type[standin_caffe.Net], name: str) -> None:
    prototxt, weights, feeds, blobs = case(name)
    net = nets.load(prototxt, weights, engine="pycaffe")
    found = net.forward(feeds, list(blobs))
    assert all(distance(found[blob], blobs[blob]) < 1e-5 for blob in blobs)
    assert str(net.engine) == "pycaffe 1.0.0, fp32 (asked for)"


def test_a_pass_ends_with_the_last_layer_that_a_wanted_blob_needs(caffe: type[standin_caffe.Net]) -> None:
    prototxt, weights, feeds, blobs = case("mini_alexnet")
    net = nets.load(prototxt, weights, engine="pycaffe")
    assert distance(net.forward(feeds, ["conv1"])["conv1"], blobs["conv1"]) < 1e-5, "with the ReLU in place"
    net.forward(feeds, list(blobs))
    assert caffe.opened[0].ends == ["relu1", None]


def test_batches_and_sizes_may_change_and_rows_are_the_callers(caffe: type[standin_caffe.Net]) -> None:
    prototxt, weights, feeds, blobs = case("mini_alexnet")
    net = nets.load(prototxt, weights, engine="pycaffe")
    one = {name: values[:1] for name, values in feeds.items()}
    first = net.forward(one, ["fc6"])["fc6"]
    kept = first.copy()
    assert distance(first, blobs["fc6"][:1]) < 1e-5
    assert distance(net.forward(feeds, ["fc6"])["fc6"], blobs["fc6"]) < 1e-5
    np.testing.assert_array_equal(first, kept)
    wide = {name: np.pad(values, ((0, 0), (0, 0), (0, 8), (0, 0))) for name, values in feeds.items()}
    with pytest.raises(NetError, match="layer 'fc6'"):
        net.forward(wide, ["fc6"])  # refused here: Caffe's own check would end the process
    assert net.forward(wide, ["conv1"])["conv1"].shape[2] > blobs["conv1"].shape[2]


def test_what_the_weights_lack_holds_what_our_fillers_draw(caffe: type[standin_caffe.Net], tmp_path: Path) -> None:
    path = tmp_path / "n.prototxt"
    path.write_text("""
        state { stage: "own" }
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }
        layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" include { stage: "own" stage: "asked" }
                inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } } }""")
    net = nets.load(path, engine="pycaffe", stages=["asked"], level=3, phase="TRAIN")
    opened = caffe.opened[0]
    assert opened.asked == ("TRAIN", 3, ["asked"]), "Caffe adds the text's own stage itself"
    assert isinstance(net, nets.caffe_net.CaffeNet)
    np.testing.assert_array_equal(opened.params["fc"][0].data, net.parameters.of([1], net.plan)[1][0])
    assert opened.params["fc"][0].data.any()
    ours = nets.load(path, stages=["asked"], level=3, phase="TRAIN")
    sizes = {"data": (1, 3, 4, 4)}
    assert ours.fingerprint("fc", sizes) == net.fingerprint("fc", sizes)


def test_auto_never_means_pycaffe(caffe: type[standin_caffe.Net], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pycaffe" in engines.installed()
    monkeypatch.setattr(engines, "installed", lambda: ["pycaffe"])
    with pytest.raises(NetError, match="no engine is installed"):
        engines.choose("auto")


def test_where_caffe_cannot_be_imported_pycaffe_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prototxt, weights, _, _ = case("mini_alexnet")
    with pytest.raises(NetError, match="engine pycaffe is not installed") as refused:
        nets.load(prototxt, weights, engine="pycaffe")
    assert "PYTHONPATH" in refused.value.hint
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "caffe").mkdir()
    assert "pycaffe" not in engines.installed(), "a folder of that name, such as Caffe's sources, is not its module"
    (tmp_path / "caffe" / "__init__.py").write_text("import libcaffe_of_nowhere")
    with pytest.raises(NetError, match="`import caffe` does not work") as refused:
        nets.load(prototxt, weights, engine="pycaffe")
    assert "libcaffe_of_nowhere" in refused.value.detail
    monkeypatch.setitem(sys.modules, "caffe", other := ModuleType("caffe"))
    other.__spec__ = sys.__spec__
    with pytest.raises(NetError, match="is not Caffe"):
        nets.load(prototxt, weights, engine="pycaffe")


def test_pycaffe_is_for_caffe_nets_in_fp32(caffe: type[standin_caffe.Net], tmp_path: Path) -> None:
    prototxt, weights, _, _ = case("mini_alexnet")
    with pytest.raises(NetError, match="precision bf16 is not available"):
        nets.load(prototxt, weights, engine="pycaffe", precision="bf16")
    for engine in ("pycaffe", "torch"):
        with pytest.raises(NetError, match=f"engine {engine} runs Caffe nets only"):
            nets.load(tmp_path / "m.onnx", engine=engine)
