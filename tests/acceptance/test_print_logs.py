"""scripts/print_logs.sh: reads like the original's example, and tells the living from the dead."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
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
            logs.log(program).warning("%s", error)
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
    assert rest == [EXAMPLE]
    assert lines[:2] == [
        "troubles that are not over, the worst first:",
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
        assert printed(site)[0].startswith("troubles"), "it runs, and nobody stopped it"
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
    assert lines[2].startswith("troubles")


def write(settings: Settings, program: str, *texts: str, after: float = 60.0) -> None:
    """Lines as the program writes them, a minute apart; `LEVEL: text` at that level."""
    now = AT + after
    for text in texts:
        logs.open_log(program, settings.logs, echo=False, clock=lambda now=now: now)
        name, _, said = text.partition("|")
        level, _, rest = said.partition(": ")
        logger = logs.log(name)
        getattr(logger, level.lower())(rest) if level in ("Warning", "Error", "Critical") else logger.info("%s", said)
        logs.close_log()
        now += 60.0


def now_of(lines: list[str]) -> list[str]:
    """The texts of the troubles that are not over, in the order printed."""
    begin = lines.index("troubles that are not over, the worst first:") + 1
    end = next(i for i in range(begin, len(lines)) if lines[i].startswith("== "))
    return [line.split("\t")[2] if "\t" in line else line for line in lines[begin:end]]


def over_of(lines: list[str], program: str) -> list[str]:
    found = part(lines, program)
    return [line.split("\t")[2] for line in found[found.index("troubles that are over:") + 1 :]]


def test_the_worst_comes_first_and_the_same_trouble_once(site: Settings) -> None:
    write(site, "deliver", *(f"deliver|Warning: batch {number} waits 1.{number} s" for number in range(3)))
    write(site, "ship", "ship|Error: the disk is full", after=600.0)
    write(site, "deliver", "deliver|Warning: Alert: /lake/f holds other files than this delivery")
    assert now_of(printed(site)) == [
        "Warning: Alert: /lake/f holds other files than this delivery",
        "Error: the disk is full",
        "Warning: batch 2 waits 1.2 s (3 times since 2016-03-13 07:00:52)",
        "Warning: HDFS is in safe mode | main | hdfs dfsadmin -safemode get",
    ]
    assert now_of(printed(site, "2"))[2] == "and 2 more: a larger NUMBER prints them too"


def test_what_a_later_line_ends_is_over(site: Settings) -> None:
    write(
        site,
        "ship",
        "ship|Warning: ship: the bucket does not answer | timed out | look at the server; the next turn tries it again",
        "ship|Warning: source /refs: no such folder",
        "ship|Warning: ship works again; this is over: the bucket does not answer",
        "health|Alert: the disk of /data is 99 % full; free space [disk /data [1]]",
        "health|Warning: partner 12 lags; look [lag 12]",
        "health|resolved: disk /data [1]",
    )
    lines = printed(site)
    assert now_of(lines)[:2] == [
        "Warning: partner 12 lags; look [lag 12]",
        "Warning: source /refs: no such folder",
    ]
    assert over_of(lines, "ship") == [
        "Warning: ship: the bucket does not answer | timed out | look at the server; the next turn tries it again",
        "Alert: the disk of /data is 99 % full; free space [disk /data [1]]",
    ]
    write(site, "ship", "health|OK", "ship|started: ship", after=6000.0)
    assert now_of(printed(site)) == ["Warning: HDFS is in safe mode | main | hdfs dfsadmin -safemode get"]


def test_each_program_ends_its_own_troubles_and_of_several_lakes_those_of_one(site: Settings) -> None:
    write(
        site,
        "ship",
        "ship|Warning: the bucket is down | | start it; the next turn tries it again",
        "ship|Warning: this process could not write its sign of life to the bucket: the lake is down",
        "health|Alert: the bucket cannot be used: the bucket is down; start it [store bucket]",
        "ship|Warning: lake main: ship S: no room | | make room; the next turn tries it again",
        "ship|Warning: lake near: ship T: no room for it | | make room; the next turn tries it again",
        "ship|Warning: ship works again; this is over: the bucket is down",
        "ship|Warning: this process writes its sign of life again; this is over: the lake is down",
        "ship|Warning: lake near: ship still fails; this is over: no room",
        "ship|Warning: source refs: the NameNode is not reachable | port 9870 | start it",
        "ship|Warning: source refs: the NameNode did not answer | timed out | look at its log",
        "ship|Warning: source refs has another problem; this is over: source refs: the NameNode is not reachable",
        "ship|Warning: source refs can be read again; this is over: source refs: the NameNode did not answer",
    )
    assert now_of(printed(site))[:2] == [
        "Alert: the bucket cannot be used: the bucket is down; start it [store bucket]",
        "Warning: lake main: ship S: no room | | make room; the next turn tries it again",
    ]
    assert len(over_of(printed(site), "ship")) == 5


def test_a_finding_that_changes_its_level_is_one_trouble(site: Settings) -> None:
    write(site, "ship", "health|Warning: 6 h [lag 12]", "health|Alert: 12 h [lag 12]")
    assert now_of(printed(site))[0] == "Alert: 12 h [lag 12] (2 times since 2016-03-13 07:00:52)"


def test_a_daemon_that_died_at_its_start_says_of_what(site: Settings) -> None:
    out = Path(site.logs.folder) / "ship.out"
    out.write_text("hathi: the log cannot be written\n  hint: set logs.folder\n")
    lines = printed(site)
    assert lines[:3] == [
        f"ship does not run; {out} says:",
        "  hathi: the log cannot be written",
        "    hint: set logs.folder",
    ]
    with locked(Path(site.state), "ship"):
        assert not any("does not run" in line for line in printed(site)), "it lives: that was before it ran"


@pytest.mark.parametrize("damage", ["[bucket\n", "unknown_setting = 5\n", "[sets]\nfeatures = 7\n"])
def test_a_broken_configuration_is_named_and_its_logs_are_shown(site: Settings, damage: str) -> None:
    config = Path(site.state).parent / "hathi.toml"
    config.write_text(config.read_text() + damage)
    (Path(site.state) / "ESTOP").touch()
    lines = printed(site)
    assert lines[0].startswith("ESTOP engaged: ")
    assert lines[1].startswith("the configuration cannot be read: ")
    assert part(lines, "deliver") == ["not running", EXAMPLE]


def test_without_an_installation_the_logs_are_shown(site: Settings, tmp_path: Path) -> None:
    scripts = tmp_path / "copy" / "scripts"
    shutil.copytree(ROOT / "scripts", scripts)
    config = Path(site.state).parent / "hathi.toml"
    done = subprocess.run([scripts / "print_logs.sh", config], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("is not installed; ./run-all.sh installs it")
    assert EXAMPLE in part(lines, "deliver")


def test_a_bucket_that_never_answers_does_not_keep_anybody_waiting(site: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        config = Path(site.state).parent / "hathi.toml"
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        bucket = f'url = "s3://shop/hathi"\nendpoint = "{endpoint}"\naccess_key = "k"\nsecret_key = "s"\nregion = "r"'
        config.write_text(config.read_text().replace('url = "bucket"', bucket))
        Path(site.state).mkdir(exist_ok=True)
        began = time.monotonic()
        lines = printed(site)
    assert time.monotonic() - began < 20
    assert lines[0].startswith("not seen: whether ESTOP stands in the bucket")
    assert EXAMPLE in part(lines, "deliver")


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
