"""hathi train head: from a dataset of features to a net that runs; what it refuses, and how it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.errors import ConfigError, FormatError
from pipeline.images import Preparation
from pipeline.nets import load
from pipeline.nets.caffe import caffemodel
from pipeline.nets.features import FeatureNet
from pipeline.settings import FeatureSet, Preprocess
from pipeline.training.linear import joining
from pipeline.training.linear.head import PATH, Wanted, train
from pipeline.training.linear.reading import of_features
from sample import random_features
from tests.unit.training.databases import encoded, images
from tests.unit.training.made_sets import clouds, made

ROOT = Path(__file__).parents[3]


def quiet(says: str) -> None:
    """Nobody listens."""


def cut(values: Any, labels: list[int], *ends: int) -> dict[str, Any]:
    names = ("train", "validation", "test")
    places = (0, *ends)
    return {
        name: (values[first:last], labels[first:last])
        for name, first, last in zip(names, places, (*ends, len(labels)), strict=False)
        if first != last
    }


@pytest.mark.parametrize("loss", ["softmax", "logistic", "hinge"])
def test_the_command_makes_a_net_whose_scores_are_those_of_the_features(
    loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, labels = clouds(900, 24, 4, apart=2.0)
    folder = made(tmp_path / "set", cut(values, labels, 600, 750))
    assert main(["train", "head", str(folder), str(tmp_path / "out"), "--loss", loss, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["l2"] in PATH
    assert told["bound"] <= 1e-6 * told["objective"]
    assert told["figures"]["test"]["accuracy"] > 0.8
    net = load(tmp_path / "out" / joining.NET, tmp_path / "out" / joining.WEIGHTS)
    found = net.forward({"features": values[750:]}, [joining.SCORE])[joining.SCORE]
    assert np.mean(found.argmax(1) == labels[750:]) == pytest.approx(told["figures"]["test"]["accuracy"])
    file = caffemodel.read_index(tmp_path / "out" / joining.WEIGHTS)
    weights, bias = file.read([blob for layer in file.layers for blob in layer.blobs])
    by_hand = values[750:].astype(np.float64) @ weights.reshape(4, 24).T + bias
    assert found == pytest.approx(by_hand, abs=1e-5 * float(np.abs(by_hand).max()))
    assert net.outputs == ({"softmax": "prob", "logistic": "prob", "hinge": "score"}[loss],)


def test_the_penalty_is_the_one_that_the_validation_side_likes(tmp_path: Path) -> None:
    values, labels = clouds(260, 60, 3, apart=0.5)
    folder = made(tmp_path / "set", cut(values, labels, 60, 160))
    said: list[str] = []
    found = train(folder, Wanted("softmax", None, True, tmp_path), said.append)
    tried = {float(one.split()[1].rstrip(":")): float(one.split("accuracy ")[1].split(",")[0]) for one in said
             if "validation accuracy" in one}  # fmt: skip
    assert tried[found.l2] == max(tried.values())
    assert len(tried) >= 3
    for l2, accuracy in tried.items():
        fixed = train(folder, Wanted("softmax", l2, False, tmp_path), quiet)
        assert fixed.figures["validation"].accuracy == pytest.approx(accuracy, abs=0.011)


def test_labels_that_are_shuffled_give_chance_on_the_test_side(tmp_path: Path) -> None:
    values, labels = clouds(1200, 10, 4)
    mixed = np.random.default_rng(3).permutation(labels).tolist()
    found = train(made(tmp_path / "set", cut(values, mixed, 600, 600)), Wanted("softmax", 1.0, False, tmp_path), quiet)
    assert 0.17 < found.figures["test"].accuracy < 0.33


# ---- joined to the net below

SAMPLE = {"net": str(ROOT / "sample" / "random_features.prototxt"), "root": "x", "batch_size": 4}


def below(tmp_path: Path, **more: Any) -> FeatureSet:
    weights = tmp_path / "random.caffemodel"
    if not weights.exists():
        random_features.write(weights)
    return FeatureSet(**{**SAMPLE, "blob": "features", "weights": str(weights), **more})  # type: ignore[arg-type]


def pictures(count: int) -> list[bytes]:
    return [encoded(one, ".png") for one in images(count, (3, 40, 52))]


def features(feature_set: FeatureSet, files: list[bytes]) -> tuple[FeatureNet, Any]:
    net = FeatureNet(feature_set)
    prepare = Preparation(net.preprocess, net.input_size, net.mean)
    rows = [prepare(content) for content in files]
    return net, net.forward(np.stack(rows))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"normalise": "none"},
        {"blob": "conv2", "pool": "mean"},
        {"blob": "conv2", "pool": "max", "normalise": "none"},
        {"blob": "pool1"},
        {"preprocess": Preprocess(preset="unit")},
    ],
    ids=str,
)
def test_a_joined_net_computes_the_scores_of_the_delivered_features(more: dict[str, Any], tmp_path: Path) -> None:
    feature_set = below(tmp_path, **more)
    files, labels = pictures(24), [n % 3 for n in range(24)]
    net, rows = features(feature_set, files)
    folder = made(tmp_path / "set", {"train": (rows, labels)}, net.fingerprint)
    trained = train(folder, Wanted("softmax", 1.0, False, tmp_path), quiet)
    manifest = of_features(folder)
    trunk = joining.trunk_of(feature_set, manifest, folder)
    out = tmp_path / "out"
    out.mkdir()
    joining.write(out, trained, trunk, folder, manifest)
    joined = below(tmp_path, **{
        "net": str(out / joining.NET), "weights": str(out / joining.WEIGHTS), "blob": joining.SCORE,
        "preprocess": feature_set.preprocess, "normalise": "none",
    })  # fmt: skip
    served, found = features(joined, files)
    assert served.lacking == [], "a layer of the joined net has no weights"
    wanted = rows.astype(np.float64) @ trained.head.weights.T.astype(np.float64) + trained.head.bias
    assert np.abs(wanted).max() > 0.01
    assert found == pytest.approx(wanted, abs=1e-5 * max(1.0, float(np.abs(wanted).max())))
    shares = features(joined.model_copy(update={"blob": joining.PROB}), files)[1]
    assert shares.sum(1) == pytest.approx(np.ones(24), abs=1e-5)


def test_a_picture_of_zeros_in_the_blob_stays_zeros_when_its_length_is_part_of_the_net(tmp_path: Path) -> None:
    """Black after the mean: convolutions without bias and ReLU give 0, and 0 / 0 would be no number."""
    feature_set = below(tmp_path, preprocess=Preprocess(preset="none", mean=[0.0]))
    black = encoded(np.zeros((3, 40, 52), np.uint8), ".png")
    files, labels = [*pictures(8), black], [0, 1] * 4 + [1]
    net, rows = features(feature_set, files)
    assert not rows[-1].any(), "the picture of this test gives a feature of zeros"
    folder = made(tmp_path / "set", {"train": (rows, labels)}, net.fingerprint)
    trained = train(folder, Wanted("hinge", 1.0, False, tmp_path), quiet)
    manifest = of_features(folder)
    out = tmp_path / "out"
    out.mkdir()
    joining.write(out, trained, joining.trunk_of(feature_set, manifest, folder), folder, manifest)
    joined = below(tmp_path, **{
        "net": str(out / joining.NET), "weights": str(out / joining.WEIGHTS), "blob": joining.SCORE,
        "preprocess": feature_set.preprocess, "normalise": "none",
    })  # fmt: skip
    assert features(joined, files)[1][-1] == pytest.approx(trained.head.bias, abs=1e-6)


def test_features_of_another_preparation_are_not_joined(tmp_path: Path) -> None:
    feature_set = below(tmp_path)
    net, rows = features(feature_set, pictures(6))
    folder = made(tmp_path / "set", {"train": (rows, [0, 1] * 3)}, net.fingerprint)
    manifest = of_features(folder)
    for other in (
        below(tmp_path, normalise="none"), below(tmp_path, preprocess=Preprocess(preset="unit")),
        below(tmp_path, blob="pool2"), below(tmp_path, input_size=(65, 65)),
    ):  # fmt: skip
        if FeatureNet(other).fingerprint == net.fingerprint:
            continue  # the same numbers under another name
        with pytest.raises(ConfigError, match="are not those of the net") as told:
            joining.trunk_of(other, manifest, folder)
        assert net.fingerprint[:12] in told.value.detail
        assert "--like" in told.value.hint
    nameless = made(tmp_path / "nameless", {"train": (rows, [0, 1] * 3)})
    with pytest.raises(ConfigError, match="are not those of the net"):
        joining.trunk_of(feature_set, of_features(nameless), nameless)


@pytest.mark.parametrize("net", ["model.onnx", "hog"])
def test_a_net_that_is_not_caffes_is_refused_by_name(net: str, tmp_path: Path) -> None:
    values, labels = clouds(40, 4, 2)
    folder = made(tmp_path / "set", {"train": (values, labels)}, "f")
    with pytest.raises(ConfigError, match="a head is not joined to") as told:
        joining.trunk_of(FeatureSet(net=net, blob="x", root="x"), of_features(folder), folder)
    assert "leave --net out" in told.value.hint


def test_the_whole_chain_by_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feature_set = below(tmp_path)
    files, labels = pictures(30), [n % 2 for n in range(30)]
    net, rows = features(feature_set, files)
    folder = made(tmp_path / "set", cut(rows, labels, 20, 24), net.fingerprint)
    given = ["--net", feature_set.net, "--weights", str(feature_set.weights), "--blob", "features"]
    assert main(["train", "head", str(folder), str(tmp_path / "out"), *given, "--l2", "0.1"]) == 0
    said = capsys.readouterr().out
    assert "above the optimum" in said
    assert "joined to the net below it" in said
    assert "test: accuracy" in said
    files_of = [str(tmp_path / "out" / name) for name in (joining.NET, joining.WEIGHTS)]
    assert main(["net", "check", *files_of, "--blob", "score"]) == 0
    assert main(["train", "head", str(folder), str(tmp_path / "out"), *given]) == 2, "nothing is overwritten"
    config = tmp_path / "c.toml"
    config.write_text(
        f'bucket.url = "{tmp_path}/b"\nstate = "{tmp_path}/s"\n[lakes.l]\nurl = "{tmp_path}/l"\n[sets.demo]\n'
        f'net = "{feature_set.net}"\nweights = "{feature_set.weights}"\nblob = "features"\nroot = "f"\n'
    )
    like = ["--config", str(config), "--like", "demo", "--l2", "0.1"]
    assert main(["train", "head", str(folder), str(tmp_path / "liked"), *like]) == 0
    for name in (joining.NET, joining.WEIGHTS):
        assert (tmp_path / "liked" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


# ---- what is refused


def nan(values: Any, labels: list[Any]) -> None:
    values[7, 2] = np.nan


def no_label(values: Any, labels: list[Any]) -> None:
    labels[7] = None


def negative(values: Any, labels: list[Any]) -> None:
    labels[7] = -3


def one_class(values: Any, labels: list[Any]) -> None:
    labels[:] = [1] * len(labels)


def huge(values: Any, labels: list[Any]) -> None:
    labels[7] = 2**31 - 1


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (nan, FormatError, "example '00000007_12_7'.*NaN or infinity"),
        (no_label, FormatError, "example '00000007_12_7'.*it has no label"),
        (negative, ConfigError, "no numbers of classes.*the label -3"),
        (one_class, ConfigError, "one class only.*all its examples have the label 1"),
        (huge, ConfigError, "no numbers of classes.*the label 2147483647"),
    ],
)
def test_what_no_head_is_trained_on_is_named(
    spoil: Callable[[Any, list[Any]], None], kind: type[Exception], says: str, tmp_path: Path
) -> None:
    values, labels = clouds(40, 4, 2)
    spoil(values, labels)
    folder = made(tmp_path / "set", {"train": (values, labels)})
    with pytest.raises(kind) as told:
        train(folder, Wanted("softmax", 0.1, False, tmp_path), quiet)
    assert __import__("re").search(says, f"{told.value} {told.value.detail}"), told.value  # type: ignore[attr-defined]


def test_a_class_with_one_example_and_one_without_are_said(tmp_path: Path) -> None:
    values, labels = clouds(60, 4, 2)
    labels[3] = 4
    said: list[str] = []
    folder = made(tmp_path / "set", {"train": (values, labels)})
    found = train(folder, Wanted("softmax", 0.1, False, tmp_path), said.append)
    assert found.warnings == ("classes 2, 3: no example to train with", "class 4: one example to train with")
    assert f"warning: {found.warnings[1]}" in said
    assert found.head.weights.shape == (5, 4)


def test_a_dataset_of_images_says_where_to_go(tmp_path: Path) -> None:
    folder = made(tmp_path / "set", {"train": (pictures(4), [0, 1, 0, 1])})
    with pytest.raises(ConfigError, match="holds images") as told:
        train(folder, Wanted("softmax", None, False, tmp_path), quiet)
    assert "--features" in told.value.hint
    assert "template finetune" in told.value.hint
    with pytest.raises(ConfigError, match="is no dataset"):
        train(tmp_path / "nowhere", Wanted("softmax", None, False, tmp_path), quiet)


def test_features_of_another_length_than_the_manifest_says_are_refused(tmp_path: Path) -> None:
    values, labels = clouds(40, 4, 2)
    folder = made(tmp_path / "set", {"train": (values, labels)})
    path = folder / "_manifest.json"
    path.write_text(path.read_text().replace('"dim": 4', '"dim": 5'))
    with pytest.raises(FormatError, match="another length") as told:
        train(folder, Wanted("softmax", 0.1, False, tmp_path), quiet)
    assert "a feature has 4 numbers; the manifest says 5" in told.value.detail


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--l2", "0"], "is no penalty"),
        (["--l2", "much"], "is no number"),
        (["--l2", "auto"], "needs a validation side"),
        (["--blob", "fc7"], "options of a net are given, and no net"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, labels = clouds(40, 4, 2)
    folder = made(tmp_path / "set", {"train": (values, labels)})
    assert main(["train", "head", str(folder), str(tmp_path / "out"), *words]) == 2
    assert says in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["set"], "something was left behind"


def test_an_empty_side_is_no_figure_and_no_failure(tmp_path: Path) -> None:
    values, labels = clouds(60, 4, 2)
    sides = {"train": (values, labels), "validation": (values[:0], []), "test": (values[:0], [])}
    found = train(made(tmp_path / "set", sides), Wanted("softmax", None, False, tmp_path), quiet)
    assert list(found.figures) == ["train"]
    assert found.l2 == 0.01
