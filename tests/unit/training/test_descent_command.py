"""hathi train linear, as it is typed: what it prints and leaves, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet as pq

from pipeline.cli import train_linear
from pipeline.cli.main import main
from pipeline.cli.wiring import whole_commands
from pipeline.errors import SolverError
from pipeline.nets import load
from pipeline.training.descent import data, saving
from pipeline.training.descent.memory import Own
from pipeline.training.linear import joining
from pipeline.training.packages import demand
from tests.unit.training.made_sets import clouds, made
from tests.unit.training.sparse_sets import like_rcv1, write
from tests.unit.training.test_head import below, features, pictures

Printed = pytest.CaptureFixture[str]
SAID = ("Leaving out the lock", "By these times", "The workers had", "On this set", "The most updates")
"""Sentences of an answer that depend on the machine."""


def test_the_weights_of_a_sparse_set_stand_in_two_files_that_agree(tmp_path: Path, capsys: Printed) -> None:
    examples = like_rcv1(900, 300, 12)
    path = write(tmp_path / "a.svm", examples)
    path.write_text(path.read_text() + "1 4:nan\n")
    out = tmp_path / "out"
    assert main(["train", "linear", str(path), str(out), "--passes", "5", "--early-stop", "0.2", "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert f"warning: {path}, line 901: a value is NaN" in said
    assert "900 sparse examples of 301 coordinates, 2 classes; 1 left out" in said
    assert "pass 5 of 5: loss " in said
    assert " validation " in said
    assert "M updates/s" in said
    assert "2 threads; a copy each, averaged four times a pass" in said
    held = np.load(out / saving.NPZ)
    weights, bias = held["weights"][0], held["bias"][0]
    table = pq.read_table(out / saving.TABLE).to_pylist()
    assert {row["class"] for row in table} == {1}
    assert [row["weight"] for row in table if row["index"] is None] == [bias]
    assert {row["index"]: row["weight"] for row in table if row["index"] is not None} == {
        int(at): weights[at] for at in np.flatnonzero(weights)
    }
    rows = examples.rows
    of = np.repeat(np.arange(900), np.diff(rows.start))
    scores = np.bincount(of, weights[rows.columns + 1] * rows.value, minlength=900) + bias
    right = np.mean((scores > 0) == (np.diff(rows.label_start) > 0))
    about = json.loads((out / saving.ABOUT).read_text())
    share = 0.8 * about["accuracy"] + 0.2 * about["held_out_accuracy"]
    assert right == pytest.approx(share, abs=1e-6)
    assert (about["examples"], about["left_out"], about["classes"]) == (900, 1, [-1, 1])
    assert not (out / joining.NET).exists()
    assert main(["train", "linear", str(path), str(out)]) == 2, "nothing is overwritten"


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["hinge", "logistic", "squared-hinge"])
def test_dense_examples_leave_a_net_whose_scores_are_those_of_the_weights(
    loss: str, classes: int, tmp_path: Path, capsys: Printed
) -> None:
    values, labels = clouds(300, 8, classes, apart=2.0)
    np.savez(tmp_path / "a.npz", features=values, labels=np.array(labels) + 5)
    out = tmp_path / "out"
    assert main(["train", "linear", str(tmp_path / "a.npz"), str(out), "--loss", loss, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["classes"] == list(range(5, 5 + classes))
    assert told["accuracy"] > 0.8
    net = load(out / joining.NET, out / joining.WEIGHTS)
    found = net.forward({"features": values.astype(np.float32)}, [joining.SCORE])[joining.SCORE]
    held = np.load(out / saving.NPZ)
    scores = values @ held["weights"].T.astype(np.float64) + held["bias"]
    wanted = np.concatenate([-scores, scores], 1) if classes == 2 else scores
    assert found == pytest.approx(wanted, abs=1e-4)
    assert np.mean(found.argmax(1) == labels) == pytest.approx(told["accuracy"], abs=1e-6)


def test_a_model_of_delivered_features_is_joined_to_the_net_that_made_them(tmp_path: Path) -> None:
    feature_set = below(tmp_path)
    files, labels = pictures(24), [n % 3 for n in range(24)]
    net, rows = features(feature_set, files)
    folder, out = made(tmp_path / "set", {"train": (rows, labels)}, net.fingerprint), tmp_path / "out"
    given = ["--net", feature_set.net, "--weights", str(feature_set.weights), "--blob", "features"]
    assert main(["train", "linear", str(folder), str(out), *given, "--l2", "0.1"]) == 0
    joined = below(tmp_path, **{
        "net": str(out / joining.NET), "weights": str(out / joining.WEIGHTS), "blob": joining.SCORE,
        "preprocess": feature_set.preprocess, "normalise": "none",
    })  # fmt: skip
    held = np.load(out / saving.NPZ)
    wanted = rows.astype(np.float64) @ held["weights"].T.astype(np.float64) + held["bias"]
    assert features(joined, files)[1] == pytest.approx(wanted, abs=1e-5 * max(1.0, float(np.abs(wanted).max())))
    assert json.loads((out / saving.ABOUT).read_text())["fingerprints"] == {net.fingerprint: 24}


@pytest.mark.parametrize("more", [
    ["--lock", "none"], ["--lock", "stripe"], ["--lock", "global"], ["--lock", "atomic"], ["--rows"], ["--no-bias"],
    ["--processes"], ["--processes", "--lock", "none"],
], ids=" ".join)  # fmt: skip
def test_each_way_of_working_comes_to_about_the_same_objective(
    more: list[str], tmp_path: Path, capsys: Printed
) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(1500, 300, 15))
    found = {}
    for name, options in (("alone", more[:0] + [one for one in more if one == "--no-bias"]), ("so", more)):
        words = ["train", "linear", str(path), str(tmp_path / name), "--workers", "1" if name == "alone" else "2"]
        assert main([*words, *options, "--json"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert found["so"]["objective"] == pytest.approx(found["alone"]["objective"], rel=0.03)
    shared = "--lock" in more
    assert (found["so"]["last_pass"]["conflicts"] is not None) == shared
    assert found["so"]["wanted"]["bias"] != ("--no-bias" in more)


@pytest.mark.parametrize(("more", "says"), [
    (["--loss", "softmax"], "--loss softmax is none of a linear model's"),
    (["--l2", "0"], "--l2 0 is not allowed"), (["--l2", "auto"], "--l2 nan is not allowed"),
    (["--rate", "-1"], "--rate -1 is not allowed"), (["--decay", "1.5"], "--decay 1.5 is not allowed"),
    (["--early-stop", "1"], "--early-stop 1 is not allowed"), (["--early-stop", "nan"], "--early-stop nan"),
    (["--net", "x.prototxt", "--weights", "x.caffemodel", "--blob", "x"], "the examples are not its features"),
])  # fmt: skip
def test_options_that_say_nothing_sensible_are_refused_by_name(
    more: list[str], says: str, tmp_path: Path, capsys: Printed
) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(60, 40, 5))
    assert main(["train", "linear", str(path), str(tmp_path / "out"), *more]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [
    "--gpu 0", "--exact", "--until 3", "--threads 3", "--iterations 4", "--snapshot a", "--job", "--precision bf16",
    "--on here --test a", "--compare --test a", "--dataset a", "--patience 3",
    "--local-steps 3", "--shards 4", "--executors 2", "--spark-conf a=b",
    "--image a", "--dry-run", "--seeds 5", "--on here --spark-conf a=b", "--on here --image a", "--compare --blob a",
])  # fmt: skip
def test_an_option_that_nobody_would_look_at_is_refused_by_name(more: str, tmp_path: Path, capsys: Printed) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(60, 30, 4))
    assert main(["train", "linear", str(path), str(tmp_path / "out"), *more.split()]) == 2
    options = [one for one in more.split() if one.startswith("--") and one not in ("--on", "--compare")]
    assert f"hathi train linear takes no {options[0]} here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_long_reading_says_every_five_seconds_how_far_it_is(tmp_path: Path) -> None:
    said: list[str] = []
    seconds = iter([0.0, 3.0, 5.0, 9.0, 10.5])
    told = train_linear.reading_of(tmp_path / "a.svm", said.append, lambda: next(seconds))
    for count in (10, 2000, 30, 4000):
        told(count)
    assert said == [f"reading {tmp_path / 'a.svm'}: 2,010 examples", f"reading {tmp_path / 'a.svm'}: 6,040 examples"]
    heard: list[int] = []
    (tmp_path / "two").mkdir()
    for name in ("a.svm", "b.svm"):
        write(tmp_path / "two" / name, like_rcv1(300, 60, 6))
    np.savez(tmp_path / "a.npz", features=np.eye(4), labels=[0, 1, 0, 1])
    for source in (tmp_path / "two", tmp_path / "a.npz"):
        with data.opened(data.Source(source, tmp_path, told=heard.append), Own()):
            pass
    assert heard == [300, 300, 4]


def test_options_of_other_data_are_refused(tmp_path: Path, capsys: Printed) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(60, 30, 4))
    assert main(["train", "linear", str(path), str(tmp_path / "out"), "--labels", "a.npy"]) == 2
    assert "--labels is of a .npy" in capsys.readouterr().err
    np.savez(tmp_path / "a.npz", features=np.eye(4), labels=[0, 1, 0, 1])
    assert main(["train", "linear", str(tmp_path / "a.npz"), str(tmp_path / "out"), "--dim", "4"]) == 2
    assert "--dim is of sparse examples" in capsys.readouterr().err
    assert main(["train", "head", str(path), str(tmp_path / "out"), "--passes", "4"]) == 2
    assert "hathi train head takes no --passes" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--on", "here"], ["--compare", "--seeds", "1"]])
def test_estop_ends_a_training_after_a_pass_and_refuses_the_next_one(
    more: list[str], tmp_path: Path, capsys: Printed
) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(120, 30, 4))
    config = tmp_path / "hathi.toml"
    config.write_text('state = "state"\n[bucket]\nurl = "bucket"\n')
    (tmp_path / "state").mkdir()
    command = ["train", "linear", str(path), str(tmp_path / "out"), "--config", str(config), *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_commands, "refuse_estop", lambda state: (state / "ESTOP").touch())
        assert main(command) == 4, "it appeared meanwhile"
    assert "ESTOP ended the command" in capsys.readouterr().err
    assert main(command) == 4
    assert "ESTOP engaged: nothing was started" in capsys.readouterr().err
    (tmp_path / "state" / "ESTOP").unlink()
    assert main([*command, "--passes", "1"]) == 0


def test_after_a_term_nothing_is_left_and_after_a_kill_the_next_start_clears(tmp_path: Path) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(300, 60, 6))
    before = {path, tmp_path / "said"}
    command = ["train", "linear", str(path), str(tmp_path / "out"), "--on", "here", "--rate", "1"]
    for number in (signal.SIGKILL, signal.SIGTERM):
        with (tmp_path / "said").open("w+") as said:
            child = subprocess.Popen([sys.executable, "-m", "pipeline.cli.main", *command, "--passes", "1000000"],
                                     stdout=said, stderr=said)  # fmt: skip
            while "pass 1 of" not in (tmp_path / "said").read_text():
                assert child.poll() is None
                time.sleep(0.02)
            child.send_signal(number)
            code = child.wait()
        left = set(tmp_path.iterdir()) - before
        if number == signal.SIGKILL:
            assert len(left) == 2, "the folder to be, and shards"
        else:
            assert code == 143
            assert "SIGTERM ended the command; nothing of it is left" in (tmp_path / "said").read_text()
            assert left == set()


@pytest.mark.parametrize(("rate", "worse"), [("1e20", True), ("1", False)])
def test_a_model_that_is_worse_than_none_is_told(rate: str, worse: bool, tmp_path: Path, capsys: Printed) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(300, 60, 6))
    assert main(["train", "linear", str(path), str(tmp_path / "out"), "--rate", rate, "--passes", "2"]) == 0
    assert ("worse than none | the rate is too high" in capsys.readouterr().out) == worse


def test_the_command_without_data_says_how_it_is_typed(capsys: Printed) -> None:
    assert main(["train", "linear"]) == 2
    assert "hathi train linear DATA [OUT]" in capsys.readouterr().err


def test_where_numba_is_missing_the_error_names_what_installs_it() -> None:
    with pytest.raises(SolverError, match="hathi train linear needs the package") as told:
        demand("numba_that_is_not_there", "hathi train linear", "linear")
    assert told.value.hint.endswith(("scripts/linear.sh", "numba'", "numba>=0.61'"))


def test_the_page_shows_what_the_commands_print(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands on a smaller set of the same name: the same lines, with other numbers."""
    import gzip
    import re

    page = (Path(__file__).parents[3] / "docs" / "linear.md").read_text()
    block = "".join(one.partition("```")[0] for one in page.split("```console\n")[1:])
    packed = gzip.compress(write(tmp_path / "news.svm", like_rcv1(900, 300, 12)).read_bytes())
    (tmp_path / "news.svm.gz").write_bytes(packed)
    write(tmp_path / "news.t.svm", like_rcv1(90, 300, 12, seed=8))
    monkeypatch.chdir(tmp_path)

    def form(text: str) -> list[str]:
        lines = [re.sub(r"\d[\d,.]*(?:e-\d+)?", "N", line) for line in text.splitlines() if not line.startswith(SAID)]
        lines = [re.sub("N(?: %| times)?|does no harm|does harm|\u2013| +", " ", line).strip() for line in lines]
        return [line for line in lines if not line.startswith("pass ")] + sorted(
            {one for one in lines if "pass N of" in one}
        )

    for part in block.split("$ hathi ")[1:]:
        command, _, printed = part.partition("\n")
        assert main(command.split()) == 0
        said, shown = form(capsys.readouterr().out), form(printed)
        assert [one.partition(", those")[0] for one in said] == [one.partition(", those")[0] for one in shown]
