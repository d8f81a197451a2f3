"""Two seconds of damaged inputs for each reader of foreign bytes, and everything that was once found."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from tests.fuzz.driving import Told, fuzz
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import CORPUS, TARGETS

SECONDS = 2.0
SEED = "ci"


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Future[Told]]]:
    """All targets, as many at once as there are cores; each test waits for its own."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield {name: pool.submit(lambda name=name: next(fuzz([name], SECONDS, SEED, 1))) for name in TARGETS}


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_was_once_found_is_read_or_refused(path: Path) -> None:
    target, _, _ = path.name.partition("-")
    with contextlib.suppress(PipelineError):
        TARGETS[target].read(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_are_read(name: str) -> None:
    for data in TARGETS[name].seeds():
        TARGETS[name].read(data)


def test_equal_seeds_give_equal_inputs() -> None:
    one, other = (Mutator("seed", [b"x" * 100, b"some text, 12"], [b"word"]) for _ in range(2))
    assert [one.next() for _ in range(200)] == [other.next() for _ in range(200)]


@pytest.mark.parametrize("name", TARGETS)
def test_no_damage_makes_it_crash_hang_or_grow(name: str, told: dict[str, Future[Told]]) -> None:
    found = told[name].result()
    assert [(one.kind, one.file, one.detail) for one in found.findings] == []
    assert found.inputs > 0
