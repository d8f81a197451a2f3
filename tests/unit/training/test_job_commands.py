"""`hathi train list|show|fetch|stop|log`: what a person sees of trainings in a bucket, and how one is ended."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.contexts import contexts
from pipeline.cli.main import main
from pipeline.errors import ConfigError, PermanentError, Stopped
from pipeline.ledger.layout import JobName
from pipeline.ledger.protocol import Context, beat
from pipeline.ledger.trainings import JobSpec
from pipeline.operations.prune.deletion import perform as forget
from pipeline.operations.prune.trainings import plan_trainings
from pipeline.settings import load
from pipeline.training import jobs
from pipeline.training.turn import take, turn
from tests.simulation.toy_training import MODEL, STATE, ToyTrainer, steps_shown, trained

SPEC = JobSpec(model="toy", solver="", max_iter=24, every=5, seed=1)
NAME = str(SPEC.name())
CONFIG = """
state = "state"
logs.folder = "logs"
bucket.url = "bucket"
[lakes.shop]
url = "lake"
sources = [{path = "refs"}]
[lakes.other]
url = "lake2"
sources = [{path = "refs"}]
[sets.demo]
net = "n"
blob = "b"
root = "features"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "hathi.toml"
    path.write_text(CONFIG)
    (tmp_path / "bucket").mkdir()
    return path


def context_of(config: Path, lake: str = "shop") -> Context:
    where = contexts(load(config, os.environ), ["compute"], lambda: False, "test")
    return next(one for one in where if one.lake_name == lake)


def train(context: Context, steps: int = 10_000, **changes: Any) -> None:
    """One turn of a box; ended after so many steps."""
    asked = iter(range(steps))
    context = replace(context, stopping=lambda: next(asked, None) is None)
    with contextlib.suppress(Stopped):
        turn(context, lambda spec: ToyTrainer(spec, **changes), raises)


def raises(name: JobName, error: Exception) -> None:
    raise error


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hathi(config: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(["train", *words, "--config", str(config)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_an_empty_bucket_has_no_training(hathi: Command) -> None:
    assert hathi("list") == (0, "no training is in the bucket\n", "")
    assert hathi("list", "--json") == (0, "", "")


def test_list_names_each_training_with_what_comes_of_it(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    assert hathi("list")[1].splitlines()[1].split() == [NAME, "waiting", "0", "of", "24"]
    train(context, 12)
    other = SPEC.model_copy(update={"model": "bad"})
    jobs.submit(context, other)
    train(context, diverges=13)
    lines = [line.split() for line in hathi("list")[1].splitlines()]
    assert lines[1][:5] == [str(other.name()), "failed", "13", "of", "24"]
    assert "not finite" in " ".join(lines[1])
    rows = [json.loads(line) for line in hathi("list", "--json")[1].splitlines()]
    assert [(row["job"], row["lake"], row["state"], row["iteration"], row["max_iter"]) for row in rows] == [
        (str(other.name()), "shop", "failed", 13, 24), (NAME, "shop", "failed", 13, 24),
    ]  # fmt: skip


def test_a_training_whose_process_beats_is_running(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    seen: list[str] = []

    def pause() -> None:
        if not seen:
            beat(context)
            seen.append(hathi("list")[1])

    train(context, pause=pause)
    assert seen[0].splitlines()[1].split() == [NAME, "running", "0", "of", "24", "by", context.process.name]
    assert hathi("list")[1].splitlines()[1].split() == [NAME, "finished", "24", "of", "24"]


def test_show_tells_attempts_snapshots_and_the_model(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    train(context, 12)
    train(context)
    for one in plan_trainings(context, context.process.clock.now()):
        forget(context, one)
    code, text, _ = hathi("show", NAME)
    assert code == 0
    lines = text.splitlines()
    assert lines[0] == f"{NAME}: finished; iteration 24 of 24"
    assert lines[1] == f"  attempt 1 by {context.process.name} abandoned: the run was stopped"
    assert lines[2] == f"  attempt 2 by {context.process.name}"
    tree = json.loads(hathi("show", NAME, "--json")[1])
    assert [(one["iteration"], all(file["there"] for file in one["files"])) for one in tree["snapshots"][-3:]] == [
        (15, tree["snapshots"][2]["best"]), (20, True), (24, True),
    ]  # fmt: skip
    assert "its files are pruned" in text
    model = next(file for file in tree["model"] if file["name"] == MODEL)
    assert context.bucket.get(model["key"]).decode() == trained(SPEC).weights
    assert f"model: {model['key']}" in text
    assert (tree["engine"], tree["cpu"]) == ("toy 1", "one")
    assert "  computed by toy 1 on one" in lines


def test_fetch_writes_the_model_the_newest_or_the_best_snapshot_into_a_folder(
    hathi: Command, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    context = context_of(config)
    jobs.submit(context, SPEC)
    code, _, error = hathi("fetch", NAME)
    assert (code, "has no snapshot yet" in error) == (2, True)
    train(context, 12)
    assert hathi("show", NAME)[1].splitlines()[-1] == f"  next: hathi train fetch {NAME}"
    assert f"{NAME} at iteration 10, which is waiting" in hathi("fetch", NAME, "--out", "newest")[1]
    train(context)
    got = json.loads(hathi("fetch", NAME, "--json")[1])
    assert (got["job"], got["iteration"]) == (NAME, 24)
    assert got["files"] == [f"{NAME}-24/{MODEL}", f"{NAME}-24/{STATE}"]
    assert Path(got["files"][0]).read_text() == trained(SPEC).weights
    tree = json.loads(hathi("show", NAME, "--json")[1])
    best = next(one for one in tree["snapshots"] if one["best"])
    assert hathi("fetch", NAME, "--best", "--out", "best")[0] == 0
    found = hashlib.sha256(Path("best", MODEL).read_bytes()).hexdigest()
    assert found == next(file["sha256"] for file in best["files"] if file["name"] == MODEL)
    assert hathi("fetch", NAME)[0] == 0, "the same files again are no fault"
    code, _, error = hathi("fetch", NAME, "--out", "newest")
    assert (code, "is another file" in error) == (2, True)
    assert Path("newest", MODEL).read_text() != trained(SPEC).weights, "it stays as it is"
    assert list(Path().rglob("*.part")) == []
    assert tree["test"]["iteration"] == 24


def test_fetch_leaves_nothing_where_a_file_is_damaged_or_the_folder_cannot_be_written(
    hathi: Command, config: Path, tmp_path: Path
) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    train(context)
    (tmp_path / "file").write_text("")
    code, _, error = hathi("fetch", NAME, "--out", str(tmp_path / "file"))
    assert (code, "cannot be written" in error) == (2, True)
    model = json.loads(hathi("show", NAME, "--json")[1])["model"][0]
    path = config.parent / "bucket" / model["key"]
    path.chmod(0o644)
    path.write_bytes(b"rubbish")
    code, _, error = hathi("fetch", NAME, "--out", str(tmp_path / "out"))
    assert (code, "does not hold the bytes that were written" in error) == (1, True)
    assert list((tmp_path / "out").iterdir()) == []


def test_show_tells_what_computed_a_training_that_failed_and_nothing_where_an_older_box_did(
    hathi: Command, config: Path
) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    train(context, diverges=13)
    assert "  computed by toy 1 on one" in hathi("show", NAME)[1].splitlines()
    key = context.keys.job(SPEC.name()).out
    path = config.parent / "bucket" / key
    older = json.loads(path.read_bytes())
    assert older.pop("cpu") == "one"
    path.write_text(json.dumps(older))
    assert "  computed by toy 1" in hathi("show", NAME)[1].splitlines()
    assert older.pop("engine") == "toy 1"
    path.write_text(json.dumps(older))
    assert "computed by" not in hathi("show", NAME)[1]
    assert json.loads(hathi("show", NAME, "--json")[1])["cpu"] == ""


def test_log_prints_each_row_once_however_often_the_training_was_stopped(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    assert hathi("log", NAME)[1] == f"{NAME} has no metrics yet: they come with its snapshots\n"
    for _ in range(20):
        train(context, 3)
    rows = [json.loads(line) for line in hathi("log", NAME, "--json")[1].splitlines()]
    assert [(row["step"], row["kind"]) for row in rows] == steps_shown(SPEC)
    lines = hathi("log", NAME)[1].splitlines()
    assert len(lines) == len(rows)
    assert lines[1] == f"Iteration 0, train: train/loss = {rows[1]['values']['train/loss']:.6g}"


def test_stop_ends_a_training_for_good_and_the_first_word_counts(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    train(context, 12)
    code, text, _ = hathi("stop", NAME)
    assert (code, getpass.getuser() in text) == (0, True)
    assert list(jobs.hinted(context)) == []
    assert json.loads(hathi("stop", NAME, "--json")[1]) == {"job": NAME, "stopped_by": getpass.getuser()}
    train(context)
    assert hathi("list")[1].splitlines()[1].split() == [NAME, "stopped", "10", "of", "24", "by", getpass.getuser()]


def test_what_is_at_its_end_cannot_be_stopped(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    train(context)
    code, _, error = hathi("stop", NAME)
    assert (code, "is at its end already: it has finished" in error) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [(("show", "nothing"), "no training nothing"), (("show", "toy-0123456789ab"), "no training toy-0123456789ab"),
     (("show",), "takes one training"), (("list", "x"), "takes no name"), (("log", "a", "b"), "takes one training"),
     (("list", "--lake", "none"), "no lake none")],
)  # fmt: skip
def test_what_is_no_training_is_named(words: tuple[str, ...], says: str, hathi: Command) -> None:
    code, _, error = hathi(*words)
    assert (code, says in error) == (2, True)


def test_a_training_of_two_lakes_wants_the_lake(hathi: Command, config: Path) -> None:
    for lake in ("shop", "other"):
        jobs.submit(context_of(config, lake), SPEC)
    code, _, error = hathi("show", NAME)
    assert (code, "is a training of several lakes" in error) == (2, True)
    assert json.loads(hathi("show", NAME, "--lake", "other", "--json")[1])["lake"] == "other"
    assert len(hathi("list")[1].splitlines()) == 3
    assert len(hathi("list", "--lake", "shop")[1].splitlines()) == 2


def test_a_damaged_training_is_told_and_hinders_no_other(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    other = SPEC.model_copy(update={"seed": 2})
    jobs.submit(context, other)
    path = next(path for path in config.parent.rglob("spec") if path.parent.name == NAME)
    path.chmod(0o644)
    path.write_text("{torn")
    rows = {row["job"]: row for row in map(json.loads, hathi("list", "--json")[1].splitlines())}
    assert (rows[NAME]["state"], rows[str(other.name())]["state"]) == ("unreadable", "waiting")
    assert "not JSON" in rows[NAME]["why"]
    train(context)
    assert hathi("list")[1].count("finished") == 1


def test_a_list_asks_for_many_trainings_at_once(hathi: Command, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(config)
    for number in range(20):
        jobs.submit(context, SPEC.model_copy(update={"seed": number}))
    real, together = jobs.look, threading.Barrier(4, timeout=60.0)

    def look(*words: Any, **more: Any) -> Any:
        together.wait()
        return real(*words, **more)

    monkeypatch.setattr(jobs, "look", look)
    code, out, _ = hathi("list", "--json")
    assert (code, len(out.splitlines())) == (0, 20)


def test_a_training_that_waits_after_a_failed_attempt_says_why(hathi: Command, config: Path) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)

    def fails() -> None:
        raise PermanentError("the data are damaged")

    with pytest.raises(PermanentError):
        train(context, pause=fails)
    assert "the data are damaged" in hathi("list")[1]
    assert json.loads(hathi("list", "--json")[1])["state"] == "waiting"


def test_a_training_that_nobody_has_tried_is_shown_and_stopped(hathi: Command, config: Path) -> None:
    jobs.submit(context_of(config), SPEC)
    shown = json.loads(hathi("show", NAME, "--json")[1])
    assert (shown["state"], shown["attempts"], shown["snapshots"], shown["model"]) == ("waiting", [], [], None)
    assert "has no metrics yet" in hathi("log", NAME)[1]
    assert hathi("log", NAME, "--json")[:2] == (0, "")
    assert hathi("stop", NAME)[0] == 0
    assert json.loads(hathi("show", NAME, "--json")[1])["state"] == "stopped"


def end_in_every_way(context: Context) -> list[JobName]:
    """Trainings that finished, failed and were stopped."""
    fails, ends, finishes = (SPEC.model_copy(update={"seed": number}) for number in range(3))
    names = [jobs.submit(context, fails)[0]]
    train(context, diverges=7)
    names += [jobs.submit(context, one)[0] for one in (ends, finishes)]
    jobs.stop(context, names[1], "ann")
    train(context)
    return names


def test_a_training_is_forgotten_once_it_is_over_for_long_and_at_no_instant_it_is_open(config: Path) -> None:
    context = context_of(config)
    names = end_in_every_way(context)
    waiting, _ = jobs.submit(context, SPEC.model_copy(update={"seed": 9}))
    days = 86400.0
    young, old = time.time() + 399 * days, time.time() + 401 * days
    assert not [one for one in plan_trainings(context, young) if "/j/" in one.key and "over for long" in one.why]
    steps = 0
    while planned := [one for one in plan_trainings(context, old) if one.verb == "delete"]:
        forget(context, planned[0])  # and killed
        steps += 1
        for name in names:
            assert take(context, name, lambda spec: pytest.fail("it is trained again")) is None
    left = [entry.key for entry in context.bucket.list("shop/")]
    assert steps > 20
    assert {key.split("/")[2] for key in left if key.startswith("shop/j/")} == {str(waiting)}
    assert not [key for key in left if any(str(name) in key for name in names)]


def test_a_training_that_is_being_forgotten_is_not_begun_anew_from_its_remains(config: Path, hathi: Command) -> None:
    context = context_of(config)
    jobs.submit(context, SPEC)
    train(context)
    planned = list(plan_trainings(context, time.time() + 401 * 86400.0))
    forget(context, planned[0])
    with pytest.raises(ConfigError, match="is being forgotten"):
        jobs.refuse_forgotten(context, SPEC)
    for one in planned:
        forget(context, one)
    jobs.refuse_forgotten(context, SPEC)
    assert jobs.submit(context, SPEC)[1]
    train(context)
    assert hathi("list")[1].split()[-4] == "finished"
