"""The pipeline over a bucket on a real S3 server: what it delivers, and what its polls cost (docs/protocol.md 9)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest

from pipeline.clock import random_nonce
from pipeline.ledger.layout import version_of
from pipeline.ledger.protocol import SHIPMENTS_OF_A_POLL
from pipeline.stages.loop import LakeStages
from pipeline.stores.s3.store import S3Store
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row
from tests.servers.s3 import S3Server, asked
from tests.simulation.world import STAGES, HandClock, World, settings_of
from tests.unit.test_polls import BATCH, END, closed, name_of, opened, plan_of

IDLE = {"list h/open/": 1, "list h/alive/": 1}


@dataclass
class Placed:
    """The bucket as its server keeps it: a file that is put there is an object."""

    server: S3Server
    prefix: str

    def write(self, key: str, content: bytes) -> None:
        file = self.server.place("shared", f"{self.prefix}/{key}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class Site:
    """A world whose bucket is on the server, and one host's turns over it, each request counted."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        prefix = random_nonce()
        store = S3Store(server.settings(f"s3://shared/{prefix}"))
        self.base = store.base
        self.world = world = World(folder, settings_of(), HandClock(time.time()))
        in_memory = world.context
        world.bucket = Placed(server, prefix)  # type: ignore[assignment]
        world.context = lambda name="box.one": replace(in_memory(name), bucket=store)  # type: ignore[method-assign]
        self.seen = asked(store)
        world.put_refs("a.csv", "partner_id,external_id,url\n7,a,http://shop.example/ok-1\n")
        world.hand.at += 10
        world.run()
        self.new_host()

    def new_host(self) -> None:
        self.turns = LakeStages(self.world.context("host.one"), self.world.serve, strict=True)

    def asks(self, stage: str) -> Counter[str]:
        self.seen.clear()
        self.turns.take(stage)
        return Counter(self._kind(one.operation, one.url) for one in self.seen)

    def _kind(self, operation: str, url: str) -> str:
        """A page of a listing by what it lists, whichever shipment it is of; else the operation."""
        if operation != "ListObjectsV2":
            return operation
        top, *below = parse_qs(urlsplit(url).query)["prefix"][0].removeprefix(f"{self.base}shop/").split("/")
        return f"list {top}/{'S' if top == 'c' and below[0] else below[0]}/".replace("//", "/")


@pytest.fixture
def site(s3_server: S3Server, tmp_path: Path) -> Site:
    return Site(s3_server, tmp_path)


def test_the_stages_deliver_by_way_of_the_server(site: Site) -> None:
    assert any("/features/" in path for path in site.world.delivered())
    assert site.world.run() == 0, "nothing is left to do"


@pytest.mark.parametrize("count", [10, 2000])
def test_an_idle_poll_is_two_pages_however_much_was_done_before(site: Site, count: int) -> None:
    for number in range(count):
        closed(site.world, number)
    site.new_host()
    for stage in STAGES:
        first = site.asks(stage)
        if stage == "ship":  # a new process looks once which snapshots are covered, from their oldest version on
            assert (first.pop("list c/"), first.pop("list h/gone/")) == (1, 1)
        assert first == IDLE
        assert site.asks(stage) == IDLE


def test_a_thousand_retries_that_are_not_due_cost_no_page_more(site: Site) -> None:
    for number in range(1000):
        due = version_of(site.world.hand.at + 86400 + number)
        plan = plan_of(number, kind="retry", due=due, parent=str(name_of(number)))
        opened(site.world, name_of(number, generation=1), plan, b__00000=BATCH, end=END)
    for stage in STAGES:
        site.asks(stage)
        assert site.asks(stage) == IDLE


def test_a_poll_of_many_open_shipments_lists_sixty_four_of_them(site: Site) -> None:
    """They are of a set that no host here has, so that they stay open."""
    for number in range(100):
        opened(site.world, name_of(number), plan_of(number, set="unknown"), b__00000=BATCH, end=END)
    for _ in range(3):
        site.asks("compute")
    assert site.asks("compute") == {**IDLE, "list c/S/": SHIPMENTS_OF_A_POLL}


@dataclass(frozen=True)
class Installation:
    """A configuration file whose bucket is on the server and whose lake is a folder."""

    folder: Path
    secret: str

    def hathi(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.folder / "h.toml")]
        environment = {**environ(), "HATHI_BUCKET__SECRET_KEY": self.secret, **variables}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def installation(s3_server: S3Server, tmp_path: Path) -> Installation:
    random_features.write(tmp_path / "random.caffemodel")
    (tmp_path / "lake/refs").mkdir(parents=True)
    rows = [row("a", picture(1)), row("b", picture(2)), row("c", b"no image", partner=8)]
    (tmp_path / "lake/refs/refs.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "h.toml").write_text(f"""
state = "state"
logs.folder = "logs"
[bucket]
url = "s3://shared/{random_nonce()}/of ours"
endpoint = "{s3_server.endpoint}"
access_key = "{s3_server.access_key}"
[lakes.main]
url = "lake"
[[lakes.main.sources]]
path = "refs"
[sets.demo]
net = "{ROOT}/sample/random_features.prototxt"
weights = "random.caffemodel"
blob = "features"
root = "features"
""")
    return Installation(tmp_path, s3_server.secret_key)


def test_the_commands_work_over_a_bucket(installation: Installation) -> None:
    checked = installation.hathi("config", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert any(line.split()[:2] == ["ok", "bucket"] for line in checked.stdout.splitlines())

    done = installation.hathi("run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["features"] == 2
    found = [
        line["external_id"]
        for file in sorted(installation.folder.glob("lake/features/*/*/features/*.parquet"))
        for line in pq.read_table(file).to_pylist()
    ]
    assert sorted(found) == ["a", "b"]
    again = installation.hathi("run")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert installation.hathi("verify", "--deep").returncode == 0
    assert "nothing is open" in installation.hathi("status").stdout
    pruned = installation.hathi("prune", "--yes")
    assert pruned.returncode == 0, pruned.stderr


def test_a_wrong_secret_is_told_before_work_and_at_work(installation: Installation) -> None:
    wrong = {"HATHI_BUCKET__SECRET_KEY": "wrong"}
    checked = installation.hathi("config", "check", **wrong)
    assert checked.returncode == 2
    (line,) = [line for line in checked.stdout.splitlines() if line.startswith("error")]
    assert "the secret key is not that of the access key" in line
    assert "bucket.access_key" in line
    ran = installation.hathi("run", **wrong)
    assert ran.returncode == 1
    assert "the secret key is not that of the access key" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert installation.secret not in checked.stdout + checked.stderr + ran.stdout + ran.stderr
