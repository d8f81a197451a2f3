"""More boxes without Spark: four processes on one real bucket share the work, and compute nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.ledger.manifest import Attempt, Result
from pipeline.settings import load
from pipeline.stores.opening import open_bucket
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row
from tests.servers import s3
from tests.servers.demand import until

BATCH = 16


@dataclass(frozen=True)
class Boxes:
    """A lake whose refs are shipped, and boxes that work them off, each with a state of its own."""

    folder: Path

    def config(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def command(self, name: str, seconds: float, *stages: str) -> list[str]:
        words = [sys.executable, "-m", "tests.integration.sleeping_box", str(seconds), "run"]
        return [*words, "--config", str(self.config(name)), *stages]

    def start(self, name: str, seconds: float) -> subprocess.Popen[bytes]:
        words = self.command(name, seconds, "compute", "aggregate")
        return subprocess.Popen(words, cwd=ROOT, env=environ(), stdout=subprocess.DEVNULL)

    def ship(self) -> None:
        subprocess.run(self.command("box0", 0.0, "ship"), cwd=ROOT, env=environ(), check=True, capture_output=True)

    def of(self, kind: str) -> dict[str, bytes]:
        """The bodies under `c/`, by key: `r` results of batches, `t` attempts at batches."""
        bucket = open_bucket(load(self.config("box0"), {}))
        keys = [entry.key for entry in bucket.list("shop/c/") if f"/{kind}/" in entry.key and "/t/out" not in entry.key]
        return {key: bucket.get(key) for key in keys if not key.endswith(".x")}

    def results(self) -> dict[str, Result]:
        return {key: Result.model_validate_json(body) for key, body in self.of("r").items()}

    def attempts(self) -> dict[str, list[str]]:
        """Processes that tried each batch."""
        found: dict[str, list[str]] = {}
        for key, body in self.of("t").items():
            found.setdefault(key.rpartition("/")[0], []).append(Attempt.model_validate_json(body).process)
        return found


def make_boxes(folder: Path, server: s3.S3Server, number: int, shipments: Sequence[int]) -> Boxes:
    """number: of boxes; each has 1/number of a host's limits.  shipments: so many batches in each."""
    refs = folder / "lake" / "refs"
    refs.mkdir(parents=True)
    for partner, batches in enumerate(shipments):  # no two images alike: equal ones pass a net once
        lines = [row(f"sku-{n}", picture(partner * 10_000 + n, 8), partner) for n in range(batches * BATCH)]
        (refs / f"{partner}.jsonl").write_text("\n".join(lines))
    for box in range(number):
        text = f"""state = "state-{box}"
[bucket]
url = "s3://shared/{folder.name}"
endpoint = "{server.endpoint}"
region = "us-east-1"
access_key = "{server.access_key}"
secret_key = "{server.secret_key}"
[lakes.shop]
url = "lake"
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "hog"
blob = "hog"
root = "features"
[ship]
batch_refs = {BATCH}
[fetch]
share = {1 / number}
[compute]
threads = 1
[daemon]
beat_seconds = 1.0
alive_seconds = 15.0
[logs]
folder = "logs-{box}"
"""
        (folder / f"box{box}.toml").write_text(text)
    return Boxes(folder)


@pytest.fixture(scope="module")
def server() -> Iterator[s3.S3Server]:
    with s3.running() as made:
        yield made


def test_four_boxes_share_the_work_and_compute_nothing_twice(tmp_path: Path, server: s3.S3Server) -> None:
    boxes = make_boxes(tmp_path, server, 4, [40, 20, 10, 10])
    boxes.ship()
    running = [boxes.start(f"box{number}", 0.25) for number in range(4)]
    assert [process.wait(240) for process in running] == [0, 0, 0, 0]
    results = boxes.results()
    assert len(results) == 80
    assert {result.kind for result in results.values()} == {"shard"}
    assert Counter(len(tried) for tried in boxes.attempts().values()) == {1: 80}
    shares = Counter(result.process for result in results.values())
    assert len(shares) == 4
    assert min(shares.values()) >= 8, f"of 80 batches a box had {shares}"


def test_the_batches_of_a_box_that_dies_are_the_only_ones_computed_again(tmp_path: Path, server: s3.S3Server) -> None:
    boxes = make_boxes(tmp_path, server, 3, [20, 20])
    boxes.ship()
    # However late a slow machine looks, the first box is still at its first batches when it is killed.
    running = [boxes.start(f"box{number}", 0.4 if number else 60.0) for number in range(3)]
    victim = running[0].pid
    until(
        lambda: any(f".{victim}." in name for tried in boxes.attempts().values() for name in tried), "it claimed", 120
    )
    os.kill(victim, signal.SIGKILL)
    running[0].wait()
    assert [process.wait(240) for process in running[1:]] == [0, 0]
    again = subprocess.run(boxes.command("box1", 0.0, "compute", "aggregate"), cwd=ROOT, env=environ(),
                           capture_output=True, text=True, timeout=240)  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert len(boxes.results()) == 40
    twice = [tried for tried in boxes.attempts().values() if len(tried) > 1]
    assert twice, "it had begun something"
    assert all(f".{victim}." in tried[0] for tried in twice)
    status = json.loads(subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "status", "--config", str(boxes.config("box1")), "--json"],
        cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=60, check=True).stdout)  # fmt: skip
    assert {one["stage"] for one in status["open"]} == {"deliver"}
