"""scripts/compute-cron.sh as cron calls it: by `sh -c`, with next to no environment; and two lakes on one box."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.process.lock import locked
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row


@dataclass(frozen=True)
class Installation:
    """This project under a path with a space in it, ready to run, with a gateway for each lake and one compute box."""

    folder: Path
    lakes: tuple[str, ...]

    @property
    def root(self) -> Path:
        return self.folder / "opt of ours" / "hathi"

    @property
    def state(self) -> Path:
        return self.folder / "box" / "state"

    @property
    def logs(self) -> Path:
        return self.folder / "box" / "logs"

    def make(self) -> None:
        self.root.mkdir(parents=True)
        for name in ("scripts", "config"):
            shutil.copytree(ROOT / name, self.root / name)
        for name in ("pipeline", "sample", "locks"):
            (self.root / name).symlink_to(ROOT / name)
        command = self.root / ".venv" / "bin" / "hathi"
        command.parent.mkdir(parents=True)
        command.write_text(
            f'#!/bin/sh\nPYTHONPATH="{self.root}" exec "{sys.executable}" -P -m pipeline.cli.main "$@"\n'
        )
        command.chmod(0o755)
        # What scripts/venv.sh compares, so that it finds nothing to install.
        stamp = [str(self.root)]
        for name in ("locks/uv.txt", "locks/runtime.txt"):
            stamp.append(f"{hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}  {name}")
        (self.root / ".venv" / ".made-from-runtime").write_text("\n".join(stamp) + "\n")
        random_features.write(self.folder / "w.caffemodel")
        for lake in self.lakes:
            self.configure(self.gateway(lake), lake, (lake,))
        self.configure(self.root / "config" / "compute.toml", "box", self.lakes)

    def gateway(self, lake: str) -> Path:
        return self.root / "config" / f"{lake}.toml"

    def configure(self, path: Path, host: str, lakes: tuple[str, ...], free_bytes: int = 0) -> None:
        lines = [f'state = "{self.folder}/{host}/state"', "[bucket]", f'url = "{self.folder}/bucket"', "fsync = false"]
        lines += ["[logs]", f'folder = "{self.folder}/{host}/logs"', "[compute]", f"free_bytes = {free_bytes}"]
        for lake in lakes:
            lines += [f"[lakes.{lake}]", f'url = "{self.folder}/{lake}"']
            if host != "box":
                lines += [f"[[lakes.{lake}.sources]]", 'path = "refs"']
        lines += ["[sets.demo]", f'net = "{ROOT}/sample/random_features.prototxt"']
        lines += [f'weights = "{self.folder}/w.caffemodel"', 'blob = "features"', 'root = "features"']
        path.write_text("\n".join(lines) + "\n")

    def refs(self, lake: str, *items: str) -> None:
        path = self.folder / lake / "refs" / "a.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(row(item, picture(index)) for index, item in enumerate(items)))

    def stage(self, lake: str, stage: str) -> None:
        words = [sys.executable, "-m", "pipeline.cli.main", "run", "--once", "--config", str(self.gateway(lake)), stage]
        done = subprocess.run(words, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def delivered(self, lake: str) -> list[str]:
        files = (self.folder / lake / "features").glob("*T*/*/features/*.parquet")
        return sorted(one for file in files for one in pq.read_table(file)["external_id"].to_pylist())

    def cron(self) -> subprocess.CompletedProcess[str]:
        """The line of config/crontab, with this installation's place for /opt/hathi, as cron runs it."""
        (line,) = [line for line in (ROOT / "config/crontab").read_text().splitlines() if line.startswith("*")]
        assert f"\n{line}\n" in (ROOT / "README.md").read_text(), "the README shows another one"
        root = str(self.root).replace(" ", "\\ ")
        command = line.split(" ", 5)[5].replace("/opt/hathi", root)
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        bare = {"HOME": str(home), "LOGNAME": "hathi", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
        words = ["env", "-i", *(f"{name}={value}" for name, value in bare.items()), "sh", "-c", command]
        return subprocess.run(
            words, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, umask=0o077
        )

    def log(self, name: str = "compute-aggregate") -> str:
        path = self.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def box(tmp_path: Path) -> Installation:
    made = Installation(tmp_path, ("shop",))
    made.make()
    return made


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    return done.returncode, done.stdout + done.stderr


def test_two_gateways_lakes_share_a_box_and_a_bucket_by_one_line_of_cron(tmp_path: Path) -> None:
    site = Installation(tmp_path, ("mall", "shop"))
    site.make()
    site.refs("shop", "one", "two")
    site.refs("mall", "three")
    for lake in site.lakes:
        site.stage(lake, "ship")
    assert said(site.cron()) == (0, "")
    assert [line.split("\t")[1] for line in site.log().splitlines() if "\tSummary: computed" in line] == [
        "[compute]"
    ] * 2
    for lake in site.lakes:
        site.stage(lake, "deliver")
    assert site.delivered("shop") == ["one", "two"]
    assert site.delivered("mall") == ["three"]
    assert not (site.state / "_PIPE_RUNNING").exists()
    before = site.log()
    assert said(site.cron()) == (0, "")
    assert len(site.log().splitlines()) <= len(before.splitlines()) + 1, "an idle run says next to nothing"


def test_a_start_that_meets_a_run_ends_quietly_before_it_touches_anything(box: Installation) -> None:
    (box.root / "scripts" / "venv.sh").write_text("#!/bin/sh\nexit 99\n")  # what is installed is not exchanged
    with locked(box.state, "compute"):
        assert said(box.cron()) == (0, "")
    assert box.log() == ""


def test_with_estop_it_ends_with_4_a_line_in_the_log_and_no_mail(box: Installation) -> None:
    box.state.mkdir(parents=True)
    (box.state / "ESTOP").touch()
    assert said(box.cron()) == (4, "")
    (line,) = box.log().splitlines()
    assert line.endswith(f"\tESTOP engaged: nothing was started; remove {box.state}/ESTOP, then start again")
    assert sorted(path.name for path in box.state.iterdir()) == ["ESTOP"], "no lock, no _PIPE_RUNNING"


def test_a_run_that_died_is_named_once_and_overwritten(box: Installation) -> None:
    box.state.mkdir(parents=True)
    body = {"pid": 1, "host": "here", "boot": "0", "start": "2026-01-01 00:00:00", "version": "0"}
    (box.state / "_PIPE_RUNNING").write_text(json.dumps(body))
    assert said(box.cron()) == (0, "")
    assert said(box.cron()) == (0, "")
    assert box.log().count("the last run died: pid 1 on here since 2026-01-01 00:00:00") == 1
    assert not (box.state / "_PIPE_RUNNING").exists()


def test_a_disk_that_is_nearly_full_is_logged_with_its_remedy_mailed_once_and_nothing_is_begun(
    box: Installation,
) -> None:
    box.refs("shop", "one")
    box.stage("shop", "ship")
    config = box.root / "config" / "compute.toml"
    box.configure(config, "box", ("shop",), free_bytes=2**60)
    first = box.cron()
    assert first.returncode == 1
    assert f"the disk of {box.state} is nearly full: nothing was begun" in first.stderr
    (line,) = box.log().splitlines()
    assert "compute.free_bytes asks for" in line
    assert "delete what is not needed" in line
    assert said(box.cron()) == (1, ""), "the second mail would say nothing new"
    assert box.log("compute-cron") == "", "the run's own log has it"
    assert not list((box.folder / "bucket/shop/c").glob("*/*/t/*"))
    box.configure(config, "box", ("shop",))
    assert said(box.cron()) == (0, "")
    assert list((box.folder / "bucket/shop/c").glob("*/out"))
    box.configure(config, "box", ("shop",), free_bytes=2**60)
    assert "nearly full" in box.cron().stderr, "it is news again"


def test_what_ends_before_there_is_a_log_is_in_the_scripts_own(box: Installation) -> None:
    command = box.root / ".venv" / "bin" / "hathi"
    whole = command.read_text()
    command.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named pydantic' >&2\nexit 1\n")
    first = box.cron()
    assert first.returncode == 1
    assert "No module named pydantic" in first.stderr
    assert box.log("compute-cron").endswith(
        "\t[compute-cron]\tError: exit code 1: ModuleNotFoundError: No module named pydantic\n"
    )
    command.write_text(whole)
    config = box.root / "config" / "compute.toml"
    config.write_text(config.read_text() + "nonsense = 1\n")
    wrong = box.cron()
    assert wrong.returncode == 2
    assert "nonsense" in wrong.stderr
    assert "nonsense" in box.log("compute-cron").splitlines()[-1]


def test_a_signal_to_the_script_reaches_the_run_and_is_waited_for(box: Installation) -> None:
    command = box.root / ".venv" / "bin" / "hathi"
    real = box.root / ".venv" / "bin" / "hathi-itself"
    command.rename(real)
    mark = box.folder / "mark"
    command.write_text(
        f'''#!/bin/bash
[ "$1" = config ] && exec "{real}" "$@"
trap 'echo stopped >>"{mark}"; exit 0' TERM
echo started >"{mark}"
while :; do sleep 0.1; done
'''
    )
    command.chmod(0o755)
    script = [box.root / "scripts" / "compute-cron.sh", box.root / "config" / "compute.toml"]
    with subprocess.Popen(script, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as cron:
        deadline = time.monotonic() + 60
        while not mark.exists() or not mark.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cron.send_signal(signal.SIGTERM)
        said, _ = cron.communicate(timeout=60)
    assert (cron.returncode, said) == (0, "")
    assert mark.read_text() == "started\nstopped\n"


STUB = """#!/bin/bash
[ "$1" = config ] && exec "{real}" "$@"
{then}
"""


def stubbed(box: Installation, then: str) -> None:
    """From here on a run of the box does what these lines of bash say."""
    command = box.root / ".venv" / "bin" / "hathi"
    real = command.rename(command.with_name("hathi-itself"))
    command.write_text(STUB.format(real=real, then=then))
    command.chmod(0o755)


def test_the_mail_of_a_run_that_was_killed_names_the_signal_and_asks_for_memory(box: Installation) -> None:
    stubbed(box, "kill -KILL $$")
    done = box.cron()
    assert done.returncode == 137
    assert "was killed by SIGKILL" in done.stderr
    assert "out of memory" in done.stderr
    assert "was killed by SIGKILL" in box.log("compute-cron")
    assert re.fullmatch(r"pid \d+ exit 137\n", (box.state / "compute.ended").read_text())
    assert said(box.cron()) == (137, ""), "the process has another number, and the trouble is the same"


def test_the_mail_holds_the_lines_of_this_run_only(box: Installation) -> None:
    box.logs.mkdir(parents=True)
    log = box.logs / "compute-aggregate.log"
    log.write_text("2020-01-01 00:00:00\t[compute]\tWarning: a trouble of long ago\n")
    line = "printf '%s\\t[compute]\\tWarning: a trouble of today\\n' \"$(date -u '+%F %T')\""
    stubbed(box, f'{line} >>"{log}"; exit 1')
    done = box.cron()
    assert done.returncode == 1
    assert "a trouble of today" in done.stderr
    assert "long ago" not in done.stderr


def test_how_far_a_run_has_come_is_no_trouble_to_mail(box: Installation) -> None:
    """It would stand in the place of the troubles, which cron takes from the log where the run itself says nothing."""
    box.refs("shop", "one", "two")
    box.stage("shop", "ship")
    printed = []
    for stage, echo in (("compute", "false"), ("aggregate", "true")):
        words = [sys.executable, "-m", "pipeline.cli.main", "run", "--once", stage]
        words += ["--config", str(box.root / "config" / "compute.toml")]
        environment = environ() | {"HATHI_LOGS__ECHO": echo}
        done = subprocess.run(
            words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stderr)
    assert printed[0] == ""
    assert "aggregate: 2 rows" in printed[1].replace(" of 2", ""), "elsewhere it is told"


WRITER = """
import sys
from pipeline.process import logs
from pipeline.settings import Logs
logs.open_log("compute", Logs(folder=sys.argv[1], max_bytes=4096, keep=1000), echo=False)
for number in range(600):
    logs.log("compute").info("line %s.%d %s", sys.argv[2], number, "x" * (number % 50))
"""


def test_two_processes_that_rotate_one_log_lose_and_tear_no_line(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*words, str(number)], cwd=ROOT, env=environ()) for number in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    files = list(tmp_path.iterdir())
    lines = [line.split("\t")[2].split()[1] for file in files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{writer}.{number}" for writer in range(3) for number in range(600))
    assert len(files) > 20
    assert max(os.stat(file).st_size for file in files) < 4096 + 3 * 200, "about the size that was asked for"
