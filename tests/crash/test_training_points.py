"""Every commit point of a training, killed before, killed after, and with its answer lost: the same bits come of it.

Real processes over the local store, each fault once; whoever was cut is started again.  Prints which points were hit.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.crash.points import POINTS as OTHERS
from tests.crash.site import Site
from tests.crash.training_points import POINTS, STORIES
from tests.crash.zygote import Zygote
from tests.faults.faults import Fault
from tests.unit.training.runs import GOLDEN

pytest.importorskip("lmdb")
pytest.importorskip("torch")
CUTS = ("killed before", "killed after", "answer lost")
CASE = GOLDEN / "training_stream" / "adam_step"
MORE = ("torch", "lmdb", "pipeline.training.engine.building", "pipeline.training.data.database",
        "pipeline.cli.train", "pipeline.cli.train_job", "pipeline.cli.train_jobs")  # fmt: skip
TRIES = 4
DAY = 86400.0


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote(MORE)
    yield made
    made.close()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@dataclass
class Home(Site):
    """A folder with a solver, from which trainings of a bucket are typed."""

    def made(self) -> Home:
        self.folder.mkdir()
        shutil.copytree(CASE.parent / "db", self.folder / "db")
        text = (CASE / "solver.prototxt").read_text().replace("max_iter: 60", "max_iter: 5")
        (self.folder / "solver.prototxt").write_text(text.replace("snapshot: 10", "snapshot: 3"))
        (self.folder / "net.prototxt").write_text((CASE / "net.prototxt").read_text().replace("../db", "db"))
        shutil.copy(CASE / "s_iter_10.caffemodel", self.folder / "first.caffemodel")
        return self

    def typed(self, words: tuple[str, ...], faults: list[Fault], days: float = 0.0, grace: str = "25") -> int:
        """The process's id.  days: from now, by its clock.  grace: seconds that it has once it is asked to end."""
        jobs = sorted((self.bucket / "shop" / "j").glob("*"))
        named = [jobs[0].name if word == "JOB" and jobs else word for word in words]
        return self.start(
            named, faults={"bucket": faults}, clock=time.time() + days * DAY if days else "",
            CRASH_FOLDER=str(self.folder), HATHI_COMPUTE__STRIKES_ALONE="9", HATHI_COMPUTE__LOST_ALONE="9",
            HATHI_DAEMON__PARTING_SECONDS=grace,
        )  # fmt: skip

    def job(self) -> Path:
        (found,) = (self.bucket / "shop" / "j").glob("*")
        return found

    def came_of_it(self) -> dict[str, Any]:
        """The records of the training without names, times and nonces: with the bits of its files."""
        found: dict[str, Any] = {}
        for path in sorted(self.bucket.glob("shop/j/*/*")) + sorted(self.bucket.glob("shop/j/*/s/*")):
            if path.is_file():
                body = json.loads(path.read_bytes())
                files = [(one["name"], one["sha256"]) for one in body.get("files", [])]
                rows = [json.loads(row) for row in body.get("rows", [])]
                lasting = [(row["step"], row["kind"], row["values"].get("train/loss")) for row in rows]
                found[str(path.relative_to(self.job()))] = [files, lasting, body.get("iteration"), body.get("by")]
        found["hints"] = sorted(path.name for path in self.bucket.glob("shop/h/train/*"))
        return found


def live(home: Home, story: str, fault: Fault | None) -> str:
    """One life; what is wrong with how it went."""
    for told in STORIES[story]:
        for attempt in range(TRIES):
            struck = strikes(home, fault)
            faults = [*([fault] if fault and not struck else []), *(told.faults if not attempt else ())]
            code = home.zygote.wait(home.typed(told.words, faults, told.days))
            if strikes(home, fault) > struck and code not in told.codes:
                if told.faults and 75 in told.codes and attempt == 0 and code < 0:
                    break  # it was to end there, and did
                continue
            if code not in (*told.codes, *((0,) if told.faults else ())):
                return f"{told.words}: exit {code}\n{home.said}"
            break
        else:
            return f"{told.words} did not come to its end\n{home.said}"
    return "" if fault is None or strikes(home, fault) else "the point was not reached"


def strikes(home: Home, fault: Fault | None) -> int:
    return len([row for row in home.noted() if fault is not None and row[1] == fault.how])


@pytest.mark.parametrize("story", STORIES)
def test_whoever_is_cut_at_a_commit_point_of_a_training_the_bits_are_the_same(
    story: str, ground: Path, zygote: Zygote, figures: Callable[[str], None]
) -> None:
    whole = Home(ground / "whole", zygote).made()
    assert live(whole, story, None) == ""
    expected = whole.came_of_it() if story != "forgotten" else {"hints": []}
    changes = whole.noted("change")
    named = list(chain(POINTS, OTHERS))
    assert [row for row in changes if not any(point.is_like(row[0], row[2], row[3]) for point in named)] == []
    mine = [point for point in POINTS if point.story == story]
    cases = [(point, how) for point in mine for how in CUTS]

    def run(number: int) -> str:
        point, how = cases[number]
        home = Home(ground / f"case-{number}", zygote).made()
        wrong = live(home, story, Fault(how, point.verb, point.keys, first=point.nth))
        got = home.came_of_it() if not wrong else {}
        if story == "forgotten" and not wrong:
            wrong = "" if not list(home.bucket.glob("shop/*j/*")) else "it is not forgotten"
        elif not wrong and got != expected:
            wrong = f"differs at {sorted(key for key in {*got, *expected} if got.get(key) != expected.get(key))}"
        if not wrong:
            shutil.rmtree(home.folder)
        return wrong

    found = [run(number) for number in range(len(cases))]
    figures(f"{story}: {len(mine)} points, {len(cases)} cases")
    assert [f"{point.name}: {how}: {wrong}" for (point, how), wrong in zip(cases, found, strict=True) if wrong] == []
