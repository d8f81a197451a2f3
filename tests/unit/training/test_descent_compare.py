"""hathi train linear --compare: all ways side by side, and an answer that its figures carry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import train_compare
from pipeline.cli.main import main
from pipeline.operations.report.linear.page import Comparison, page
from pipeline.training.descent.comparing import (
    ATOMICS,
    AVERAGED,
    LOCK_FREE,
    LOCKED,
    SERIAL,
    STRIPED,
    Compared,
    Course,
    Step,
    Way,
    answer,
    compare,
)  # fmt: skip
from pipeline.training.descent.descent import Pass, Wanted, train
from pipeline.training.descent.losses import Loss
from pipeline.training.descent.optimum import Optimum
from tests.unit.training.made_sets import clouds
from tests.unit.training.sparse_sets import like_rcv1, write

NAMES = [SERIAL, LOCK_FREE, STRIPED, LOCKED, ATOMICS, AVERAGED]


def test_each_way_goes_on_by_its_own_from_the_same_examples_and_orders() -> None:
    """What comes out of the turns is what each way comes to alone: nothing of one run reaches another."""
    examples = like_rcv1(900, 200, 12)
    wanted = Wanted(Loss.HINGE, 1e-3, passes=4, rate=0.5, workers=2, held=0.2, seed=5)
    found = compare(examples, wanted, 2, lambda says: None)
    assert [one.name for one in found.ways] == NAMES
    own = examples.part(0, 720)
    for name, workers in ((SERIAL, 1), (AVERAGED, 2)):
        for course in found.way(name).courses:
            alone = train(own, replace(wanted, held=0.0, seed=course.seed + 5, workers=workers))
            assert course.steps[-1].above == pytest.approx(alone.objective / found.optimum.objective - 1.0, abs=1e-9)
    for one in found.ways:
        assert len(one.courses) == 2
        assert all(len(course.passes) == len(course.steps) == 4 for course in one.courses)
        assert -1e-4 <= one.spread[0] <= one.above <= one.spread[1] < 0.5
        assert one.updates > 0.0
        assert 0.5 < (one.right or 0.0) <= 1.0
        assert [count for count, _ in one.by_workers] == ([1] if one.name == SERIAL else [1, 2])
        assert (one.conflicts is not None) == (one.name not in (SERIAL, AVERAGED))
    assert found.way(SERIAL).times == 1.0


def way(name: str, times: float, above: float, processor: float = 1.9) -> Way:
    passes = tuple(Pass(at, 0.1, 0.3, None, 0.01, 0.01, 1000, 0.0) for at in (1, 2))
    course = Course(0, passes, (Step(0.01, 2 * above), Step(0.02, above)))
    return Way(name, 0.1, times * 1e6, times, processor, 0.01, above, (above, above), 0.9, (course,), ((1, 1e6),))


def compared(free: Way, averaged: Way) -> Compared:
    others = [way(name, 0.9, 0.001) for name in (STRIPED, LOCKED, ATOMICS)]
    best = Optimum(np.zeros((1, 3)), np.zeros(1), 0.4, 0.39, 10)
    wanted = Wanted(Loss.HINGE, 1e-3, passes=2, workers=2)
    return Compared((way(SERIAL, 1.0, 0.001, 1.0), free, *others, averaged), best, wanted, 1000, 1)


@pytest.mark.parametrize(("free", "averaged", "says"), [
    (way(LOCK_FREE, 1.7, 0.001), way(AVERAGED, 1.9, 0.002),
     ["Leaving out the lock helps: 2 workers", "does no harm", "The most updates a second: copies averaged, 1.90"]),
    (way(LOCK_FREE, 0.8, 0.2), way(AVERAGED, 1.0, 0.002),
     ["Leaving out the lock does not help here", "It does harm", "one worker is as fast as any number"]),
    (way(LOCK_FREE, 1.2, 0.001, 1.0), way(AVERAGED, 1.2, 0.002),
     ["The workers had 1.00 of 2 cores", "By these times leaving out the lock helps"]),
])  # fmt: skip
def test_the_answer_follows_from_the_figures(free: Way, averaged: Way, says: list[str]) -> None:
    said = " ".join(answer(compared(free, averaged)))
    assert [one for one in says if one not in said] == []
    assert ("The workers had" in said) == (free.processor == 1.0)


def test_the_page_has_the_table_the_answer_and_the_curves_and_asks_nothing_of_anybody() -> None:
    found = compared(way(LOCK_FREE, 1.7, 0.001), way(AVERAGED, 1.9, 0.002))
    shown = page(Comparison("<b>news</b>", 1.0e9, found, (("machine", "two cores"),)))
    assert "<b>news</b>" not in shown
    assert shown.count('<svg class="plot"') == 3
    for name in NAMES:
        assert f'<th scope="row">{name}</th>' in shown
    for sentence in answer(found):
        assert sentence in shown
    assert "<script" not in shown
    assert "http" not in shown.replace("http-equiv", "")


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_the_command_prints_the_table_and_leaves_the_page(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "sparse":
        name = write(tmp_path / "a.svm", like_rcv1(600, 200, 12)).name
    else:
        values, labels = clouds(300, 8, 3)
        name = "a.npz"
        np.savez(tmp_path / name, X=values, y=np.array(labels))
    assert main(["train", "linear", name, "--compare", "--passes", "3", "--seeds", "2", "--early-stop", "0.2"]) == 0
    said = capsys.readouterr().out
    assert "optimum " in said
    assert "eaving out the lock" in said
    for way_name in NAMES:
        assert any(line.startswith(way_name) for line in said.splitlines())
    out = tmp_path / f"{name}.compare"
    assert (out / train_compare.PAGE).read_text().startswith("<!doctype html>")
    about = json.loads((out / train_compare.ABOUT).read_text())
    assert [row["way"] for row in about["rows"]] == NAMES
    assert about["bound"] <= about["optimum"]


@pytest.mark.parametrize("more", [["--lock", "none"], ["--processes"]])
def test_options_that_a_comparison_goes_through_itself_are_refused(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.svm", like_rcv1(60, 40, 5))
    assert main(["train", "linear", str(path), str(tmp_path / "out"), "--compare", *more]) == 2
    assert f"--compare and {more[0]} exclude each other" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
