"""`hathi config diff A B`: what has to match between a gateway and a box, or every setting; secrets never."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main as command_line
from pipeline.settings import FeatureSet, Preprocess
from pipeline.settings.leaves import leaves

GATEWAY = """
[bucket]
url = "s3://images/hathi"
secret_key = "hunter2"
[lakes.main]
url = "hdfs://one:9870/data"
[[lakes.main.sources]]
path = "refs"
[sets.features]
net = "nets/deploy.prototxt"
weights = "nets/x.caffemodel"
blob = "fc7"
root = "features"
[sets.features.preprocess]
mean = [128.0, 128.0, 128.0]
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "hathi.toml"
    path.write_text(text)
    return path


def diff(capsys: pytest.CaptureFixture[str], first: Path, second: Path, *words: str) -> tuple[int, str]:
    code = command_line.main(["config", "diff", str(first), str(second), *words])
    caught = capsys.readouterr()
    assert "hunter" not in caught.out + caught.err
    return code, caught.out


def test_one_text_in_two_folders_and_what_is_spelt_otherwise_is_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "a", GATEWAY)
    monkeypatch.setenv("HATHI_BUCKET__URL", "s3://of/this-shell")
    for words in ([], ["--all"]):
        assert diff(capsys, first, write(tmp_path / "b", GATEWAY), *words)[0] == 0
    other = GATEWAY.replace("[128.0, 128.0, 128.0]", "[128.0]").replace("nets/", "/opt/nets/").replace("x:/", "x:/")
    assert diff(capsys, first, write(tmp_path / "c", other))[0] == 0
    assert diff(capsys, first, tmp_path / "c" / "hathi.toml", "--all")[0] == 1


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("s3://images/hathi", "s3://images/other", "bucket.url"),
        ("[bucket]", '[bucket]\nendpoint = "https://s3.example.org"', "bucket.endpoint"),
        ("lakes.main", "lakes.shop", "lakes.main"),
        ("sets.features", "sets.other", "sets.features"),
        ("deploy.prototxt", "other.prototxt", "sets.features.net"),
        ("x.caffemodel", "y.caffemodel", "sets.features.weights"),
        ('"fc7"', '"fc6"', "sets.features.blob"),
        ("128.0, 128.0]", "128.0, 127.0]", "sets.features.preprocess.mean"),
        ('root = "features"', 'root = "features"\nformats = ["text"]', "sets.features.formats"),
        ("[bucket]", "daemon.alive_seconds = 500.0\n[bucket]", "daemon.alive_seconds"),
    ],
)
def test_what_has_to_match_is_named(
    old: str, new: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = diff(capsys, write(tmp_path / "a", GATEWAY), write(tmp_path / "b", GATEWAY.replace(old, new)))
    assert code == 1
    assert key in out.splitlines()


def test_each_setting_that_decides_a_feature_is_among_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new setting of preprocessing is compared, or is one of those that change no feature."""
    other = {"resize": '"crop"', "channel_order": '"rgb"', "raw_scale": "1.0", "mean": "[1.0]", "std": "[2.0]",
             "input_scale": "0.5", "reduced_decode": "false", "interpolation": '"bicubic"', "layout": '"nhwc"',
             "size": "[64, 64]"}  # fmt: skip
    harmless = {"resize_to", "max_pixels", "damaged"}
    with_others = {"preset", "crop_pct"}  # a preset is the values that it gives; crop_pct changes what a crop gives
    assert set(Preprocess.model_fields) == set(other) | harmless | with_others
    for name, value in other.items():
        line = f"{name} = {value}\n"
        text = GATEWAY.replace("mean = [128.0, 128.0, 128.0]\n", "" if name == "mean" else "mean = [128.0]\n") + line
        code, out = diff(capsys, write(tmp_path / "a", GATEWAY), write(tmp_path / "b", text))
        key = "input_size" if name == "size" else f"preprocess.{name}"
        assert (code, f"sets.features.{key}" in out.splitlines()) == (1, True), name
    assert {"normalise", "precision", "dependent_rows", "input_size", "blob"} <= set(FeatureSet.model_fields)


def test_nets_that_are_here_are_compared_by_what_they_compute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }\n'
    paths = []
    for name, kind in (("a", "TanH"), ("b", "TanH"), ("c", "Sigmoid")):
        one = GATEWAY.replace('weights = "nets/x.caffemodel"\n', "").replace("fc7", "f")
        paths.append(write(tmp_path / name, one))
        (tmp_path / name / "nets").mkdir()
        net = f'# {name}\n{text}layer {{ name: "f" type: "{kind}" bottom: "d" top: "f" }}\n'
        (tmp_path / name / "nets" / "deploy.prototxt").write_text(net)
    assert diff(capsys, paths[0], paths[1])[0] == 0, "a comment computes nothing"
    code, out = diff(capsys, paths[0], paths[2])
    assert (code, "sets.features.net" in out.splitlines()) == (1, True)


def test_with_all_a_secret_that_differs_is_named_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "a", GATEWAY)
    second = write(tmp_path / "b", GATEWAY.replace("hunter2", "hunter3") + "[fetch]\nshare = 0.5\n")
    assert diff(capsys, first, second)[0] == 0, "neither has to match"
    code, out = diff(capsys, first, second, "--all", "--json")
    assert code == 1
    assert [(one["key"], one["second"]) for one in json.loads(out)] == [
        ("bucket.secret_key", "********"), ("fetch.share", "0.5"),
    ]  # fmt: skip


def test_a_file_that_is_missing_or_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "a", GATEWAY)
    assert command_line.main(["config", "diff", str(first), str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err
    assert list(leaves({}, "sources")) == [("sources", {})]
