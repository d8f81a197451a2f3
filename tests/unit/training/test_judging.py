"""hathi evaluate: figures against other ways to them; a net, and two side by side, by commands; what is refused."""

from __future__ import annotations

import json
import math
import re
import shlex
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError
from pipeline.images import Preparation
from pipeline.nets.features import FeatureNet
from pipeline.records import Failure
from pipeline.settings import FeatureSet
from pipeline.training.dataset import shards
from pipeline.training.dataset.examples import Example
from pipeline.training.judging import figures
from pipeline.training.judging.answers import Answers, Scoring, answer
from pipeline.training.judging.examples import Examples, examples_of
from sample import random_features
from tests.unit.training.databases import encoded
from tests.unit.training.made_sets import clouds, made

ROOT = Path(__file__).parents[3]
NET = ROOT / "sample" / "random_features.prototxt"

# ---- figures


def test_the_exact_p_of_mcnemar_is_the_sum_over_all_ways_that_are_as_uneven() -> None:
    for first, second in product(range(7), range(7)):
        count = first + second
        as_uneven = sum(math.comb(count, k) for k in range(count + 1) if abs(2 * k - count) >= abs(first - second))
        assert figures.mcnemar(first, second) == pytest.approx(as_uneven / 2**count)
    assert figures.mcnemar(20_000, 20_400) == pytest.approx(math.erfc(399 / math.sqrt(2 * 40_400)), rel=1e-3)


def test_95_of_100_intervals_hold_the_true_difference() -> None:
    """Two nets that are right together or alone with known shares, drawn many times: each interval is asked."""
    random = np.random.default_rng(5)
    for only_first, only_second in ((0.1, 0.05), (0.02, 0.02), (0.3, 0.1)):
        draws = random.multinomial(120, [only_first, only_second, 1 - only_first - only_second], 2000)
        held = [low <= only_first - only_second <= high
                for low, high in (figures.paired(int(one), int(other), 120) for one, other, _ in draws)]  # fmt: skip
        assert 0.93 <= np.mean(held) <= 0.99
        accuracies = random.binomial(120, only_first, 2000)
        within = [low <= only_first <= high for low, high in (figures.wilson(int(one), 120) for one in accuracies)]
        assert 0.92 <= np.mean(within) <= 0.99


class Told(Scoring):
    """A net whose scores somebody wrote down."""

    batch = 3

    def __init__(self, rows: list[Any]) -> None:
        self._rows = iter(rows)

    def __call__(self, examples: Any) -> Any:
        rows = [next(self._rows) for _ in examples]
        return [one if isinstance(one, Failure) else np.array(one, np.float32) for one in rows]


class Listed(Examples):
    """Examples that somebody wrote down."""

    def __init__(self, labels: list[int]) -> None:
        super().__init__(Path("x"), None, False, {})
        object.__setattr__(self, "labels", labels)

    def __iter__(self) -> Any:
        labels = vars(self)["labels"]
        return iter([Example(b"%d" % at, caffe_pb2.Datum(label=label)) for at, label in enumerate(labels)])


def answered(labels: list[int], rows: list[Any]) -> Answers:
    return answer(Listed(labels), Told(rows))


def test_ties_count_as_caffes_accuracy_counts_them() -> None:
    """accuracy_layer.cpp: every class with at least the label's score is before it, the label itself is not."""
    found = answered([0, 0, 1], [[1, 1, 0], [2, 1, 0], [1, 1, 1]])
    assert found.ranks.tolist() == [1, 0, 2]
    assert found.taken.tolist() == [1, 0, 0]
    assert figures.figures(found, {}).accuracy == pytest.approx(1 / 3)


def test_shares_and_scores_of_the_same_net_cost_the_same() -> None:
    random = np.random.default_rng(2)
    scores = random.standard_normal((40, 6)) * 4
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    labels = random.integers(0, 6, 40).tolist()
    by_scores, by_shares = (figures.figures(answered(labels, list(rows)), {}) for rows in (scores, shares))
    assert by_scores.loss == pytest.approx(by_shares.loss, rel=1e-5)
    assert by_scores.loss == pytest.approx(-np.log(shares[range(40), labels]).mean(), rel=1e-5)
    assert by_scores.top5 == pytest.approx(np.mean([np.sum(row >= row[label]) <= 5
                                                    for row, label in zip(scores, labels, strict=True)]))  # fmt: skip


def test_classes_and_confusion_add_up_and_an_example_without_an_answer_has_no_part() -> None:
    rows = [[3, 0, 0], [0, 3, 0], [0, 3, 0], [0, 0, 3], Failure.of("decode"), [3, 0, 0]]
    found = answered([0, 0, 1, 2, 2, 2], rows)
    told = figures.figures(found, {0: "shoe"})
    assert told.confusion == ((0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 0, 1), (2, 2, 1))
    assert sum(number for *_, number in told.confusion) == told.examples == 5
    assert [(one.name, one.examples, one.recall, one.precision) for one in told.classes] == [
        ("shoe", 2, 0.5, 0.5), ("1", 1, 1.0, 0.5), ("2", 2, 0.5, 1.0)
    ]  # fmt: skip
    assert [(one.key, one.reason) for one in found.failed] == [("4", "decode")]
    other = answered([0, 0, 1, 2, 2, 2], [[3, 0, 0]] * 6)
    apart = figures.difference(found, other)
    assert (apart.examples, apart.only_first, apart.only_second) == (5, 2, 1)
    assert [(one.key, one.first, one.second) for one in apart.differing] == [("1", 1, 0), ("2", 1, 0), ("3", 2, 0)]
    assert apart.difference == pytest.approx(0.2)


# ---- by commands


def tinted(count: int, seed: int) -> tuple[list[bytes], list[int]]:
    """Pictures of noise, in which a class has more of one colour."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count).tolist()
    files = []
    for label in labels:
        picture = random.integers(0, 200, (3, 48, 40)).astype(np.int16)
        picture[label] += random.integers(0, 50)
        files.append(encoded(picture.astype(np.uint8), ".png"))
    return files, labels


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with sides, the features of the sample net with the same sides, two heads joined to it."""
    folder = tmp_path_factory.mktemp("judged")
    random_features.write(folder / "random.caffemodel")
    chosen = FeatureSet(net=str(NET), weights=str(folder / "random.caffemodel"), blob="features", root="x")
    net = FeatureNet(chosen)
    prepare = Preparation(net.preprocess, net.input_size, net.mean)
    sides = {"train": tinted(90, 1), "test": tinted(45, 2)}
    made(folder / "images", dict(sides))
    rows = {side: (net.forward(np.stack([prepare(one) for one in files])), labels)  # type: ignore[arg-type]
            for side, (files, labels) in sides.items()}  # fmt: skip
    made(folder / "features", dict(rows), net.fingerprint)
    given = ["--net", str(NET), "--weights", str(folder / "random.caffemodel"), "--blob", "features"]
    for name, l2 in (("good", "0.1"), ("poor", "300")):
        words = ["train", "head", str(folder / "features"), str(folder / name), "--l2", l2, *given]
        assert main(words) == 0
    return folder


def files_of(site: Path, name: str) -> list[str]:
    return [str(site / name / "deploy.prototxt"), str(site / name / "weights.caffemodel")]


def judge(site: Path, name: str, *more: str, data: str = "images") -> list[str]:
    net, weights = files_of(site, name)
    return ["evaluate", "--net", net, "--weights", weights, "--dataset", str(site / data), *more]


def test_the_joined_net_on_images_is_as_good_as_the_head_was_on_features(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = json.loads((site / "good" / "head.json").read_text())
    assert main(judge(site, "good", "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accuracy"] == pytest.approx(head["figures"]["test"]["accuracy"])
    assert told["loss"] == pytest.approx(head["figures"]["test"]["loss"], abs=1e-4)
    assert (told["examples"], told["side"], told["top5"]) == (45, "test", 1.0)
    assert told["dataset"] == shards.digest_of(site / "images" / "_manifest.json")
    assert told["accuracy"] > 0.6, "the head learnt nothing: this test compares chance with chance"
    assert main(judge(site, "good", "--json", "--blob", "score")) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(told["loss"], abs=1e-5)
    assert main(judge(site, "good", "--json", "--side", "train")) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 90


def test_two_nets_side_by_side(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all.json"
    assert main(judge(site, "good", "--against", *files_of(site, "poor"), "--list", "1", "--out", str(out))) == 0
    said = capsys.readouterr().out
    told = json.loads(out.read_text())
    alone = {}
    for name in ("good", "poor"):
        assert main(judge(site, name, "--json")) == 0
        alone[name] = json.loads(capsys.readouterr().out)
    assert told["accuracy"] == alone["good"]["accuracy"]
    assert told["against"]["accuracy"] == alone["poor"]["accuracy"]
    apart = told["difference"]
    assert apart["difference"] == pytest.approx(told["accuracy"] - told["against"]["accuracy"])
    assert apart["only_first"] + apart["only_second"] == len(apart["differing"]) > 1, "the two heads do not differ"
    assert f"{len(apart['differing']) - 1} more; --out FILE names all" in said
    assert f"McNemar's exact p {apart['p']:.3g}" in said
    assert f"for hathi promote: --figures accuracy={told['accuracy']:.6g}," in said
    assert "class 'class 0'" in said


def test_pixels_of_a_dataset_are_judged_as_the_file_with_these_pixels(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `dataset import` brings in has no sides, and pixels in place of files."""
    files, labels = tinted(12, 7)
    for at, content in enumerate(files):
        (tmp_path / f"{at}.png").write_bytes(content)
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{at}.png {label}\n" for at, label in enumerate(labels)))
    assert main(["dataset", "import", str(tmp_path / "list.txt"), str(tmp_path / "pixels")]) == 0
    made(tmp_path / "files", {"test": (files, labels)})
    found = []
    for name in ("pixels", "files"):
        capsys.readouterr()
        net, weights = files_of(site, "good")
        words = ["evaluate", "--net", net, "--weights", weights, "--dataset", str(tmp_path / name), "--json"]
        assert main(words) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], abs=1e-6)
    assert found[0]["confusion"] == found[1]["confusion"]


def test_a_head_alone_is_judged_on_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, labels = clouds(600, 12, 3, apart=2.0)
    folder = made(tmp_path / "set", {"train": (values[:400], labels[:400]), "test": (values[400:], labels[400:])})
    assert main(["train", "head", str(folder), str(tmp_path / "head"), "--l2", "0.1"]) == 0
    head = json.loads((tmp_path / "head" / "head.json").read_text())
    capsys.readouterr()
    net, weights = files_of(tmp_path, "head")
    assert main(["evaluate", "--net", net, "--weights", weights, "--dataset", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["accuracy"] == pytest.approx(head["figures"]["test"]["accuracy"])
    short = made(tmp_path / "short", {"test": (values[:5, :7].copy(), labels[:5])})
    assert main(["evaluate", "--net", net, "--weights", weights, "--dataset", str(short)]) == 2
    assert "the dataset's have 7 numbers, the net takes 12" in capsys.readouterr().err


def test_a_damaged_image_is_named_and_no_figure_counts_it(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, labels = tinted(9, 3)
    files[4] = files[4][:30]
    made(tmp_path / "set", {"test": (files, labels)})
    net, weights = files_of(site, "good")
    words = ["evaluate", "--net", net, "--weights", weights, "--dataset", str(tmp_path / "set")]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "no answer: 00000004_12_4: " in said
    assert "1 example without an answer" in said
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["examples"] == 8


@pytest.mark.parametrize(
    ("sides", "more", "says"),
    [
        ({"train": 3}, [], "has no side 'test'"),
        ({"train": 3, "test": 0}, [], "is empty"),
        ({"test": 3}, ["--side", "tests"], "its sides are: test"),
    ],
)
def test_a_side_that_cannot_be_judged_on_is_refused(
    sides: dict[str, int], more: list[str], says: str, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "set", {side: tinted(count, 1) for side, count in sides.items()})
    net, weights = files_of(site, "good")
    assert main(["evaluate", "--net", net, "--weights", weights, "--dataset", str(tmp_path / "set"), *more]) == 2
    assert says in capsys.readouterr().err


def test_a_label_that_the_net_has_no_class_for_is_named(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, weights = files_of(site, "good")
    for label, says in ((3, "its label is 3; the blob has 3 values"), (None, "its label is missing")):
        folder = made(tmp_path / f"set{label}", {"test": (tinted(2, 1)[0], [0, label])})
        assert main(["evaluate", "--net", net, "--weights", weights, "--dataset", str(folder)]) == 2
        assert says in capsys.readouterr().err


def test_a_net_of_the_wrong_kind_of_dataset_is_refused(site: Path, tmp_path: Path) -> None:
    assert main(judge(site, "good", data="features")) == 2
    with pytest.raises(ConfigError, match="is no dataset"):
        list(examples_of(tmp_path, None))
    with pytest.raises(ConfigError, match="has no sides"):
        examples_of(tmp_path, "test")


def test_the_page_of_heads_says_what_people_type(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lmdb")
    for name in ("images", "features", "poor", "random.caffemodel"):
        (tmp_path / name).symlink_to(site / name)
    (tmp_path / NET.name).symlink_to(NET)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "heads.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 5
    for line in lines:
        assert line.startswith("hathi ")
        assert main(shlex.split(line)[1:]) == 0, f"{line}: {capsys.readouterr().err}"
    written = set(json.loads((tmp_path / "good" / "head.json").read_text()))
    assert written >= {"loss", "l2", "objective", "bound", "steps", "figures", "classes", "dataset", "fingerprints"}
