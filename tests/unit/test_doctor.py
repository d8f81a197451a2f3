"""`hathi doctor`: each probe says OK or what to do; one that hangs is cut."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.app import estop
from pipeline.errors import PermanentError, TemporaryError
from pipeline.operations.doctor import machine, nets, packages, programs, stores
from pipeline.operations.doctor.probe import Probe, run, run_all
from pipeline.process.lock import ESTOP, RUNNING, locked
from pipeline.settings import Bucket, FeatureSet, Settings
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Examined
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT
from tests.unit.test_stages import world_of

HOUR = 3600.0
NOW = 1_700_000_000.0


def bad(found: list[Examined]) -> list[str]:
    return [one.step for one in found if not one.ok]


def settings_in(folder: Path, **more: object) -> Settings:
    return Settings(state=str(folder / "state"), bucket=Bucket(url=str(folder / "bucket")), **more)  # type: ignore[arg-type]


# ---- how probes are run


def test_findings_come_in_order_and_what_a_probe_raises_is_one_of_them() -> None:
    def refuse() -> Iterator[Examined]:
        yield Examined("first", True, "fine")
        raise PermanentError("it broke", "at the bolt", "turn the bolt")

    def surprise() -> Iterator[Examined]:
        raise ZeroDivisionError("by zero")
        yield

    found = list(run_all([Probe("a", refuse), Probe("b", surprise), Probe("c", lambda: iter(()))]))
    assert [(area, one.step, one.ok) for area, one in found] == [
        ("a", "first", True), ("a", "a", False), ("b", "b", False),
    ]  # fmt: skip
    assert (found[1][1].said, found[1][1].hint) == ("it broke (at the bolt)", "turn the bolt")
    assert "ZeroDivisionError" in found[2][1].said


def test_a_probe_that_hangs_is_cut_and_what_it_said_before_is_kept() -> None:
    released = threading.Event()

    def hang() -> Iterator[Examined]:
        yield Examined("first", True, "fine")
        released.wait()

    found = list(run(Probe("slow", hang, seconds=0.2)))
    released.set()
    assert [(one.step, one.ok) for one in found] == [("first", True), ("answer", False)]
    assert "given up" in found[1].said
    assert "start it again" in found[1].hint


# ---- Python and lock file


def test_this_interpreter_will_do() -> None:
    (found,) = packages.python()
    assert found.ok
    assert sys.executable in found.said


def test_what_is_installed_here_is_what_the_lock_file_says() -> None:
    (found,) = packages.packages(ROOT / "locks")
    assert found.ok, found.said


def test_packages_that_differ_are_named_with_both_versions(tmp_path: Path) -> None:
    (tmp_path / "runtime.txt").write_text(
        "numpy==0.0.1 \\\n    --hash=sha256:00\nno-such-package==1.0 \\\nelsewhere==2 ; sys_platform == 'win32' \\\n"
        "mmh3==0.1 ; python_full_version < '3.12' \\\nmmh3==0.2 ; python_full_version >= '3.12' \\\n"
    )
    (found,) = packages.packages(tmp_path)
    assert not found.ok
    assert found.said.startswith("3 of 4 packages differ: numpy is ")
    assert "not 0.0.1, no-such-package is missing, mmh3 is " in found.said
    assert found.said.endswith("not 0.1 or 0.2")
    assert "venv.sh" in found.hint
    (found,) = packages.packages(tmp_path / "absent")
    assert found.ok, "an installed wheel has no lock file"


# ---- the machine


def test_a_disk_is_judged_by_room_inodes_and_rights(tmp_path: Path) -> None:
    found = list(machine.disk(tmp_path / "to" / "be" / "made", 100.0))
    assert [(one.step, one.ok) for one in found] == [("room", True), ("inodes", True), ("rights", True)]
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"
    assert "room" in bad(list(machine.disk(tmp_path, 0.0)))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = list(machine.disk(tmp_path / "file", 100.0))
    assert bad(found) == ["rights"]


def test_the_hosts_are_those_of_the_stores() -> None:
    lakes = {"shop": {"url": "hdfs://nn1.example:9870,nn2.example:9870/data"}, "here": {"url": "/tmp/lake"}}
    values = {"lakes": lakes, "bucket": {"url": "s3://b/p", "endpoint": "http://minio.example:9000"}}
    settings = Settings.model_validate(values)
    assert machine.hosts(settings, True) == ["minio.example", "nn1.example", "nn2.example"]
    assert machine.hosts(settings, False) == ["minio.example"]
    values["bucket"] = {"url": "s3://b/p", "region": "eu-west-1"}
    assert machine.hosts(Settings.model_validate(values), False) == ["s3.eu-west-1.amazonaws.com"]
    assert machine.hosts(settings_in(Path("/tmp")), True) == []


def test_a_name_that_nobody_knows_is_said() -> None:
    found = list(machine.names(["localhost", "no-such-host.invalid"]))
    assert [one.ok for one in found] == [True, False]
    assert "no-such-host.invalid" in found[1].said


def test_a_clock_that_is_off_is_said_with_its_sign(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, now=lambda: NOW + 400)
    (found,) = machine.clock("bucket", lambda: store, 300.0, lambda: NOW)
    assert not found.ok
    assert "+400.0 s" in found.said
    (found,) = machine.clock("bucket", lambda: store, 500.0, lambda: NOW)
    assert found.ok


def test_a_store_that_does_not_answer_is_said(tmp_path: Path) -> None:
    def refused() -> LocalStore:
        raise PermanentError("no ticket", "", "kinit")

    (found,) = machine.clock("lake shop", refused, 300.0, time.time)
    assert (found.ok, found.hint) == (False, "kinit")


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the driver's program; the tests write what it does."""
    path = tmp_path / "bin" / "nvidia-smi"
    path.parent.mkdir()
    path.touch()
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


def test_a_gpu_is_named_with_memory_and_capability(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 1024, 9.0'\necho 'NVIDIA L4, 23034, 0, 8.9'\n")
    found = list(machine.gpus(True))
    assert [one.said for one in found] == [
        "0: NVIDIA H200, 139.4 of 140.4 GiB free, compute capability 9.0",
        "1: NVIDIA L4, 22.5 of 22.5 GiB free, compute capability 8.9",
    ]


def test_a_driver_that_hangs_is_cut_and_not_waited_for(smi: Path) -> None:
    smi.write_text("#!/bin/sh\ntrap '' TERM\nexec sleep 600\n")
    (found,) = machine.gpus(False, seconds=0.3)
    assert not found.ok
    assert "does not answer" in found.said
    assert "reboot" in found.hint


def test_a_driver_that_does_not_fit_is_said_in_its_own_words(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    (found,) = machine.gpus(False)
    assert not found.ok
    assert "version mismatch" in found.said


def test_no_gpu_is_fine_unless_a_set_asks_for_one(tmp_path: Path) -> None:
    (found,) = machine.gpus(False, program="no-such-driver")
    assert found.ok
    (found,) = machine.gpus(True, program="no-such-driver")
    assert not found.ok
    assert found.hint


# ---- stores


def test_a_bucket_and_a_lake_are_examined_in_scratch_and_left_as_they_were(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, lakes={"shop": {"url": str(tmp_path / "lake")}})
    bucket, lake = LocalStore(tmp_path / "bucket"), LocalStore(tmp_path / "lake")
    found = list(stores.bucket(settings, lambda: bucket))
    assert bad(found) == []
    assert [one.step for one in found][-2:] == ["race", "rules"]
    assert bad(list(stores.lake(lambda: lake, ["features", "more"]))) == []
    left = [path for path in tmp_path.rglob("*") if path.is_file() or path.name.startswith("doctor")]
    assert left == []


class Shut(LocalStore):
    """Takes everything into folders that are there, and nothing into the root itself."""

    def rename_new(self, source: str, target: str) -> None:
        if target.count("/") == 1:
            raise PermanentError("user hathi is not allowed at /features", "it is dr-xr-xr-x", "chmod u+rwx")
        super().rename_new(source, target)


def test_a_root_that_takes_no_delivery_is_found_though_its_scratch_can_be_written(tmp_path: Path) -> None:
    lake = Shut(tmp_path)
    (one,) = [one for one in stores.lake(lambda: lake, ["features"]) if not one.ok]
    assert (one.step, one.hint) == ("place", "chmod u+rwx")
    assert "user hathi is not allowed at /features" in one.said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class Lenient(LocalStore):
    """A server that lets two win."""

    def put_new(self, key: str, body: bytes) -> None:
        self.put(key, body)


class Forgetful(LocalStore):
    """A server with a rule of its own."""

    def forgets(self, prefix: str) -> str:
        return f"{prefix}: deleted after 7 days"


def test_a_server_that_lets_two_win_and_one_that_forgets_are_found_out(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, lakes={"shop": {"url": str(tmp_path / "lake")}})
    assert bad(list(stores.bucket(settings, lambda: Lenient(tmp_path / "bucket")))) == ["put-if-absent"]
    found = list(stores.bucket(settings, lambda: Forgetful(tmp_path / "bucket")))
    assert bad(found) == ["rules"]
    assert "shop/: deleted after 7 days" in found[-1].said


# ---- nets


def test_a_net_is_loaded_and_one_image_goes_through(tmp_path: Path) -> None:
    random_features.write(tmp_path / "w.caffemodel")
    net = str(ROOT / "sample" / "random_features.prototxt")
    chosen = FeatureSet(net=net, weights=str(tmp_path / "w.caffemodel"), blob="features", root="features")
    found = list(nets.feature_set(chosen, 1, time.monotonic))
    assert bad(found) == []
    assert [one.step for one in found] == ["load", "preprocess", "image"]
    broken = chosen.model_copy(update={"blob": "nothing"})
    (_, one), *_ = run_all([Probe("set", lambda: nets.feature_set(broken, 1, time.monotonic))])
    assert not one.ok


# ---- programs


def test_estop_a_killed_program_and_a_stale_running_file_are_said(tmp_path: Path) -> None:
    assert bad(list(programs.locks(tmp_path))) == []
    with locked(tmp_path, "compute"):
        (tmp_path / RUNNING).touch()
        found = list(programs.locks(tmp_path))
        assert bad(found) == []
        assert any(f"pid {os.getpid()}" in one.said for one in found)
    assert bad(list(programs.locks(tmp_path))) == [RUNNING]
    with pytest.raises(KeyboardInterrupt), locked(tmp_path, "ship"):
        raise KeyboardInterrupt
    assert bad(list(programs.locks(tmp_path))) == ["lock", RUNNING]


def test_estop_is_said_of_this_host_and_of_the_bucket(tmp_path: Path) -> None:
    context = world_of(tmp_path).context("box.one")

    def rows() -> list[tuple[bool, str, str]]:
        return [(one.ok, one.said, one.hint) for one in estop.examined(tmp_path, lambda: estop.of_lakes([context]))]

    assert rows() == [(True, "not engaged on this host", ""), (True, "not engaged in the bucket", "")]
    estop.engage_here(tmp_path)
    (place,) = estop.engage_remote(estop.of_lakes([context]))
    (here, there) = rows()
    assert (here[0], here[2]) == (False, f"remove {tmp_path / ESTOP}, then start the programs again")
    assert there[0] is False
    assert there[1].startswith("ESTOP is engaged in the bucket since 20")
    assert f"`hathi start --remote` deletes {place}" in there[2]

    def away() -> list[estop.Place]:
        raise TemporaryError("the bucket cannot be reached", "", "look at the network")

    (_, unseen) = estop.examined(tmp_path, away)
    assert (unseen.ok, unseen.hint) == (False, "look at the network")
    assert unseen.said == "it cannot be seen whether ESTOP stands in the bucket: the bucket cannot be reached"


HERE = Path("/opt/hathi")
OURS = "7 * * * * /opt/hathi/scripts/compute-cron.sh"


def ran(state: Path, hours: float) -> None:
    with locked(state, "compute"):
        pass
    os.utime(state / "compute.lock", (NOW - hours * HOUR, NOW - hours * HOUR))


def test_on_a_compute_box_cron_has_to_start_this_installation(tmp_path: Path) -> None:
    def found(lines: list[str], needed: bool) -> list[str]:
        return bad(list(programs.cron(tmp_path, HERE, NOW, needed=needed, lines=lambda: lines)))

    assert found([], True) == ["crontab", "last run"]
    assert found([], False) == [], "elsewhere runs may be started by hand"
    ran(tmp_path, 1.0)
    assert found([OURS], True) == []
    assert found(["7 * * * * /home/other/scripts/compute-cron.sh"], True) == ["crontab"]
    assert found([OURS, "7 * * * * /home/other/scripts/compute-cron.sh"], True) == []


def test_a_crontab_line_may_lead_to_the_installation_through_a_link(tmp_path: Path) -> None:
    """`uv tool install` puts a link into ~/.local/bin."""
    (tmp_path / "tool/bin").mkdir(parents=True)
    (tmp_path / "tool/bin/hathi").touch()
    for name in ("hathi", "other"):
        (tmp_path / name).symlink_to(tmp_path / "tool/bin/hathi" if name == "hathi" else tmp_path / "elsewhere")
    ran(tmp_path, 1.0)

    def found(name: str) -> list[str]:
        lines = [f"7 * * * * {tmp_path / name} run --once"]
        return bad(list(programs.cron(tmp_path, tmp_path / "tool", NOW, needed=True, lines=lambda: lines)))

    assert found("hathi") == []
    assert found("other") == ["crontab"]


def test_a_run_that_is_overdue_is_said_unless_one_is_at_work(tmp_path: Path) -> None:
    def found() -> list[str]:
        return bad(list(programs.cron(tmp_path, HERE, NOW, needed=True, lines=lambda: [OURS])))

    ran(tmp_path, 2.9)
    assert found() == []
    ran(tmp_path, 3.1)
    assert found() == ["last run"]
    with locked(tmp_path, "compute"):
        os.utime(tmp_path / "compute.lock", (0, 0))
        assert found() == []


def test_crontabs_are_read_wherever_they_lie_and_comments_are_none(tmp_path: Path) -> None:
    (tmp_path / "cron.d").mkdir()
    (tmp_path / "cron.d" / "hathi").write_text(f"# {OURS}\n0 * * * * root hathi run --once\n0 * * * * root backup\n")
    lines = programs.crontab_lines(lambda: f"{OURS}\n", [tmp_path / "cron.d", tmp_path / "absent"])
    assert lines == [OURS, "0 * * * * root hathi run --once"]


# ---- the command


def hathi(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli.main", "doctor", *words]
    return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300)


def test_the_command_goes_through_a_host_and_says_what_to_do(tmp_path: Path) -> None:
    random_features.write(tmp_path / "w.caffemodel")
    config = tmp_path / "hathi.toml"
    config.write_text(
        f'state = "state"\n[bucket]\nurl = "bucket"\n[logs]\nfolder = "logs"\n[health]\ndisk_percent = 100.0\n'
        f'[lakes.shop]\nurl = "lake"\n[sets.demo]\nnet = "{ROOT}/sample/random_features.prototxt"\n'
        f'weights = "w.caffemodel"\nblob = "features"\nroot = "features"\n'
    )
    done = hathi("--config", str(config), "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    areas = list(dict.fromkeys(line["area"] for line in lines))
    order = ["python", "configuration", "disk", "clock", "lake shop", "bucket", "set demo", "gpu", "cron", "programs"]
    assert areas == order
    assert [line for line in lines if not line["ok"]] == [], done.stdout
    assert done.returncode == 0, done.stderr
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / ESTOP).touch()
    text = hathi("compute", "--config", str(config))
    assert text.returncode == 1
    assert "NOT OK  programs" in text.stdout
    assert f"to do: remove {tmp_path}/state/ESTOP" in text.stdout
    assert "ok      lake shop" not in text.stdout, "a box does not look at the lake"
    assert {path.name for path in (tmp_path / "state").iterdir()} == {ESTOP}


def test_a_configuration_that_cannot_be_read_is_a_finding_among_others(tmp_path: Path) -> None:
    config = tmp_path / "hathi.toml"
    config.write_text("[bucket]\nurll = 1\n")
    done = hathi("--config", str(config))
    assert done.returncode == 2
    assert "ok      python" in done.stdout
    assert "NOT OK  configuration" in done.stdout
    assert "urll" in done.stdout
