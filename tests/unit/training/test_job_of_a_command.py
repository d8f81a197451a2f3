"""`hathi train SOLVER --job`: a real process, a real kill, and the bits of the training that nobody disturbed."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.stores.local import LocalStore
from pipeline.training.assembly import How
from pipeline.training.data.reach import Reach
from pipeline.training.dataset import shards
from pipeline.training.dataset.examples import read
from pipeline.training.dataset.manifest import MANIFEST
from pipeline.training.job import Wanted as Alone
from tests.unit.training.runs import GOLDEN, blobs, folder_of, train
from tests.unit.training.test_job_commands import CONFIG

pytest.importorskip("lmdb")
pytest.importorskip("torch")
CASE = GOLDEN / "training_stream" / "adam_step"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The golden case with more snapshots; the current folder.  A configuration stands beside it."""
    where = folder_of(CASE, tmp_path)
    text = (where / "solver.prototxt").read_text()
    (where / "solver.prototxt").unlink()
    (where / "solver.prototxt").write_text(text.replace("snapshot: 10", "snapshot: 5"))
    (tmp_path / "hathi.toml").write_text(CONFIG)
    (tmp_path / "bucket").mkdir()
    before = Path.cwd()
    os.chdir(where)
    yield where
    os.chdir(before)


def words(folder: Path, *more: str) -> list[str]:
    config = folder.parent.parent / "hathi.toml"
    return ["train", "solver.prototxt", "--job", "--lake", "shop", "--threads", "1", "--config", str(config), *more]


def keys(folder: Path, pattern: str) -> list[Path]:
    return sorted((folder.parent.parent / "bucket").glob(f"shop/j/*/{pattern}"))


def killed(folder: Path, after: int, how: signal.Signals) -> int:
    """A process that trains, sent this signal once so many snapshots are there; its exit code."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive",
               "PYTHONPATH": str(Path(__file__).parents[3])}  # fmt: skip
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "pipeline.cli.main", *words(folder)], env=environ, cwd=folder,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:  # fmt: skip
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        while len(keys(folder, "s/*")) < after and process.poll() is None and time.monotonic() < began + 120:
            process.stderr.read()
            time.sleep(0.01)
        process.send_signal(how)
        os.set_blocking(process.stderr.fileno(), True)
        process.stderr.read()
        return process.wait(60)


def test_a_job_that_is_killed_and_asked_to_end_has_the_bits_of_one_that_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert killed(folder, 2, signal.SIGKILL) == -signal.SIGKILL
    assert killed(folder, 4, signal.SIGTERM) == 75
    assert len(keys(folder, "s/*")) < 12
    capsys.readouterr()
    assert main(words(folder, "--json")) == 0
    tree = json.loads(capsys.readouterr().out)
    assert (tree["state"], tree["iteration"]) == ("finished", 60)
    assert [made["ended"] for made in tree["attempts"]] == [None, "abandoned", None]
    assert main(words(folder, "--json")) == 0, "the same command again finds it finished"
    assert len(keys(folder, "t/*")) == 4
    alone = train(Alone(Path("solver.prototxt"), how=How(1)))
    assert alone.ended.model is not None
    model = next(file for file in tree["model"] if file["name"] == "net.caffemodel")
    found, wanted = blobs(folder.parent.parent / "bucket" / model["key"]), blobs(alone.ended.model)
    assert all(np.array_equal(values, wanted[key]) for key, values in found.items())
    assert found.keys() == wanted.keys()


def test_what_a_job_has_no_use_for_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(folder, "--until", "5")) == 2
    assert "--until is of no use with --job" in capsys.readouterr().err
    assert main(words(folder, "--on", "spark")) == 2
    assert "--on and --job exclude each other" in (said := capsys.readouterr().err)
    assert "snapshots of a job lie in the bucket" in said
    lake = [one for one in words(folder) if one not in ("--lake", "shop")]
    assert main(lake) == 2
    assert "2 lakes are configured" in capsys.readouterr().err
    assert keys(folder, "*") == []


def test_a_job_reads_its_dataset_by_url_and_another_dataset_there_is_another_job(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands for the store: that a server is reached is shown on Spark."""
    alone = train(Alone(Path("solver.prototxt"), how=How(1), until=10))
    assert alone.ended.model is not None
    (folder / "far" / "set").mkdir(parents=True)
    shards.write(folder / "far" / "set", ((one.key, one.datum) for one in read(Path("../db"))), "a test")
    above = folder / "far"
    monkeypatch.setattr(Reach, "store", lambda self, url: LocalStore(above / url.rpartition("/")[2], fsync=False))
    text = (folder / "net.prototxt").read_text()
    (folder / "net.prototxt").unlink()
    (folder / "net.prototxt").write_text(text.replace("../db", "s3://shop/set"))
    solver = (folder / "solver.prototxt").read_text()
    (folder / "solver.prototxt").write_text(solver.replace("max_iter: 60", "max_iter: 10"))
    assert main(words(folder, "--json")) == 0
    tree = json.loads(capsys.readouterr().out)
    model = next(file for file in tree["model"] if file["name"] == "net.caffemodel")
    found, wanted = blobs(folder.parent.parent / "bucket" / model["key"]), blobs(alone.ended.model)
    assert all(np.array_equal(values, wanted[key]) for key, values in found.items())
    manifest = above / "set" / MANIFEST
    manifest.write_text(manifest.read_text().replace("a test", "another"))
    assert main(words(folder, "--json")) == 0
    assert len(keys(folder, "spec")) == 2


def test_estop_refuses_the_start(folder: Path) -> None:
    state = folder.parent.parent / "state"
    state.mkdir()
    (state / "ESTOP").touch()
    assert main(words(folder)) == 4
    assert keys(folder, "*") == []


def test_a_job_that_a_person_stopped_says_who_and_what_to_type(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert killed(folder, 2, signal.SIGTERM) == 75
    (name,) = {path.parent.name for path in keys(folder, "spec")}
    at = ["--lake", "shop", "--config", str(folder.parent.parent / "hathi.toml")]
    assert main(["train", "stop", name, *at]) == 0
    capsys.readouterr()
    assert main(words(folder)) == 3
    said = capsys.readouterr().out
    assert f"{name} was stopped at iteration " in said
    assert "by " + getpass.getuser() in said
    assert "--again trains it anew" in said


def test_a_configuration_without_a_lake_says_what_to_add(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = folder.parent.parent / "hathi.toml"
    config.write_text('state = "state"\n[bucket]\nurl = "bucket"\n')
    assert main([one for one in words(folder) if one not in ("--lake", "shop")]) == 2
    assert "add [lakes.NAME]" in capsys.readouterr().err
