"""Each trouble of the service that the runbook names is made, and `hathi service check` says its cause and remedy."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.service import queue
from pipeline.service.database.statements import Database
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import ESTOP
from pipeline.service.words import Slot
from tests.environment import environ
from tests.servers import postgres
from tests.servers.databases import empty, needs_the_extra, sites
from tests.servers.demand import Server, free_port
from tests.servers.service import Person, Stand, standing

ROOT = Path(__file__).parents[2]
HATHI = ROOT / ".venv/bin/hathi"
(TABLE,) = re.findall(r"^## Troubles of the service\n(.*?)^## ", (ROOT / "docs/runbook.md").read_text(), re.S | re.M)
ROWS: dict[str, str] = dict(re.findall(r"^\| `([^`]+)` \|.*?\| ([^|]+) \|$", TABLE, re.M))
"""The remedy of each row, by the words that `hathi service check` or an answer says."""


@dataclass(frozen=True)
class Said:
    """What `hathi service check` printed, and its exit code."""

    code: int
    text: str

    def trouble(self, words: str) -> str:
        """The line of a trouble and what to do; the runbook has a row of these words."""
        assert words in ROWS
        (found,) = re.findall(rf"^trouble: .*{re.escape(words)}.*\n  to do: .*$", self.text, re.M)
        return str(found)


def configured(folder: Path, database: str, bucket: Path) -> Path:
    config = folder / "check.toml"
    config.write_text(
        f'state = "{folder}/state"\nlogs.folder = "{folder}/logs"\n[bucket]\nurl = "{bucket}"\n'
        f'[service]\ndatabase = "{database}"\nlisten = "127.0.0.1:{free_port()}"\n'
    )
    return config


def check(folder: Path, database: str, bucket: Path) -> Said:
    """As an operator types it."""
    config = configured(folder, database, bucket)
    done = subprocess.run(
        [HATHI, "service", "check", "--config", config], env=environ(HATHI_HEALTH__DISK_PERCENT="100"),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return Said(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("troubles")
    for site in sites("sqlite", folder, None):
        with standing(site, folder) as stand:
            yield stand


@pytest.fixture
def ann(shared: Stand) -> Person:
    empty(shared.site)
    for entry in list(shared.store.list("s/")):
        shared.store.delete(entry.key)
    return shared.person("ayes", "ann", platform=True)


@pytest.fixture
def checked(shared: Stand, tmp_path: Path) -> Callable[[], Said]:
    return lambda: check(tmp_path, shared.site.url, shared.folder / "bucket")


def test_a_service_that_is_well_has_no_trouble(ann: Person, checked: Callable[[], Said]) -> None:
    ann.job()
    said = checked()
    assert (said.code, "trouble" in said.text) == (0, False), said.text
    assert "work: 1 queued" in said.text


def test_estop_in_the_bucket_is_named_and_a_prune_leaves_it(
    shared: Stand, ann: Person, checked: Callable[[], Said], tmp_path: Path
) -> None:
    shared.store.put(ESTOP, b"")
    said = checked()
    assert "`hathi start --remote` deletes s/ESTOP" in said.trouble("no server and no worker of the service runs")
    assert said.code == 0
    assert "0 objects that no row names" in said.text
    config = configured(tmp_path, shared.site.url, shared.folder / "bucket")
    pruned = subprocess.run(
        [HATHI, "service", "prune", "--dry-run", "--days", "0", "--config", config], capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert pruned.stdout.splitlines() == ["0 objects (0 bytes) would be deleted",
                                          "0 objects that no row names: not for long enough yet"]  # fmt: skip


def test_a_lost_object_is_named_with_the_way_back(shared: Stand, ann: Person, checked: Callable[[], Said]) -> None:
    datafile = ann.datafile(b"content")
    (key,) = [entry.key for entry in shared.store.list("s/")]
    content = shared.store.get(key)
    shared.store.delete(key)
    found = checked()
    assert found.code == 1
    said = found.trouble("missing in the bucket, or torn")
    assert key in said
    assert datafile in said
    assert "FOLDER/objects/KEY" in said
    shared.store.put(key, content)
    assert checked().code == 0, "what was put back is there"


def test_a_worker_that_is_gone_is_named_with_what_it_held(
    shared: Stand, ann: Person, checked: Callable[[], Said]
) -> None:
    job, worker = ann.job(), new_id(Kind.WORKER, time.time())

    async def dies(database: Database) -> None:
        await queue.enlist(database, worker, "here", Slot.TRAIN)
        held = await queue.claim(database, worker, -1.0)
        assert held is not None
        assert held.id == job

    shared.site.run(dies(shared.site.open()))
    said = checked().trouble("gone with work in hands")
    assert f"{job} of {worker}" in said
    assert "hathi service worker --kind train" in said


def test_a_queue_that_is_stuck_says_what_it_waits_for(shared: Stand, ann: Person, checked: Callable[[], Said]) -> None:
    """No worker; a tenant's limit; workers that are all at work."""
    job = ann.job()
    old = f"update @work set created_at = created_at - 7200 where id = '{job}'"
    shared.site.run(shared.site.bare(old))
    said = checked().trouble("no worker for it was heard of")
    assert "the oldest for 2 h" in said
    assert "hathi service worker --kind train" in said

    worker = new_id(Kind.WORKER, time.time())

    async def begins(database: Database) -> None:
        await queue.enlist(database, worker, "here", Slot.TRAIN)

    shared.site.run(begins(shared.site.open()))
    shared.site.run(shared.site.bare("update @workers set beat_at = beat_at + 3600"))
    assert "give work back" in checked().trouble("and not all at work")
    other = ann.job("other", solver_id=ann.usual)

    async def claims(database: Database) -> None:
        held = await queue.claim(database, worker, 3600.0)
        assert held is not None

    shared.site.run(claims(shared.site.open()))
    shared.site.run(shared.site.bare(f"update @work set created_at = created_at - 7200 where id = '{other}'"))
    shared.site.run(shared.site.bare("update @workers set beat_at = beat_at + 3600"))
    assert "[service.workers]" in checked().trouble(", all at work")
    ann.got("PATCH", f"/v1/tenants/{ann.tenant}", {"running": 1}, If_Match="*")
    assert "PATCH /v1/tenants/ID" in checked().trouble("all who wait run as much as their limit")


def test_health_and_print_logs_tell_a_trouble_and_its_end(shared: Stand, ann: Person, tmp_path: Path) -> None:
    job = ann.job()
    shared.site.run(shared.site.bare(f"update @work set created_at = created_at - 7200 where id = '{job}'"))
    config, log = configured(tmp_path, shared.site.url, shared.folder / "bucket"), tmp_path / "logs/service.log"
    here = environ(HATHI_HEALTH__DISK_PERCENT="100", HATHI_HEALTH__EVERY_SECONDS="0.3")
    program = Server.start([HATHI, "service", "serve", "--config", config], log=tmp_path / "serve.out", env=here)

    def typed(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words], env=here, capture_output=True, text=True, timeout=120)

    words = "no worker for it was heard of"
    try:
        program.until(lambda: log.exists() and words in log.read_text(), "its log tells it")
        health = typed(HATHI, "health", "--config", config)
        assert health.returncode == 1, health.stdout + health.stderr
        finding = rf"^Warning: train work waits: .*{words}.*\n  to do: begin `hathi service worker"
        assert re.search(finding, health.stdout, re.MULTILINE)
        printed = typed(ROOT / "scripts/print_logs.sh", config).stdout
        assert re.search(rf"troubles that are not over.*\n.*{words}", printed)
        ann.got("POST", f"/v1/training-jobs/{job}/cancel")
        program.until(lambda: "resolved" in log.read_text(), "its log tells the end of it")
        assert typed(HATHI, "health", "--config", config).stdout.splitlines()[1] == "OK"
    finally:
        program.stop(20)


def test_a_tenant_that_meets_its_limit_is_told_so_and_the_operator_too(
    ann: Person, checked: Callable[[], Said]
) -> None:
    ann.datafile(b"x" * 1000)
    ann.got("PATCH", f"/v1/tenants/{ann.tenant}", {"quotas": {"stored_bytes": 1000}}, If_Match="*")
    answer = ann.ask("POST", "/v1/datafiles", {"name": "more", "size": 1})
    assert answer.status_code == 429
    assert answer.json()["limit"] == "stored_bytes"
    said = checked().trouble("of its limit")
    assert "the tenant ayes has used 1,000 of 1,000 of its limit `stored_bytes`" in said
    assert f"/v1/tenants/{ann.tenant}" in said


def test_a_database_that_is_away_is_named_and_the_server_goes_on_by_itself(tmp_path: Path) -> None:
    needs_the_extra()
    with postgres.running() as server:
        for site in sites("postgres", tmp_path, server):
            with standing(site, tmp_path) as stand:
                ann = stand.person("ayes", "ann")
                _ended_at_once(server.server)
                ready = stand.nobody().ask("GET", "/readyz")
                assert ready.status_code == 503
                assert ready.json()["detail"] == "the database does not answer"
                said = check(tmp_path, site.url, tmp_path / "bucket")
                assert said.code == 1
                assert "the database does not answer" in said.text
                assert "does service.database lead to it?" in said.text
                assert postgres.PASSWORD not in said.text
                assert any("the database does not answer" in line for line in stand.said), "in the server's log"
                again, _ = postgres.start(server.folder, fsync=False, port=server.port)
                try:
                    assert ann.got("GET", "/v1/me")["tenant"] == "ayes"
                    assert stand.nobody().ask("GET", "/readyz").status_code == 200
                finally:
                    _ended_at_once(again)


def _ended_at_once(server: Server) -> None:
    """PostgreSQL waits for its clients at SIGTERM, and cuts them off at SIGINT."""
    server.process.send_signal(signal.SIGINT)
    server.process.wait(60)


def test_a_full_disk_is_named_and_nothing_that_was_answered_is_lost(tmp_path: Path) -> None:
    """The database and the bucket lie on a disk of their own, which is filled while the service runs."""
    needs_the_extra()
    script = Path(__file__).parent / "full_service.py"
    done = subprocess.run(
        ["unshare", "-rm", sys.executable, str(script), str(tmp_path), str(free_port())],
        cwd=ROOT, env=environ(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["full"] == 503
    assert seen["detail"] in ("the disk is full", "the database's disk is full, or cannot be written"), (
        "and no path of the host"
    )
    Said(seen["check"][0], seen["check"][1]).trouble("% full")
    assert seen["freed"] == 201
    assert seen["names"] == ["after", "before"]
    assert seen["check_after"] == 0


def test_each_row_of_the_runbook_is_one_that_the_product_says() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    assert [words for words in ROWS if words not in source] == []
    here = Path(__file__).read_text()
    assert [words for words in ROWS if words not in here] == [], "each is injected above"
    assert all(ROWS.values())
    assert len(ROWS) == 10
