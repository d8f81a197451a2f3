"""Batches made ahead: in order, by any number of threads; errors reach who takes; and what a program feeds."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import FormatError, SolverError
from pipeline.nets.graph.lowered import Shape
from pipeline.training.data.buffers import Buffers
from pipeline.training.data.fed import Input, Memory
from pipeline.training.data.loading import Loader
from pipeline.training.data.make import is_data, make
from pipeline.training.data.source import Batch, Labels, Trouble
from pipeline.training.data.transform import Transform
from pipeline.training.draws.draws import CaffesDraws
from pipeline.training.packages import demand
from tests.unit.training.databases import layer
from tests.unit.training.test_draws import words_of


class Slow:
    """A source whose even batches end after their odd neighbours."""

    in_order = False
    transform: Transform | None = None

    def __init__(self, fails: int = -1) -> None:
        self.layer, self.count = "data", 100
        self.shapes: dict[str, Shape] = {"data": (1,)}
        self.made: list[int] = []
        self.fails, self.odd, self.closed = fails, threading.Event(), False

    def batch(self, number: int) -> Batch:
        if number == self.fails:
            raise FormatError(f"example {number} cannot be used")
        if number % 2:
            self.odd.set()
        else:
            self.odd.wait(0.05)
            self.odd.clear()
        self.made.append(number)
        return {"data": np.array([number], np.float32)}

    def keys(self, number: int) -> list[str]:
        return [str(number)]

    def examine(self, labels: Mapping[str, Labels], examples: range) -> Iterator[Trouble]:
        yield from ()

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 4, 9])
def test_batches_come_in_order_whichever_thread_ends_first(threads: int, ahead: int) -> None:
    source = Slow()
    with Loader([source], 3, threads, ahead) as loader:
        taken = [loader.take()["data"][0] for _ in range(12)]
        assert taken == list(range(3, 15))
        assert loader.number == 15
    assert max(source.made) <= 14 + ahead
    assert not source.closed


def test_no_thread_is_left_behind() -> None:
    before = set(threading.enumerate())
    with Loader([Slow()], threads=3) as loader:
        loader.take()
        assert not set(threading.enumerate()) <= before
    assert set(threading.enumerate()) <= before


def test_an_error_reaches_who_takes_that_batch_and_ends_the_threads() -> None:
    before = set(threading.enumerate())
    loader = Loader([Slow(fails=5)], threads=2)
    assert [loader.take()["data"][0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(FormatError, match="example 5"):
        loader.take()
    assert set(threading.enumerate()) <= before


def test_the_time_that_was_waited_is_told() -> None:
    times = iter([10.0, 10.5, 20.0, 20.25])
    with Loader([Slow()], now=lambda: next(times)) as loader:
        loader.take()
        loader.take()
        assert loader.waited == 0.75


def test_what_is_made_in_order_is_made_by_who_takes_it() -> None:
    threads: list[str] = []

    class Own(Slow):
        in_order = True

        def batch(self, number: int) -> Batch:
            threads.append(threading.current_thread().name)
            return {"own": np.array([number], np.float32)}

    with Loader([Slow(), Own()], ahead=3) as loader:
        assert loader.take().keys() == {"data", "own"}
        assert loader.take()["own"][0] == 1
    assert threads == [threading.current_thread().name] * 2


def test_memory_is_used_again_only_when_no_view_of_it_is_left() -> None:
    buffers = Buffers((4, 5))
    first = buffers.take()
    first[...] = 7
    view = first[1:, ::-1][0]
    at = first.ctypes.data
    del first
    gc.collect()
    second = buffers.take()
    second[...] = 1
    assert view.tolist() == [7.0] * 5, "somebody still looks at it"
    assert second.ctypes.data != at
    del view
    gc.collect()
    assert buffers.take().ctypes.data == at


def test_an_input_keeps_what_a_program_put_there() -> None:
    spec = layer("Input", ["a", "b"], input_param={"shape": [{"dim": [2, 3]}, {"dim": [2]}]})
    source = make(spec, True, CaffesDraws(1), Path())
    assert isinstance(source, Input)
    assert not source.batch(0)["a"].any()
    source.feed("a", np.ones((2, 3), np.float32))
    assert source.batch(7)["a"].tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(SolverError, match="does not take these values"):
        source.feed("a", np.ones(3, np.float32))
    with pytest.raises(SolverError, match="no such top"):
        source.feed("c", np.ones(3, np.float32))


def test_memory_data_goes_through_its_arrays_from_where_they_were_given() -> None:
    given = {"batch_size": 2, "channels": 1, "height": 1, "width": 1}
    draws = CaffesDraws(3)
    spec = layer("MemoryData", memory_data_param=given, transform_param={"mirror": True})
    source = make(spec, True, draws, Path())
    assert draws.word("next") == words_of(3, 2)[1], "Caffe seeds the layer's transformer"
    assert isinstance(source, Memory)
    with pytest.raises(SolverError, match="holds nothing"):
        source.batch(0)
    source.give(np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1), np.arange(6, dtype=np.float32))
    assert [source.batch(number)["label"].tolist() for number in range(4)] == [[0, 1], [2, 3], [4, 5], [0, 1]]
    source.give(np.full((2, 1, 1, 1), 9, np.float32), np.array([7, 8], np.float32))
    assert source.batch(4)["label"].tolist() == [7, 8]
    with pytest.raises(SolverError, match="their number a multiple of 2"):
        source.give(np.zeros((3, 1, 1, 1), np.float32), np.zeros(3, np.float32))


@pytest.mark.parametrize(("kind", "says"), [("WindowData", "does not train from WindowData"), ("Python", "Python")])
def test_other_layers_are_refused_by_name(kind: str, says: str) -> None:
    with pytest.raises(SolverError, match=says):
        make(layer(kind), True, CaffesDraws(1), Path())


@pytest.mark.parametrize(
    ("spec", "says"),
    [(layer("Data", bottom=["x"]), "1 bottom blobs"), (layer("Data", "abc"), "3 top blobs"),
     (layer("ImageData", "a"), "1 top")],
    ids=["bottom", "three tops", "one top"],
)  # fmt: skip
def test_another_number_of_blobs_is_refused(spec: object, says: str) -> None:
    with pytest.raises(SolverError, match=says):
        make(spec, True, CaffesDraws(1), Path())  # type: ignore[arg-type]


def test_which_layers_give_batches() -> None:
    assert [kind for kind in ("Data", "Input", "DummyData", "WindowData", "ReLU") if is_data(kind)] == [
        "Data", "Input", "WindowData",
    ]  # fmt: skip


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(SolverError, match=r"data_param.source needs the package lmdb.*scripts/training.sh"):
        demand("lmdb", "data_param.source")
