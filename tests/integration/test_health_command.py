"""`hathi health` as typed, and as a step of daemons and of runs from cron: processes, a webhook, a scrape."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from pipeline.process.lock import ESTOP
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row
from tests.servers.demand import free_port
from tests.unit.listeners import hook_server

PATIENCE = 240.0
HOUR = 3600.0


@dataclass
class Site:
    """A configuration with folders as stores, and `hathi` over it."""

    folder: Path
    more: dict[str, list[str]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "hathi.toml"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write(self) -> None:
        tables = {"bucket": ['url = "bucket"', "fsync = false"], "logs": ['folder = "logs"']}
        tables |= {"health": ["disk_percent = 100.0"], "daemon": ["poll_seconds = 0.2"], "lakes.shop": ['url = "lake"']}
        lines = ['state = "state"', 'service.database = "state/service.db"']
        for name in dict.fromkeys([*tables, *self.more]):
            lines += [f"[{name}]", *tables.get(name, []), *self.more.get(name, [])]
        lines += ["[[lakes.shop.sources]]", 'path = "refs"', "[sets.demo]", 'weights = "w.caffemodel"']
        lines += [f'net = "{ROOT}/sample/random_features.prototxt"', 'blob = "features"', 'root = "features"']
        self.config.write_text("\n".join(lines))

    def refs(self, name: str, *items: str, hours: float = 0.0) -> None:
        path = self.folder / "lake" / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(row(item, picture(len(item) + index)) for index, item in enumerate(items)))
        when = time.time() - hours * HOUR
        os.utime(path, (when, when))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.config)]

    def hathi(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=PATIENCE
        )

    @contextlib.contextmanager
    def serving(self, *stages: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self.command("serve", *stages), cwd=ROOT, env=environ(), stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / "logs").glob("*.log*")))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    random_features.write(tmp_path / "w.caffemodel")
    made.write()
    return made


def until(true: Callable[[], bool]) -> None:
    """Waits for what a process is to do."""
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def figures(text: str) -> dict[str, float]:
    """Sums over the labels, by name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_health_is_ok_then_an_alert_then_ok_again_and_the_exit_code_says_so(site: Site) -> None:
    site.refs("a.jsonl", "one", "two")
    fresh = site.hathi("health")
    assert fresh.returncode == 0, fresh.stdout + fresh.stderr
    assert "OK\n" in fresh.stdout
    assert "shop  ship" in fresh.stdout, "the backlog is shown"
    site.refs("a.jsonl", "one", "two", hours=13)
    late = site.hathi("health", "--json")
    said = json.loads(late.stdout)
    assert (late.returncode, said["level"]) == (2, "Alert")
    assert [one["key"] for one in said["findings"]] == ["sent shop"]
    assert said["findings"][0]["hint"]
    assert not (site.state / "health.json").exists(), "a person's look notes nothing"
    assert site.hathi("run").returncode == 0
    done = site.hathi("health", "--json")
    facts = json.loads(done.stdout)["facts"]
    assert done.returncode == 0, done.stdout
    (lake,) = facts["lakes"]
    assert [(one["partner"], one["set"]) for one in lake["freshness"]] == [("7", "demo")]
    assert lake["folders_checked"] == 1
    assert facts["died"] == {}
    (site.state / ESTOP).touch()
    stopped = site.hathi("health")
    assert stopped.returncode == 1
    assert "Warning: ESTOP is engaged" in stopped.stdout


def test_a_daemon_tells_a_webhook_and_prometheus_and_a_restart_tells_nothing_twice(site: Site) -> None:
    site.refs("a.jsonl", "one", "two")
    assert site.hathi("run").returncode == 0
    (lost,) = (site.folder / "lake" / "features").glob("*/7/cnn_features.txt.gz")
    kept = lost.read_bytes()
    lost.unlink()
    with hook_server("/hook/token-4711") as hook, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        site.more = {"health": ["every_seconds = 0.2"], "notify": [f'webhook = "{hook.url}"']}
        site.more["metrics"] = [f"port = {taken.getsockname()[1]}"]
        site.write()
        with site.serving("ship", "deliver"):
            until(lambda: len(hook.posts) == 1)
        assert hook.posts[0]["level"] == "Alert"
        assert [one["key"] for one in hook.posts[0]["findings"]] == ["missing shop"]
        assert "no metrics on 127.0.0.1" in site.log(), "a port in use is a line, not the end"
        site.more["metrics"] = [f"port = {free_port()}"]
        site.write()
        with site.serving("ship", "deliver"):
            until(lambda: scraped(site).get("hathi_missing_files") == 1)
            seen = scraped(site)
            assert seen["hathi_health_level"] == 2
            assert seen["hathi_build_info"] == 1
            assert seen["hathi_last_success_timestamp_seconds"] > 0
            assert len(hook.posts) == 1
            lost.write_bytes(kept)
            until(lambda: len(hook.posts) == 2)
            assert (hook.posts[1]["level"], hook.posts[1]["over"]) == ("OK", ["missing shop"])
            until(lambda: scraped(site)["hathi_health_level"] == 0)
    assert "token-4711" not in site.log()
    assert site.log().count("\t[health]\tAlert: ") == 1


def scraped(site: Site) -> dict[str, float]:
    """What the daemon answers; nothing while it is not up yet."""
    port = site.more["metrics"][0].split()[-1]
    try:
        return figures(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text)
    except requests.ConnectionError:
        return {}


def test_a_run_from_cron_writes_its_figures_and_looks_and_the_next_one_counts_on(site: Site) -> None:
    site.more = {"metrics": ['file = "prom/hathi.prom"']}
    site.write()
    path = site.folder / "prom" / "hathi.prom"
    refs = []
    for name in ("a", "b"):
        site.refs(f"{name}.jsonl", "one", "two")
        assert site.hathi("run", "ship").returncode == 0
        assert site.hathi("run", "--once", "compute", "aggregate").returncode == 0
        refs.append(figures(path.read_text())["hathi_refs_total"])
    # ship 2, compute 2, aggregate 2, and once more for the second list
    assert refs == [6, 12]
    found = figures(path.read_text())
    assert found["hathi_backlog_shipments"] == 2, "both wait for deliver"
    assert found["hathi_health_level"] == 0
    assert json.loads((site.state / "health.json").read_text())["told"] == {}
    assert not list(path.parent.glob("*.prom.*"))


def test_a_box_that_cannot_see_the_lake_says_so_and_judges_the_rest(site: Site) -> None:
    site.refs("a.jsonl", "one")
    assert site.hathi("run", "ship").returncode == 0
    (site.folder / "lake").rename(site.folder / "elsewhere")
    for lock in ("ship", "deliver"):
        (site.state / f"{lock}.lock").unlink(missing_ok=True)
    done = site.hathi("health")
    assert done.returncode == 0, done.stdout
    assert "not seen from here: lake shop" in done.stdout
    assert "shop  compute" in done.stdout


def test_a_deliver_that_is_refused_is_no_ok_and_health_says_what_the_log_says(site: Site) -> None:
    site.refs("a.jsonl", "one", "two")
    (site.folder / "lake" / "features").mkdir()
    stone = site.folder / "lake" / "features" / "_tmp"
    stone.write_text("in the way")
    site.hathi("run")
    said = json.loads(site.hathi("health", "--json").stdout)
    (one,) = [one for one in said["findings"] if one["key"].startswith("deliver shop")]
    assert site.hathi("run").returncode in (0, 1)
    again = json.loads(site.hathi("health", "--json").stdout)
    assert one["key"] in [two["key"] for two in again["findings"]], "told once, though each try names another folder"
    assert "_tmp" in one["text"], "the log's own words"
    assert one["since"]
    stone.unlink()
    until(lambda: site.hathi("run").returncode == 0 and site.hathi("health").returncode == 0)  # it rests for seconds
