"""Figures of trainings: measured over time, beside those of runs from cron, and each file keeps the other's."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from pipeline.clock import Clock
from pipeline.ledger.row_counts import RowCounts
from pipeline.operations.metrics import Metrics, writing
from pipeline.operations.training_metrics import KEPT, UPDATED, TrainingMetrics
from tests.unit.test_metrics import Figures, clock_at, figure, parsed

NOW = 1_700_000_000.0


class Hand:
    """A clock that a test sets."""

    at = NOW

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, monotonic=lambda: self.at)


def shown(metrics: TrainingMetrics) -> Figures:
    return parsed(generate_latest(metrics.registry).decode())


def trained(hand: Hand, name: str = "lenet-1") -> TrainingMetrics:
    metrics = TrainingMetrics(hand.clock())
    metrics.begin(name, 100, 2)
    metrics.step(10, 0.5, 0.01)
    metrics.took(640, 1.0)
    metrics.row({"step": 10, "kind": "test", "values": {"test/accuracy": 0.75, "test1/loss": 2.0, "test/odd": "nan"}})
    metrics.row({"step": 10, "kind": "train", "values": {"train/loss": 9.0}})
    return metrics


def test_a_training_shows_where_it_is_and_what_its_tests_said() -> None:
    hand = Hand()
    metrics = trained(hand)
    hand.at += 5
    metrics.saved(10)
    found = shown(metrics)
    label = {"training": "lenet-1"}
    assert figure(found, "hathi_training_iteration", **label) == 10
    assert figure(found, "hathi_training_max_iterations", **label) == 100
    assert figure(found, "hathi_training_loss", **label) == 0.5
    assert figure(found, "hathi_training_learning_rate", **label) == 0.01
    assert figure(found, "hathi_training_attempts", **label) == 2
    assert figure(found, "hathi_training_snapshot_timestamp_seconds", **label) == NOW + 5
    assert figure(found, UPDATED, **label) == NOW + 5
    assert figure(found, "hathi_training_test_output", net="test", output="accuracy", **label) == 0.75
    assert figure(found, "hathi_training_test_output", net="test1", output="loss", **label) == 2
    assert len([1 for name, _ in found if name == "hathi_training_test_output"]) == 2


def test_speed_and_waiting_are_of_the_time_since_they_were_measured_last() -> None:
    hand = Hand()
    metrics = trained(hand)
    for seconds, examples, waited, speed, ratio in (
        (10, 640, 1.0, 64, 0.1), (0.5, 700, 1.0, 64, 0.1), (9.5, 840, 6.0, 20, 0.5),
    ):  # fmt: skip
        hand.at += seconds
        metrics.took(examples, waited)
        found = shown(metrics)
        assert figure(found, "hathi_training_examples_per_second", training="lenet-1") == pytest.approx(speed)
        assert figure(found, "hathi_training_waiting_ratio", training="lenet-1") == pytest.approx(ratio)
    metrics.took(0, 0.0)  # another attempt, which begins to count anew
    hand.at += 10
    metrics.took(320, 4.0)
    found = shown(metrics)
    assert figure(found, "hathi_training_examples_per_second", training="lenet-1") == pytest.approx(32)
    assert figure(found, "hathi_training_waiting_ratio", training="lenet-1") == pytest.approx(0.4)


def test_runs_and_trainings_that_share_a_file_keep_each_others_figures(tmp_path: Path) -> None:
    path, hand = tmp_path / "hathi.prom", Hand()
    for run in (1, 2):
        metrics = Metrics(clock_at(NOW))
        with writing(metrics, path, pytest.fail), metrics.turn("shop", "compute") as tally:
            tally.counts = RowCounts(refs=5)
        for name in ("one", "two"):
            with writing(trained(hand, name), path, pytest.fail):
                pass
        found = parsed(path.read_text())
        assert figure(found, "hathi_refs_total", lake="shop", stage="compute") == 5 * run
        for name in ("one", "two"):
            assert figure(found, "hathi_training_iteration", training=name) == 10
            assert figure(found, "hathi_training_test_output", training=name, net="test", output="accuracy") == 0.75
        text = path.read_text()
        assert all(text.count(f"# TYPE {name} ") == 1 for name in ("hathi_training_iteration", "hathi_refs_total"))
    hand.at += KEPT + 1
    with writing(trained(hand, "two"), path, pytest.fail):
        pass
    found = parsed(path.read_text())
    assert {dict(labels).get("training") for name, labels in found if name.startswith("hathi_training")} == {"two"}
    assert figure(found, "hathi_refs_total", lake="shop", stage="compute") == 10
    assert [one.name for one in tmp_path.iterdir()] == ["hathi.prom"]


def test_two_trainings_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path, hand = tmp_path / "hathi.prom", Hand()

    def train(name: str) -> None:
        with writing(trained(hand, name), path, pytest.fail, seconds=0.001):
            threading.Event().wait(0.2)

    threads = [threading.Thread(target=train, args=[f"t{number}"]) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = parsed(path.read_text())
    assert {dict(labels)["training"] for name, labels in found if name == UPDATED} == {"t0", "t1", "t2", "t3"}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"not metrics {", b'hathi_training_loss{odd="x"} 5\n'])
def test_a_file_that_is_damaged_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hathi.prom"
    path.write_bytes(content)
    with writing(trained(Hand()), path, pytest.fail):
        pass
    found = parsed(path.read_text())
    assert figure(found, "hathi_training_loss", training="lenet-1") == 0.5
    assert len([1 for name, _ in found if name == "hathi_training_loss"]) == 1
