"""What the driver says of a training on executors: rows that are written anew, and a bar that follows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from pipeline.cluster.following import Lines, Progress, Rows
from pipeline.codec import caffe_pb2
from pipeline.training import solver
from pipeline.training.solver import Flags, Solver
from pipeline.training.surroundings import Shown


def row(step: int, kind: str = "train") -> dict[str, Any]:
    values = {"train/smoothed": 1.0 / (1 + step), "train/loss": 9.0, "lr": 0.5, "waited_for_data": 0.25}
    return {"step": step, "time": 100.0 + step, "kind": kind, "values": values}


def written(path: Path, *rows: dict[str, Any], torn: str = "") -> None:
    """In place of what stands there, as a training that goes on writes its metrics."""
    there = path.with_suffix(".new")
    there.write_text("".join(json.dumps(one) + "\n" for one in rows) + torn)
    there.replace(path)


def test_each_row_from_an_iteration_on_is_taken_once_though_the_file_is_written_anew(tmp_path: Path) -> None:
    path, found = tmp_path / "s_metrics.jsonl", list[tuple[int, str]]()
    written(path, row(0), row(20, "test"), row(20), row(30))
    rows = Rows(path, 20, lambda one: found.append((one["step"], one["kind"])))
    rows.look()
    assert found == [], "what stands there before is of another try, until somebody goes on from it"
    written(path, row(0), row(20, "test"), row(20), torn='{"step": 30')
    rows.look()
    assert found == [(20, "test"), (20, "train")]
    written(path, row(0))
    rows.look()
    written(path, row(0), row(20, "test"), row(20), row(30), row(40, "test"))
    rows.look()
    rows.look()
    assert found == [(20, "test"), (20, "train"), (30, "train"), (40, "test")]


def test_a_file_that_comes_later_is_read_from_its_beginning(tmp_path: Path) -> None:
    path, found = tmp_path / "s_metrics.jsonl", list[int]()
    rows = Rows(path, 0, lambda one: found.append(one["step"]))
    rows.look()
    written(path, row(0), row(10))
    rows.look()
    assert found == [0, 10]


def test_lines_are_said_once_they_are_whole(tmp_path: Path) -> None:
    path, said = tmp_path / "s_train.log", list[str]()
    path.write_text("before\n")
    lines = Lines(path, said.append)
    with path.open("a") as file:
        file.write("one\ntw")
    lines.look()
    with path.open("a") as file:
        file.write("o\n")
    lines.look()
    assert said == ["one\n", "two\n"]


def test_the_bar_shows_what_a_displayed_iteration_says() -> None:
    text = caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", max_iter=60)
    text_format.Parse('layer { name: "d" type: "DummyData" top: "a" }', text.net_param)
    shown: list[tuple[int, Shown]] = []

    def show(read: Solver, now: Shown) -> None:
        shown.append((read.max_iter, now))

    progress = Progress(solver.check(text, Path("solver.prototxt"), Flags()), 16, 20, show)
    for one in (row(20, "test"), row(20), row(30)):
        progress.take(one)
    assert shown == [(60, Shown(20, 1 / 21, 0.5, 0, 0.0)), (60, Shown(30, 1 / 31, 0.5, 160, 2.5))]
