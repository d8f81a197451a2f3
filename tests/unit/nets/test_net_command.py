"""`hathi net`: show, check, bench, export, features."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline import nets
from pipeline.cli import net as command
from pipeline.errors import ConfigError, NetError
from pipeline.nets.graph.plan import unknown_blob
from tests.unit.images.pictures import encoded, photo
from tests.unit.nets.test_onnx import write

TINY = Path(__file__).parents[2] / "golden" / "tiny"
ALEX = [str(TINY / "mini_alexnet.prototxt"), str(TINY / "mini_alexnet.caffemodel")]


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def test_show_counts_parameters_and_multiply_adds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", *ALEX, "--blob", "pool1", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in shown["layers"]}
    shape = rows["conv1"]["tops"]["conv1"]
    assert rows["conv1"]["parameters"] == 8 * 3 * 5 * 5 + 8
    assert rows["conv1"]["multiply_adds"] == 8 * 3 * 5 * 5 * shape[2] * shape[3]
    assert rows["conv1"]["needed"]
    assert not rows["fc6"]["needed"]
    assert run("show", *ALEX) == 0
    assert "conv1" in capsys.readouterr().out


def test_show_of_caffenet_has_its_well_known_size(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.golden import bignets

    run("show", bignets.prototxt("caffenet"), "--json")
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert sum(row["parameters"] for row in layers) == 60_965_224
    assert sum(row["multiply_adds"] for row in layers) == 724_406_816


def test_check_says_what_is_odd(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", *ALEX) == 0
    assert "runs on openvino" in capsys.readouterr().out
    assert run("check", ALEX[0]) == 1
    assert "no weights are given" in capsys.readouterr().out
    with pytest.raises(NetError, match="no blob"):
        run("check", *ALEX, "--blob", "fc9")


def test_bench_shows_each_engine_with_its_distance(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bench", *ALEX, "--batch", "2", "--rounds", "1", "--precisions", "fp32") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["openvino", "onnxruntime"]
    assert all(float(line.split()[-1]) < 1e-5 for line in lines[1:3])


def test_export_writes_a_model_that_computes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alex.onnx"
    assert run("export", *ALEX, "--onnx", path, "--blob", "fc6", "--batch", "3") == 0
    onnx.checker.check_model(onnx.load(path), full_check=True)
    net = nets.load(path, engine="onnxruntime")
    assert (list(net.inputs), net.outputs) == (["data"], ("fc6",))
    x = np.random.default_rng(0).normal(size=net.inputs["data"]).astype(np.float32)
    assert len(x) == 3
    want = nets.load(*ALEX).forward({"data": x}, ["fc6"])["fc6"]
    np.testing.assert_allclose(net.forward({"data": x})["fc6"], want, rtol=1e-4, atol=1e-4)


def test_features_prints_a_line_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "a.jpg", tmp_path / "b.jpg"
    good.write_bytes(encoded(photo(64, 48), "JPEG"))
    bad.write_bytes(b"no image")
    assert run("features", *ALEX, good, "--blob", "fc6") == 0
    name, *values = capsys.readouterr().out.rstrip("\n").split("\t")
    assert name == str(good)
    assert np.linalg.norm([float(value) for value in values]) == pytest.approx(1, abs=1e-4)
    assert run("features", *ALEX, good, bad, "--blob", "fc6", "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ok"] for row in rows] == [True, False]
    assert rows[1]["reason"] == "not_image"
    assert run("features", "hog", good, good) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_features_take_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "a.jpg"
    good.write_bytes(encoded(photo(64, 48), "JPEG"))
    model = write(tmp_path / "m.onnx", "n", size="side")
    words: list[str | Path] = [
        "features",
        model,
        good,
        "--blob",
        "feature",
        "--set",
        "input_size=[20, 20]",
        "--set",
        "normalise=none",
    ]
    with pytest.raises(ConfigError, match="nothing says how images are prepared") as caught:
        run(*words)
    assert "--preprocess caffe|imagenet|clip|dinov2|unit|none" in caught.value.hint
    assert run(*words, "--set", "preprocess.channel_order=rgb") == 0
    first = capsys.readouterr().out
    assert run(*words, "--preprocess", "caffe") == 0
    assert capsys.readouterr().out != first
    with pytest.raises(ConfigError, match="normalise"):
        run(*words, "--set", "normalise=l7")
    with pytest.raises(ConfigError, match="a feature is one blob"):
        run("features", model, good, "--blob", "feature", "--blob", "flat")


def test_an_onnx_model_is_shown_node_by_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alex.onnx"
    run("export", *ALEX, "--onnx", path, "--batch", "3")
    capsys.readouterr()
    run("show", *ALEX, "--blob", "fc7", "--json")
    caffe = json.loads(capsys.readouterr().out)["layers"]
    run("show", path, "--json")
    rows = json.loads(capsys.readouterr().out)["layers"]
    assert sum(row["multiply_adds"] for row in rows) == sum(row["multiply_adds"] for row in caffe)
    learned = {row["parameters"] for row in caffe if row["parameters"]}
    assert learned <= {row["parameters"] for row in rows}
    first = next(row for row in rows if row["type"] == "Conv")
    assert list(first["tops"].values()) == [[3, 8, 16, 16]]
    run("show", path, "--blob", next(iter(first["tops"])), "--json")
    rows = json.loads(capsys.readouterr().out)["layers"]
    assert [row["type"] for row in rows if row["needed"]] == ["Conv"]


def test_tables_are_not_cut_where_nobody_looks_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path / "m.onnx", "n", size="side")
    for words in (ALEX, [model]):
        assert run("show", *words) == 0
        shown = capsys.readouterr().out
        assert "\N{HORIZONTAL ELLIPSIS}" not in shown
        assert "multiply-adds" in shown
    assert "?x" in shown, "a size that is free"


def test_check_and_bench_say_it_as_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", *ALEX, "--blob", "fc6", "--json") == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["blobs"] == {"fc6": [2, 16]}
    assert checked["odd"] == []
    run("bench", *ALEX, "--batch", "2", "--rounds", "1", "--precisions", "fp32", "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["engine"] for row in rows][:2] == ["openvino", "onnxruntime"]


def test_hog_can_be_looked_at_as_a_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "hog") == 0
    assert run("check", "hog") == 0
    assert "blob hog: 2x3780" in capsys.readouterr().out
    assert run("bench", "hog", "--batch", "1", "--rounds", "1") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("numpy")
    with pytest.raises(NetError, match="no Caffe net"):
        run("export", "hog", "--onnx", tmp_path / "h.onnx")


def test_an_image_that_cannot_be_read_costs_itself_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "a.jpg"
    good.write_bytes(encoded(photo(64, 48), "JPEG"))
    assert run("features", "hog", tmp_path / "none.jpg", good) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{good}\t")
    assert "none.jpg\tbad_ref: the file cannot be read" in shown.err


def test_export_says_what_it_wrote_as_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alex.onnx"
    assert run("export", *ALEX, "--onnx", path, "--blob", "fc6", "--batch", "3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"file": str(path), "bytes": path.stat().st_size, "weights_file": None,
                    "inputs": {"data": [3, 3, 35, 35]}, "outputs": {"fc6": [3, 16]}}  # fmt: skip
    with pytest.raises(NetError, match="cannot be written"):
        run("export", *ALEX, "--onnx", tmp_path / "none" / "alex.onnx")


@pytest.mark.parametrize("action", ["show", "check", "bench", "export", "features"])
def test_every_action_names_the_blobs_that_are_near_a_wrong_one(action: str, tmp_path: Path) -> None:
    more = {"export": ["--onnx", tmp_path / "a.onnx"], "features": [tmp_path / "a.jpg"]}.get(action, [])
    with pytest.raises(NetError, match="no blob 'fc66'") as caught:
        run(action, *ALEX, *more, "--blob", "fc66")
    assert caught.value.hint == "near names: fc6, fc7"


@pytest.mark.parametrize("words", [("--batch", "0"), ("--rounds", "none"), ("--threads", "-1")])
def test_numbers_that_make_no_sense_are_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("bench", *ALEX, *words)
    assert f"'{words[1]}' is not a number from" in capsys.readouterr().err


def test_a_net_of_free_size_is_asked_for_one_and_neither_crashes_nor_measures_dots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path / "m.onnx", "n", size="side")
    for action in ("check", "bench"):
        with pytest.raises(NetError, match="takes images of any size") as caught:
            run(action, model)
        assert "--input-size 224x224" in caught.value.hint
        assert "engine" not in caught.value.hint
    assert run("check", model, "--input-size", "40x30", "--preprocess", "unit") == 0
    assert "preprocess unit: resized to 40 x 30 (bilinear), RGB 0 to 1, mean 0, std 1, NCHW" in capsys.readouterr().out
    assert run("check", model, "--preprocess", "clip") == 0, "the preset has a size"
    assert "centre 224 x 224" in capsys.readouterr().out
    assert (
        run("bench", model, "--set", "input_size=20x24", "--batch", "2", "--rounds", "1", "--precisions", "fp32") == 0
    )
    assert "fed with 3x20x24" in capsys.readouterr().err
    assert run("show", model, "--input-size", "32", "--json") == 0
    tops = {name: shape for row in json.loads(capsys.readouterr().out)["layers"] for name, shape in row["tops"].items()}
    assert tops["conv"][2:] == [30, 30]
    with pytest.raises(NetError, match="does not compute image 2 x 3 x 2 x 2") as caught:
        run("check", model, "--input-size", "2")
    assert "--input-size" in caught.value.hint


def test_check_says_that_no_preprocessing_is_stated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", write(tmp_path / "m.onnx", "n")) == 1
    assert "a feature set with it is refused; name what it was trained with: --preprocess caffe|" in (
        capsys.readouterr().out
    )
    assert run("check", *ALEX, "--blob", "conv1") == 0
    said = capsys.readouterr().out
    assert "preprocess caffe: resized to" in said
    assert "(--pool mean or max: 8, one for each channel)" in said


@pytest.mark.parametrize("size", ["24", "24x24", "[24,24]", "[24, 24]", "24X24"])
def test_a_setting_is_taken_in_each_form(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "a.png"
    good.write_bytes(encoded(photo(64, 48), "PNG"))
    model = write(tmp_path / "m.onnx", "n", size="side")
    words: list[str | Path] = ["features", model, good, "--set", f"input_size={size}"]
    for mean in ("mean=0,0,0", "mean=[0,0,0]", "mean=0", "preprocess.mean=0.0, 0.0, 0.0"):
        assert run(*words, "--set", mean) == 0, "the blob is the output"
        assert "resized to 24 x 24, BGR 0 to 255, mean 0, std 1" in capsys.readouterr().err
    for wrong, forms in (
        ("input_size=24xx", "write 320, 320x320 or [320, 320]"),
        ("input_size=[1,2,3]", "write 320, 320x320 or [320, 320]"),
        ("mean={}", "104,117,123"),
        ("pool", "write --set KEY=VALUE, for example input_size=320, input_size=320x320"),
    ):
        with pytest.raises(ConfigError) as caught:
            run(*words, "--set", wrong)
        assert forms in f"{caught.value.detail} {caught.value.hint}"


def test_names_near_the_end_of_a_long_list_of_blobs_are_seen() -> None:
    names = [f"/model/layer{n}/Relu_output" for n in range(300)] + ["/head/pooled", "Embedding"]
    assert "Embedding" in unknown_blob("embedding", names).hint
    assert "/head/pooled" in unknown_blob("pooled", names).hint
    assert unknown_blob("x", names).detail.endswith("/head/pooled, Embedding")
    assert "(262 more)" in unknown_blob("x", names).detail


def test_a_blob_that_large_numbers_saturate_is_not_odd_and_one_that_never_changes_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = """
        layer {{ name: "i" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 3 dim: 2 dim: 2 }} }} }}
        layer {{ name: "p" type: "Power" bottom: "x" top: "p" power_param {{ power: 2 scale: {scale} }} }}
        layer {{ name: "s" type: "Sigmoid" bottom: "p" top: "s" }}
    """
    path = tmp_path / "net.prototxt"
    path.write_text(net.format(scale=10))
    assert run("check", path) == 0, capsys.readouterr().out
    path.write_text(net.format(scale=0))
    assert run("check", path) == 1
    assert "two different images give the same values" in capsys.readouterr().out
