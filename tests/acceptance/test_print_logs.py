"""scripts/print_logs.sh: reads like the original's example, and tells the living from the dead."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipeline.cli.output.summary import summary_of
from pipeline.errors import TemporaryError
from pipeline.process import logs
from pipeline.process.lock import locked
from pipeline.settings import Settings, load
from pipeline.stages.tally import Tally
from tests.acceptance.conftest import ROOT

AT = 1457852392.0  # 2016-03-13 06:59:52 UTC
EXAMPLE = "2016-03-13 06:59:52\t[deliver]\tSummary : Sent 2429 MB to HDFS"


@pytest.fixture
def site(tmp_path: Path) -> Settings:
    """A gateway and a compute box of one configuration, each with a log."""
    (tmp_path / "hathi.toml").write_text(
        'state = "state"\n[logs]\nfolder = "logs"\n[bucket]\nurl = "bucket"\n'
        '[lakes.main]\nurl = "hdfs://namenode:9870/data"\n[lakes.near]\nurl = "near"\n'
    )
    settings = load(tmp_path / "hathi.toml", {})
    for program in ("ship", "deliver", "compute-aggregate"):
        logs.open_log(program, settings.logs, echo=False, clock=lambda: AT)
        if program == "deliver":
            line = summary_of("deliver", Tally(tasks=1, bytes=2_429_000_000), settings, "main")
            logs.log(program).info("%s", line)
            error = TemporaryError("HDFS is in safe mode", "main", "hdfs dfsadmin -safemode get")
            logs.once("deliver safe mode", str(error), program)
        else:
            logs.log(program).info("started")
    logs.close_log()
    with locked(Path(settings.state), "ship"), locked(Path(settings.state), "deliver"):
        pass
    return settings


def printed(settings: Settings, *words: str) -> list[str]:
    config = Path(settings.state).parent / "hathi.toml"
    done = subprocess.run(
        [ROOT / "scripts" / "print_logs.sh", config, *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def part(lines: list[str], program: str) -> list[str]:
    begin = lines.index(f"== {program}") + 1
    return lines[begin : next((i for i in range(begin, len(lines)) if lines[i].startswith("== ")), len(lines))]


def test_it_reads_like_the_example_and_says_who_lives_by_the_lock(site: Settings) -> None:
    with locked(Path(site.state), "deliver"):
        lines = printed(site)
    alive, *rest = part(lines, "deliver")
    assert alive.startswith(f"alive: pid {os.getpid()} since ")
    assert rest == [
        EXAMPLE,
        "last troubles:",
        "2016-03-13 06:59:52\t[deliver]\tWarning: HDFS is in safe mode | main | hdfs dfsadmin -safemode get",
    ]
    assert part(lines, "ship") == ["not running"], "its lock file is there, and nobody holds it"
    assert part(lines, "compute-aggregate") == [], "it never ran here"
    assert part(printed(site), "deliver")[0] == "not running"
    (Path(site.state) / "deliver.lock").write_text("pid 4194304 since 2016-03-13 06:00:00\n")  # as kill -9 leaves it
    told = "not running: ended unexpectedly (pid 4194304 since 2016-03-13 06:00:00)"
    assert part(printed(site), "deliver")[0] == told


def test_a_lake_that_is_a_folder_is_named_by_its_path(site: Settings) -> None:
    line = summary_of("deliver", Tally(tasks=1, bytes=3_400_000), site, "near")
    assert line == f"Summary : Sent 3 MB to {Path(site.state).parent}/near"


def test_estop_and_a_run_that_died_come_first(site: Settings) -> None:
    state = Path(site.state)
    with locked(state, "compute"):
        (state / "_PIPE_RUNNING").write_text(json.dumps({"pid": os.getpid()}))
        assert printed(site)[0].startswith("== "), "it runs, and all is well"
    (state / "ESTOP").touch()
    lines = printed(site)
    assert lines[0] == f"ESTOP engaged: nothing starts on this host until you remove {state}/ESTOP"
    assert lines[1].startswith(f"the last run of compute died: {state}/_PIPE_RUNNING is left over")


def test_estop_in_the_bucket_comes_first_too_for_each_lake(site: Settings) -> None:
    for lake in ("main", "near"):
        key = Path(site.bucket.url) / lake / "h/alive/ESTOP"
        key.parent.mkdir(parents=True)
        key.touch()
    lines = printed(site)
    assert [line.partition(" (since")[0] for line in lines[:2]] == [
        f"ESTOP engaged: nothing starts on any host until you delete {site.bucket.url}/{lake}/h/alive/ESTOP"
        for lake in ("main", "near")
    ]
    assert lines[2].startswith("== ")


def test_so_many_lines_as_are_asked_for(site: Settings) -> None:
    logs.open_log("deliver", site.logs, echo=False, clock=lambda: AT)
    for number in range(5):
        logs.log("deliver").info("Summary : Sent %d MB to HDFS", number)
    logs.close_log()
    summaries = [line for line in printed(site, "2") if "Summary : Sent" in line]
    assert [line.split("Sent ")[1] for line in summaries] == ["3 MB to HDFS", "4 MB to HDFS"]


def test_help_and_a_wrong_option() -> None:
    script = ROOT / "scripts" / "print_logs.sh"
    helped = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60)
    assert helped.returncode == 0
    assert "scripts/print_logs.sh [CONFIG|FOLDER] [NUMBER]" in helped.stdout
    assert subprocess.run([script, "--all"], capture_output=True, timeout=60).returncode == 2
