"""The lakes beside the service, as its API shows them to who runs the installation, and to nobody else."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.app.overview import Overviews, _Answers
from pipeline.app.overview_child import MEMORY
from pipeline.clock import Clock
from tests.servers.databases import needs_the_extra, sites
from tests.servers.promoting import Lake
from tests.servers.service import Person, Stand, standing
from tests.servers.shown_lake import GOOD, shown_lake

FAILING = ("http://10.0.0.1/a.jpg?key=secret", "no url")


@dataclass
class Seen:
    """A platform's operator, another admin, and what they look at.  now: the time by which answers grow old."""

    stand: Stand
    lake: Lake
    overview: Overviews
    boss: Person
    ann: Person
    now: list[float]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    needs_the_extra()
    folder = tmp_path_factory.mktemp("pipeline")
    lake, now = shown_lake(folder, FAILING), [1000.0]
    overview = Overviews(lake.config, Clock(monotonic=lambda: now[0]))
    try:
        for site in sites("sqlite", folder, None):
            with standing(site, folder, overview=overview) as stand:
                boss, ann = stand.person("ops", "boss", platform=True), stand.person("ayes", "ann")
                yield Seen(stand, lake, overview, boss, ann, now)
    finally:
        overview.close()


def test_what_is_open_fresh_and_in_use_is_what_the_commands_say(seen: Seen) -> None:
    told = seen.boss.got("GET", "/v1/pipeline")
    said = json.loads(seen.lake.hathi("status", "--json"))
    assert told["lakes"] == ["shop"]
    for table in ("stages", "open", "partners", "failing", "held"):
        assert [{name: one[name] for name in shown} for one, shown in zip(said[table], told[table], strict=True)] == (
            told[table]
        ), table
    assert {one["partner"]: bool(one["delivered"]) for one in told["partners"]} == {"7": True, "8": True}
    assert len(told["open"]) == 2
    (model,) = told["models"]
    assert (model["model"], model["number"], model["sets"], model["why"]) == ("hats", 2, ["demo"], "better hats")
    (far,) = told["backfills"]
    assert (far["set"], far["by"], far["snapshots"], far["delivered"], far["computed"]) == ("demo", "hats@2", 1, 0, 0)
    assert sum(one["shipments"] for one in told["stages"]) == 2


def test_the_report_of_a_day_names_reasons_and_is_the_page_of_the_command(seen: Seen) -> None:
    told = seen.boss.got("GET", "/v1/pipeline/report")
    assert (told["first"]["features"], told["first"]["delivered"], told["first"]["failures"]) == (GOOD, GOOD, 2)
    assert sum(one["first"] for one in told["reasons"]) == 2
    assert all(one["meaning"] and one["examples"] for one in told["reasons"])
    assert "secret" not in json.dumps(told)
    page = seen.boss.ask("GET", f"/v1/pipeline/report/page?day={told['title']}")
    assert page.headers["Content-Disposition"] == f'attachment; filename="hathi-{told["title"]}.html"'
    assert "sandbox" in page.headers["Content-Security-Policy"]
    typed = seen.lake.hathi("report", told["title"], "--out", "-")
    assert _without_times(page.text) == _without_times(typed)
    empty = seen.boss.got("GET", "/v1/pipeline/report?day=2016-02-29")
    assert (empty["first"]["refs"], empty["reasons"], empty["shipments"]) == (0, [], [])


def _without_times(page: str) -> list[str]:
    return [line for line in page.splitlines() if "UTC" not in line]


@pytest.mark.parametrize("day", ["2015-02-29", "yesterday", "2026-1-1", "2026-11-20/../.."])
def test_a_day_that_is_none_is_refused(seen: Seen, day: str) -> None:
    for path in ("/v1/pipeline/report", "/v1/pipeline/report/page"):
        answer = seen.boss.ask("GET", f"{path}?day={day}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")


def test_an_admin_of_a_tenant_sees_nothing_of_it(seen: Seen) -> None:
    for path in ("/v1/pipeline", "/v1/pipeline/report", "/v1/pipeline/report/page"):
        answer = seen.ann.ask("GET", path)
        assert answer.status_code == 403
        assert "shop" not in answer.text


def _child(answers: _Answers) -> int:
    assert answers._child is not None
    return answers._child.pid


def test_who_looks_is_asked_again_and_one_that_was_killed_is_replaced(seen: Seen) -> None:
    first = seen.boss.got("GET", "/v1/pipeline")
    before = _child(seen.overview._look)
    assert seen.boss.got("GET", "/v1/pipeline") == first, "who asks at once is told the same"
    seen.now[0] += 60
    assert seen.boss.got("GET", "/v1/pipeline")["at"] > first["at"]
    assert _child(seen.overview._look) == before, "the same one goes on from what it has read"
    os.kill(before, signal.SIGKILL)
    seen.now[0] += 60
    assert len(seen.boss.got("GET", "/v1/pipeline")["open"]) == 2
    assert _child(seen.overview._look) != before


def _taken(process: int) -> int:
    """Bytes that the kernel counts against its limit."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024


def test_looking_and_reporting_again_and_again_take_no_more_memory(seen: Seen) -> None:
    taken: list[int] = []
    for _ in range(12):
        seen.now[0] += 61
        seen.boss.got("GET", "/v1/pipeline")
        seen.boss.got("GET", "/v1/pipeline/report")
        taken.append(sum(_taken(_child(one)) for one in (seen.overview._look, seen.overview._day)))
    assert taken[-1] - taken[3] < 16 * 2**20, "a thread's stack is 8 MiB"
    assert max(taken) < MEMORY, "of both together; each may take so much"


def test_one_that_cannot_begin_is_an_error_that_its_operator_reads(tmp_path: Path) -> None:
    needs_the_extra()
    config = tmp_path / "hathi.toml"
    config.write_text("no configuration")
    for site in sites("sqlite", tmp_path, None):
        overview = Overviews(config, Clock())
        with standing(site, tmp_path, overview=overview) as stand:
            boss = stand.person("ops", "boss", platform=True)
            answer = boss.ask("GET", "/v1/pipeline")
            assert answer.status_code == 500
            assert str(config) not in answer.text, "its operator reads that, in the log"
            assert any("hathi.toml" in one for one in stand.said)
        overview.close()


def test_without_a_lake_there_is_nothing_and_no_error(tmp_path: Path) -> None:
    needs_the_extra()
    for site in sites("sqlite", tmp_path, None):
        with standing(site, tmp_path) as stand:
            boss = stand.person("ops", "boss", platform=True)
            assert boss.got("GET", "/v1/pipeline")["lakes"] == []
            assert boss.ask("GET", "/v1/pipeline/report").status_code == 404


def test_a_lake_that_is_away_is_told_and_seen_again_once_it_is_back(seen: Seen) -> None:
    folder = seen.lake.folder / "lake"
    away = folder.with_name("away")
    shutil.move(folder, away)
    seen.now[0] += 60
    try:
        told = seen.boss.got("GET", "/v1/pipeline")
        assert [one["level"] for one in told["findings"] if "lake shop" in one["text"]] == ["Alert"]
        assert told["partners"] == []
        assert len(told["open"]) == 2, "the bucket goes on telling what is open"
    finally:
        shutil.move(away, folder)
    seen.now[0] += 60
    back = seen.boss.got("GET", "/v1/pipeline")
    assert len(back["partners"]) == 2
    assert not [one for one in back["findings"] if one["level"] == "Alert"]
