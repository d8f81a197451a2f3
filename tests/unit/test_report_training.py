"""The page of a training as a drawing: axes, lines, marks, matrices of any size, hostile texts, bounded size."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from pipeline.operations.report import axes
from pipeline.operations.report.axes import Axis
from pipeline.operations.report.chart import BOTTOM, LEFT, RIGHT, TOP, Line, Mark, Scale, curves, thinned
from pipeline.operations.report.frame import BYTES
from pipeline.operations.report.training import charts
from pipeline.operations.report.training.facts import Attempt, Row, Snapshot, Training
from pipeline.operations.report.training.page import page
from pipeline.training.predictions.confusion import judgement, matrix
from pipeline.training.predictions.file import About, Predictions
from pipeline.training.predictions.judgement import Judgement, Mistake
from tests.unit.test_report import HOSTILE


def png(side: int) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


@pytest.mark.parametrize(
    ("values", "log", "low", "high"),
    [
        ([0.1, 2.3], False, 0.0, 2.5),
        ([0.81, 0.86], False, 0.81, 0.86),
        ([5.0], False, 2.0, 8.0),
        ([0.0], False, -0.6, 0.6),
        ([3e-7, 0.02], True, 2e-7, 0.02),
        ([7.0], True, 5.0, 10.0),
        ([10.0], True, 10.0, 100.0),
        ([], True, 0.1, 1.0),
        ([-1.0, math.nan, math.inf], True, 0.1, 1.0),
    ],
)
def test_an_axis_ends_at_round_numbers_around_its_values(
    values: list[float], log: bool, low: float, high: float
) -> None:
    found = axes.around(values, log)
    assert (found.low, found.high) == pytest.approx((low, high))
    ticks = found.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(found.low - 1e-9 <= tick <= found.high * (1 + 1e-9) for tick in ticks)
    assert len({axes.written(tick) for tick in ticks}) == len(ticks), "no two ticks read alike"


@pytest.mark.parametrize("seed", range(40))
def test_ticks_are_few_and_lie_within_whatever_the_values_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=5) * 10.0 ** rng.integers(-12, 12)).tolist()
    for log, zero in ((False, False), (False, True), (True, False)):
        found = axes.around(values, log, zero)
        assert found.low < found.high
        assert 2 <= len(found.ticks()) <= 12
        for value in values:
            if value > 0 or not log:
                assert -1e-9 <= found.part(value) <= 1 + 1e-9


def test_numbers_beside_an_axis_are_as_people_read_them() -> None:
    shown = [axes.written(one) for one in (0, 0.002, 0.1 + 0.2, 15, 20_000, 450_000, 2_500_000, 1e-6, 3e12)]
    assert shown == ["0", "0.002", "0.3", "15", "20,000", "450,000", "2.5\u00a0M", "1e-6", "3e12"]


def places(svg: str, look: str) -> list[tuple[float, float]]:
    (path,) = re.findall(rf'<path class="line {look}" d="M([^"]+)"', svg)
    return [(float(x), float(y)) for x, y in (one.split() for one in path.split("L"))]


def test_a_line_goes_through_its_values_and_leaves_out_what_is_not_finite() -> None:
    points = [(0.0, 1.0), (50.0, math.nan), (50.0, 0.5), (100.0, 0.0), (100.0, math.inf)]
    svg = curves("a", [Line("a", points)], Scale("iteration", "loss", 100))
    assert places(svg, "l0") == [(LEFT, TOP), ((LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2), (RIGHT, BOTTOM)]
    assert ">iteration</text>" in svg
    assert ">loss</text>" in svg
    assert "iteration 100: a 0</title>" in svg, "each place says its value in words"


def test_a_logarithmic_axis_has_equal_steps_and_no_place_for_zero() -> None:
    points = [(0.0, 0.001), (1.0, 0.0), (2.0, 1.0), (4.0, 1000.0)]
    found = places(curves("a", [Line("a", points)], Scale("x", "y", 4, log=True)), "l0")
    assert [round(y, 1) for _, y in found] == [BOTTOM, (TOP + BOTTOM) / 2, TOP]


def test_a_long_line_keeps_its_extremes_and_the_page_its_size() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=200_000)
    values[123_457], values[77_001] = 50, -50
    points = list(enumerate(values.tolist()))
    kept = thinned([(float(x), y) for x, y in points])
    assert len(kept) < 500
    assert {(123_457.0, 50.0), (77_001.0, -50.0), kept[0], kept[-1]} <= set(kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)
    assert len(curves("a", [Line("a", kept)], Scale("x", "y", 200_000))) < 30_000


def test_marks_stand_at_their_iterations() -> None:
    marks = [Mark(50, "snapshot", "s"), Mark(100, "best", "b"), Mark(25, "attempt", "t")]
    svg = curves("a", [Line("a", [(0, 1), (100, 2)])], Scale("x", "y", 100), marks)
    assert f'class="snapshot" d="M{(LEFT + RIGHT) / 2:.1f} ' in svg
    assert f'class="best" d="M{RIGHT:.1f} ' in svg
    assert f'class="attempt" d="M{LEFT + (RIGHT - LEFT) / 4:.1f} {TOP}V{BOTTOM}"' in svg


def test_the_part_of_an_axis_is_never_outside() -> None:
    assert [Axis(1, 3).part(value) for value in (0, 1, 2, 3, 9)] == [0, 0, 0.5, 1, 1]
    assert Axis(1, 100, True).part(0) == 0


# --- what the rows say ---


def rows_of(steps: int = 12, layers: int = 3) -> list[Row]:
    rows: list[Row] = []
    for step in range(0, 10 * steps, 10):
        values: dict[str, object] = {"train/loss": 2 / (1 + step), "train/smoothed": 2.1 / (1 + step), "lr": 0.1}
        values |= {f"grad_norm/layer{at}": 10.0 ** (at - 3) for at in range(layers)}
        values |= {"examples_per_s": 100.0 + step, "waited_for_data": 0.25} if step else {}
        rows.append({"step": step, "time": 1e9 + step, "kind": "train", "values": values})
        if step % 40 == 0:
            test = {"test/loss": 2.2 / (1 + step), "test/accuracy": step / 200, "test1/top5": 0.5, "test/prob/0": 1.0}
            rows.append({"step": step, "time": 1e9 + step, "kind": "test", "values": test})
    return rows


def test_values_that_belong_together_share_a_chart() -> None:
    found = {one.heading: [line.name for line in one.lines] for one in charts.charts(rows_of(), 120, {})}
    assert found == {
        "Loss": ["train, smoothed", "test: loss", "train: loss"],
        "Accuracy": ["test: accuracy", "test net 1: top5"],
        "Learning rate": ["rate"],
        "Speed": ["images a second"],
        "Waiting for data": ["waiting"],
        "Gradients": ["layer0", "layer1", "layer2"],
    }


def test_what_an_output_is_follows_from_its_layer_before_its_name() -> None:
    rows = [{"step": 0, "kind": "test", "values": {"test/entropy": 1.0, "test/accuracy_of_loss": 2.0}}]
    found = {one.heading: [line.name for line in one.lines]
             for one in charts.charts(rows, 1, {"entropy": "loss", "accuracy_of_loss": "accuracy"})}  # fmt: skip
    assert found == {"Loss": ["test: entropy"], "Accuracy": ["test: accuracy_of_loss"]}
    other = [one.heading for one in charts.charts([{"step": 0, "values": {"test/entropy": 1.0}}], 1, {})]
    assert other == ["Other outputs"]


def test_values_of_many_sizes_get_a_logarithmic_axis_and_waiting_is_weighed_by_time() -> None:
    (loss,) = [one for one in charts.charts(rows_of(30), 300, {}) if one.heading == "Loss"]
    assert (loss.scale.log, loss.scale.y) == (True, "loss, log scale")
    rows = [{"step": at, "values": {"examples_per_s": speed, "waited_for_data": part}}
            for at, (speed, part) in enumerate([(100.0, 0.0), (25.0, 0.5)])]  # fmt: skip
    assert charts.waiting(rows) == pytest.approx(0.4), "four fifths of the time went on the slow one"
    assert charts.waiting([]) is None


def test_more_layers_than_lines_are_shown_from_the_first_to_the_last_and_a_table_has_all() -> None:
    rows = rows_of(3, layers=57)
    (chart,) = [one for one in charts.charts(rows, 30, {}) if one.heading == "Gradients"]
    names = [one.name for one in chart.lines]
    assert (len(names), names[0], names[-1]) == (8, "layer0", "layer56")
    assert "8 of 57 layers" in chart.below
    shown = page(replace(report(), rows=tuple(rows)))
    assert all(f"<bdi>layer{at}</bdi>" in shown for at in range(57))


# --- the confusion matrix ---


def predictions(classes: int, examples: int, seed: int = 1, kind: str = "logit") -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, examples).astype(np.int32)
    predicted = np.stack([rng.permutation(classes)[:5] for _ in range(examples)]).astype(np.int32)
    right = rng.random(examples) < 0.6
    predicted[right, 0] = labels[right]
    return Predictions(
        About(40, "tested", classes, kind), [f"key{row}" for row in range(examples)], labels, predicted,
        np.full((examples, predicted.shape[1]), 0.2, np.float32), rng.random(examples).astype(np.float32), {},
    )  # fmt: skip


@pytest.mark.parametrize("classes", [5, 20, 21, 1000])
def test_the_matrix_counts_each_example_once_and_is_small_for_many_classes(classes: int) -> None:
    found = predictions(classes, 3000)
    told = judgement("test net", found)
    assert sum(map(sum, told.matrix)) == told.examples == 3000
    assert len(told.matrix) == (classes if classes <= 20 else 13)
    labels, predicted = found.labels, found.predicted[:, 0]
    for row, label in enumerate(told.shown):
        for column, other in enumerate(told.shown):
            assert told.matrix[row][column] == int(((labels == label) & (predicted == other)).sum())
    assert told.right == int((labels == predicted).sum())
    first = told.pairs[0]
    assert first.number == int(((labels == first.label) & (predicted == first.predicted)).sum())
    assert first.part == pytest.approx(first.number / int((labels == first.label).sum()))
    assert [one.number for one in told.pairs] == sorted((one.number for one in told.pairs), reverse=True)
    losses = found.loss.astype(np.float64)
    wrong = [row for row in np.argsort(-losses, kind="stable") if labels[row] != predicted[row]][:24]
    assert [one.key for one in told.mistakes] == [f"key{row}" for row in wrong]
    assert told.mistakes[0].of_label == pytest.approx(math.exp(-losses[wrong[0]]))


def test_recall_and_precision_are_those_of_the_matrix() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1, 3], np.int32), np.array([0, 1, 1, 1, 0, 1], np.int32)
    found = predictions(5, 6)
    found.labels[:], found.predicted[:, 0] = labels, predicted
    scores = judgement("n", found).scores
    assert [(one.examples, one.recall, one.precision) for one in scores] == [
        (2, 0.5, 0.5), (3, pytest.approx(2 / 3), 0.5), (0, None, None), (1, 0.0, None), (0, None, None),
    ]  # fmt: skip
    assert matrix(labels, predicted, (0, 1), 5) == ((1, 1, 0), (1, 2, 0), (0, 1, 0))


# --- the page ---


def report(**changes: object) -> Training:
    told = judgement("test net", predictions(10, 500))
    shown = tuple(replace(one, png=png(8)) for one in told.mistakes)
    found = Training(
        "lenet-0123456789ab", 1_700_000_000.0, "finished", "", 110, 110, tuple(rows_of()),
        snapshots=(Snapshot(40, 1e9, 1000), Snapshot(80, 1e9, 1000, best=True), Snapshot(110, 1e9, 1000, there=False)),
        attempts=(Attempt(1, "box.1", 0, 1e9, "abandoned", "SIGTERM"), Attempt(2, "box.2", 40, 1e9, "finished")),
        judgements=(replace(told, mistakes=shown),), facts=(("Solver", "SGD"),), notes=("something",),
    )  # fmt: skip
    return replace(found, **changes)  # type: ignore[arg-type]


class Tags(HTMLParser):
    """All tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts_add_no_tag_and_no_attribute(hostile: str) -> None:
    plain = Tags(page(report(why="why")))
    rows = [
        {**row, "values": {**row["values"], f"grad_norm/{hostile}": 1.0, f"test/{hostile}": 0.5}} for row in rows_of()
    ]
    told = report().judgements[0]
    mistakes = tuple(replace(one, key=hostile) for one in told.mistakes)
    found = Tags(page(report(
        title=hostile, why=hostile, rows=tuple(rows), notes=(hostile,), facts=((hostile, hostile),),
        judgements=(replace(told, mistakes=mistakes), Judgement(hostile, 3, why=hostile)),
        attempts=(Attempt(1, hostile, 0, None, hostile, hostile), Attempt(2, hostile, 40, None, hostile, hostile)),
    )))  # fmt: skip
    assert found.tags <= plain.tags | {"h3"}
    assert found.attributes <= plain.attributes


def test_a_large_training_has_a_page_of_bounded_size() -> None:
    rng = np.random.default_rng(0)
    told = judgement("test net", predictions(1000, 20_000))
    noise = png(96)
    mistakes = tuple(replace(one, png=noise + rng.bytes(60_000)) for one in told.mistakes)
    rows = rows_of(20_000, layers=64)
    snapshots = tuple(Snapshot(at, 1e9, 10, at == 500) for at in range(100, 200_000, 100))
    attempts = tuple(Attempt(at, "box", 1000 * at, 1e9, "abandoned", "a" * 2000) for at in range(1, 150))
    found = page(report(rows=tuple(rows), snapshots=snapshots, attempts=attempts,
                        judgements=(replace(told, mistakes=mistakes),)))  # fmt: skip
    assert len(found.encode()) < BYTES
    assert "the page would be too large" in found
    assert "The most confused classes" in found


def test_what_is_not_there_is_said() -> None:
    empty = page(Training("x", 1e9, "waiting", "", 0, 100, ()))
    assert "No display and no test was written" in empty
    assert "The solver has no test net" in empty
    assert "Nobody trains now" in empty
    missing = page(report(judgements=(Judgement("test net", 0, why="no test has ended yet"),)))
    assert "The test net has no confusion matrix: <bdi>no test has ended yet</bdi>." in missing
    assert "The worst mistakes" not in missing
    right = replace(judgement("test net", predictions(4, 9)), mistakes=(), right=9)
    assert "The test net makes no mistake." in page(report(judgements=(right,)))


def test_a_cause_is_shown_whole_and_scores_are_not_called_probabilities() -> None:
    cause = "iteration 7: the loss is not finite, " + "x" * 900 + " lower base_lr"
    shown = page(report(state="diverged", why=cause))
    assert cause in shown
    assert 'class="alarm"' in shown
    mistake = Mistake("k", 1, ((2, -3.5), (1, -4.0)), None)
    told = replace(judgement("test net", predictions(4, 9, kind="score")), mistakes=(mistake,))
    shown = page(report(judgements=(told,)))
    assert "taken for <strong>2</strong>, -3.5" in shown
    assert "the label's score is farthest behind" in unescape(shown)


def test_the_best_test_and_the_best_snapshot_of_another_iteration_are_told_apart() -> None:
    rows: list[Row] = [
        {"step": at, "time": 1e9, "kind": "test", "values": {"test/right": right, "test/loss": 0.1 * at}}
        for at, right in ((20, 0.5), (40, 0.9), (60, 0.9))
    ]
    shots = (Snapshot(30, 1e9, 10), Snapshot(60, 1e9, 10, best=True))
    found = page(report(rows=tuple(rows), kinds={"right": "accuracy"}, snapshots=shots))
    assert re.search(r"Best test right.*?0\.9000.*?at iteration 40; the best snapshot is of 60", found, re.S)
    same = page(report(rows=tuple(rows[::2]), kinds={"right": "accuracy"}, snapshots=shots))
    assert "at iteration 60" in same
    assert "the best snapshot is of" not in same
