"""Metrics out of summaries are those of the raw rows, to the point, on both databases."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.service import curves, queue, summing
from pipeline.service.curves import Curves, Wanted
from pipeline.service.database.statements import Database
from pipeline.service.ids import Kind, new_id
from pipeline.service.queue import Chunk, Submission
from pipeline.service.summing import Summing
from pipeline.service.thinning import Point, grid, points_of
from pipeline.service.words import Claimed, Ending, Slot, State, scope
from pipeline.stores.local import LocalStore
from tests.servers.databases import KINDS, Site, a_tenant, sites_of

Row = dict[str, Any]
NAMES = ("train/loss", "test/accuracy")
KEYS = itertools.count()


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    yield from sites_of(request, tmp_path)


@dataclass
class Job:
    """A job, its attempts' chunks as they were shipped, and which of them had a Summing."""

    database: Database
    store: LocalStore
    tenant: str
    worker: str
    chunks: list[tuple[int, list[Row]]]
    held: Claimed | None = None
    summing: Summing | None = None

    @classmethod
    async def made(cls, site: Site, folder: Path) -> Job:
        database = site.open()
        tenant, worker = await a_tenant(database, f"team{next(KEYS)}"), new_id(Kind.WORKER, 1.0)
        await queue.enlist(database, worker, "here", Slot.TRAIN)
        async with database.transaction(scope(tenant)) as statements:
            work = Submission(new_id(Kind.TRAINING_JOB, 1.0), "train", Slot.TRAIN, {"name": "x", "inputs": {}})
            await queue.submit(statements, scope(tenant), work)
        return cls(database, LocalStore(folder / "bucket", fsync=False), tenant, worker, [])

    async def attempt(self, *, summed: bool) -> None:
        if self.held is not None:
            await queue.release(self.database, self.held)
        self.held, self.summing = await queue.claim(self.database, self.worker), Summing() if summed else None

    async def ship(self, rows: list[Row]) -> None:
        assert self.held is not None
        steps, key = [row["step"] for row in rows], f"s/chunk-{next(KEYS)}"
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        self.store.put(key, text)
        of = min(steps), max(steps)
        summaries = self.summing.add(points_of(rows), *of) if self.summing is not None else ()
        assert await queue.ship(self.database, self.held, Chunk("metrics", *of, len(text), key, summaries))
        self.chunks.append((self.held.epoch, rows))

    async def curves(self, first: int, points: int, names: frozenset[str] | None = None) -> dict[str, list[Point]]:
        assert self.held is not None
        of = Curves(self.database, self.store, scope(self.tenant))
        return (await of.of(self.held.id, Wanted(names, first, points)))[0]

    def plainly(self, first: int, points: int) -> dict[str, list[Point]]:
        """All rows, without a summary: the smallest and the greatest of each stretch, by the words of the rule."""
        begins: dict[int, int] = {}
        for epoch, rows in self.chunks:
            begins[epoch] = min([begins.get(epoch, 2**40), *(row["step"] for row in rows)])
        kept = [
            row for epoch, rows in self.chunks for row in rows
            if row["step"] < min((at for other, at in begins.items() if other > epoch), default=2**40)
        ]  # fmt: skip
        fine = grid(first, max([first, *(row["step"] for row in kept)]), points)
        assert fine.origin <= first
        stretches: dict[tuple[str, int], list[Point]] = defaultdict(list)
        for row in kept:
            for name, said in row["values"].items():
                value = float(said) if math.isfinite(float(said)) else math.inf
                if row["step"] >= first:
                    at = (row["step"] - fine.origin) // fine.width
                    stretches[name, at].append((row["step"], row["time"], value))
        found: dict[str, set[Point]] = defaultdict(set)
        for (name, _), some in stretches.items():
            found[name] |= {min(some, key=lambda p: (p[2], p)), min(some, key=lambda p: (-p[2], p))}
        assert all(len(some) <= max(2, points) for some in found.values())
        return {name: sorted(some) for name, some in sorted(found.items())}


def rows(steps: list[int], values: list[Any]) -> list[Row]:
    return [
        {"step": step, "time": float(step), "kind": "train", "values": {NAMES[step % 3 == 0]: value, "all": value}}
        for step, value in zip(steps, values, strict=False)
    ]


def a_value(chance: random.Random) -> Any:
    """Seldom one that is not finite, sometimes one that is there twice."""
    return chance.choice([*[chance.uniform(-1, 1)] * 20, *[chance.randint(-1, 1)] * 5, "nan", "inf", "-inf"])


ATTEMPT = st.tuples(
    st.floats(0, 1),  # where it begins, of the way that the one before came
    st.sampled_from([1, 2, 5, 40]),  # steps between two rows
    st.booleans(),  # whether its worker knows of summaries
    st.lists(st.integers(1, 30), min_size=3, max_size=14),  # rows of each chunk
)
ASKED = st.tuples(st.one_of(st.just(0), st.integers(0, 5000)), st.sampled_from([2, 4, 8, 16, 200]))


def test_what_is_read_out_of_summaries_is_what_the_rows_say(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts over each other, with and without summaries, from any step, to the point."""
    monkeypatch.setattr(summing, "FULL", 3)
    monkeypatch.setattr(summing, "CHUNKS", 3)
    monkeypatch.setattr(curves, "TOGETHER", 300)
    levels: set[int] = set()

    @settings(
        max_examples=25 if site.kind == "sqlite" else 4, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    @given(st.lists(ATTEMPT, min_size=2, max_size=3), st.integers(0, 2**32), st.lists(ASKED, min_size=8, max_size=8))
    def hold(attempts: list[tuple[float, int, bool, list[int]]], seed: int, asked: list[tuple[int, int]]) -> None:
        async def look() -> None:
            job = await Job.made(site, tmp_path)
            chance, begins = random.Random(seed), 3000
            for of_it, stride, summed, chunks in attempts:
                begins = int(of_it * begins)
                await job.attempt(summed=summed)
                for many in chunks:
                    steps = [begins + n * stride for n in range(many)]
                    begins = steps[-1]  # a step may stand in two chunks
                    await job.ship(rows(steps, [a_value(chance) for _ in steps]))
            for first, points in asked:
                found = await job.curves(first, points)
                assert found == job.plainly(first, points), (first, points)
                some = await job.curves(first, points, frozenset({"all"}))
                assert some == {name: told for name, told in found.items() if name == "all"}
            assert job.held is not None
            await queue.finish(job.database, job.held, Ending(State.CANCELLED))
            levels.update(row["level"] for row in await site.bare("select distinct level from @summaries"))

        site.run(look())

    hold()
    assert levels >= {0, 1}, "summaries of summaries were there to be read"
