"""Whatever is down, a person hears from status, health and doctor within ten seconds, on gateway and box alike."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sample import random_features
from tests.environment import environ
from tests.integration.black_hole import THERE, black_hole
from tests.integration.conftest import ROOT

BOUND = 20.0
"""Ten seconds on a host of one's own; here others work beside the test.  Without a bound each takes minutes."""
LOOKS = (("status",), ("status", "--json"), ("health",), ("health", "--json"), ("doctor", "ship", "deliver"))


@contextlib.contextmanager
def hanging() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield int(listener.getsockname()[1])


def configuration(folder: Path, bucket: str, lake: str, *, gateway: bool) -> Path:
    """State as of a host on which ship has run (gateway) or never has (a box)."""
    random_features.write(folder / "w.caffemodel")
    lines = [f'state = "{folder}/state"', "[bucket]", bucket, "[lakes.shop]", f'url = "{lake}"']
    lines += ["[[lakes.shop.sources]]", 'path = "refs"', "[sets.demo]", f'weights = "{folder}/w.caffemodel"']
    lines += [f'net = "{ROOT}/sample/random_features.prototxt"', 'blob = "features"', 'root = "features"']
    lines += ["[logs]", f'folder = "{folder}/logs"', "[health]", "disk_percent = 100.0"]
    path = folder / "hathi.toml"
    path.write_text("\n".join(lines))
    (folder / "state").mkdir()
    if gateway:
        (folder / "state" / "ship.lock").touch()
    return path


def s3_at(host: str, port: int) -> str:
    keys = 'region = "us-east-1"\naccess_key = "key"\nsecret_key = "secret"'
    return f'url = "s3://shared/here"\nendpoint = "http://{host}:{port}"\n{keys}'


def asked(config: Path, *words: str) -> tuple[float, str]:
    """Seconds until the command has ended, and what it printed."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr
    assert done.returncode in (1, 2), done.stdout + done.stderr
    return time.monotonic() - began, done.stdout


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
@pytest.mark.parametrize("gateway", [True, False], ids=["gateway", "box"])
def test_bucket_and_lake_that_never_answer_are_named_in_time(
    tmp_path: Path, words: tuple[str, ...], gateway: bool
) -> None:
    with hanging() as bucket, hanging() as lake:
        config = configuration(
            tmp_path, s3_at("127.0.0.1", bucket), f"hdfs://127.0.0.1:{lake}/data", gateway=gateway
        )  # fmt: skip
        seconds, said = asked(config, *words)
    assert seconds < BOUND
    if words[0] == "doctor":
        assert {line.split()[2] for line in said.splitlines() if line.startswith("NOT OK")} >= {"bucket", "lake"}
    else:
        assert "the bucket does not answer within 5 s" in said
    if words[0] == "status" and len(words) == 1:
        assert "not seen from here: bucket:" in said
        assert "not seen from here: lake shop:" in said
        own = "ship       does not run" if gateway else "no program has run on this host yet"
        assert own in said, "what this host itself can say stands there"
        assert "compute" not in said, "it does not belong here"


@pytest.mark.parametrize("words", [("status",), ("health",)], ids=" ".join)
def test_a_lake_that_never_answers_hides_nothing_of_the_bucket(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "bucket").mkdir()
    with hanging() as lake:
        store = f'url = "{tmp_path}/bucket"\nfsync = false'
        config = configuration(tmp_path, store, f"hdfs://127.0.0.1:{lake}/data", gateway=True)
        seconds, said = asked(config, *words)
    assert seconds < BOUND
    assert "lake shop" in said
    assert "nothing is open" in said, "what the bucket says is shown"
    assert "does not answer within 5 s" in said


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_a_network_that_swallows_everything_is_named_in_time(tmp_path: Path, words: tuple[str, ...]) -> None:
    config = configuration(
        tmp_path, s3_at(THERE[0], 9000), "hdfs://namenode.example:9870/data", gateway=True
    )  # fmt: skip
    with black_hole(tmp_path) as hole:
        began = time.monotonic()
        done = hole.run(
            sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(config), env=environ(), timeout=300
        )
        seconds = time.monotonic() - began
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert seconds < BOUND
    assert "lake shop" in done.stdout
    assert "the name of the NameNode namenode.example is not known" in done.stdout, "no name server answers there"
