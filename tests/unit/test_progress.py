"""Progress moves: images as they end, how fast, and how long yet; each image is counted once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli.output.progress import Pace, _Lines, lasting
from pipeline.clock import Clock
from pipeline.errors import Stopped
from pipeline.ledger.row_counts import RowCounts
from pipeline.stages.computing import Computing, _Ended
from pipeline.stages.loop import LakeStages
from pipeline.stages.publishing import Published
from pipeline.stages.tally import Tally
from tests.simulation.world import World, settings_of
from tests.unit.window_stand import Stand


def test_lines_say_how_fast_and_how_long_yet_and_the_last_one_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = _Lines(lambda: now[0])
    lines("compute", 0, 300)
    for _ in range(12):
        now[0] += 0.5
        lines("compute", 10, 0)
    lines("compute", 180, 0)
    lines.flush()
    said = capsys.readouterr().err.splitlines()
    assert said == ["compute: 100 of 300 images, 20/s, about 10 s left", "compute: 300 of 300 images"]


def test_a_pace_forgets_the_burst_at_the_beginning() -> None:
    pace = Pace(0.0)
    assert pace.of(1000, 1.0) == 1000
    for second in range(2, 40):
        rate = pace.of(10, float(second))
    assert rate == 10


def test_how_long_is_said_in_a_unit_that_people_use() -> None:
    assert [lasting(seconds) for seconds in (9.6, 300, 7200)] == ["10 s", "5 min", "2.0 h"]


def test_an_image_is_counted_as_it_ends_or_with_its_batch_and_never_twice() -> None:
    told: list[int] = []
    ended = _Ended(lambda stage, done, to_do: told.append(done))
    for number in (400, 500):
        ended("compute", number, 0)
    ended.published(1024)  # 900 of them are told of
    ended.published(0)
    ended.published(300)  # of a cluster, which tells of none before
    assert told == [400, 500, 124, 0, 300]


def test_the_window_tells_of_each_image_as_it_ends_before_its_batch_does() -> None:
    """Whatever becomes of it: a feature, or a failure of fetch, decoder or net."""
    stand = Stand({"a": [["ok"] * 20 + ["gone", "nan", "junk"]]})
    seen: list[int] = []
    opened = stand.open_batch
    stand.open_batch = lambda task: replace(opened(task), ended=lambda: seen.append(len(stand.ended)))  # type: ignore
    stand.run()
    assert seen == [0] * 23


def ticking(at: float) -> Clock:
    """A clock that goes on a little whenever it is read."""
    ticks = itertools.count()
    return Clock(now=lambda: at, monotonic=lambda: 0.07 * next(ticks))


def test_a_run_counts_each_image_once_however_its_batches_end(tmp_path: Path) -> None:
    """Images are told of twice a second, batches as they are published: those told of in between stand in both."""
    world = World(tmp_path, settings_of(ship={"batch_refs": 3, "batches_per_shipment": 64}))
    rows = [f"7,{n},http://shop.example/ok-{n}" for n in range(40)]
    world.put_refs("a.csv", "\n".join(["partner_id,item_id,url", *rows]))
    world.hand.at += 10
    done = to_do = 0

    def progress(stage: str, more: int, more_to_do: int) -> None:
        nonlocal done, to_do
        if stage == "compute":
            done, to_do = done + more, to_do + more_to_do

    plain = world.context()
    process = replace(plain.process, clock=ticking(plain.process.clock.now()))
    lake = LakeStages(replace(plain, progress=progress, process=process), world.serve, strict=True)
    lake.take("ship")
    lake.take("compute")
    assert (done, to_do) == (40, 40)


def test_images_of_batches_that_a_stop_leaves_unfinished_count_as_done_by_nobody() -> None:
    told: list[int] = []

    class Stopping:
        """One batch ends; of the next two images end before the stop."""

        def compute(self, context: Any, served: Any, tasks: Any, wanted: Any) -> Iterator[Published | None]:
            context.progress("compute", 5, 0)
            yield Published(tasks[0], "shard", RowCounts(refs=3, features=3))
            raise Stopped("stopped")

    @dataclass
    class Context:
        progress: Any

    turn = SimpleNamespace(context=Context(lambda stage, done, to_do: told.append(done)), tally=Tally(), wanted=None)
    task = SimpleNamespace(name="S", batch=0)
    with pytest.raises(Stopped):
        Computing({"demo": None}, Stopping())._compute(turn, "demo", [task])  # type: ignore[arg-type, list-item]
    assert sum(told) == 3
