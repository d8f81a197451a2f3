"""docs/runbook.md: its command blocks do what it says, and its errors are those that the product speaks of."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import duckdb
import pytest

from tests.acceptance.conftest import ROOT, Clone, wait_until

MAY_FAIL = ("hathi health", "hathi doctor")
"""Their exit codes say how things are, and things are not well in a runbook."""
HEADINGS = ("What to type first", "Stop everything", "Reset of a gateway", "Reset of a compute box")
"""All parts of the page that have commands; each is typed below."""


@pytest.fixture(scope="module")
def site(other_clone: Clone, shop: str) -> Iterator[Clone]:
    """A gateway whose daemons run, and a compute box, as the configurations stand; no daemon is left."""
    environ = {**other_clone.environ, "HATHI_DAEMON__POLL_SECONDS": "0.5", "HATHI_FETCH__ALLOW_PRIVATE": "true"}
    mine = Clone(other_clone.path, environ)
    (mine.path / "work" / "sample").mkdir(parents=True)
    shutil.copy(mine.path / "shop/sample/random_features.caffemodel", mine.path / "work/sample")
    shutil.copytree(mine.path / "shop/lake/refs", mine.path / "work/gateway/lake/refs")
    assert mine.run("./run-all.sh config/gateway.toml").returncode == 0
    yield mine
    mine.run("./run-all.sh kill config/gateway.toml")


def blocks(clone: Clone, heading: str) -> list[str]:
    """The ```sh blocks under a heading."""
    text = (clone.path / "docs" / "runbook.md").read_text()
    (part,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    found: list[str] = re.findall(r"^```sh\n(.*?)^```", part, re.S | re.M)
    return found


def typed(clone: Clone, block: str) -> str:
    """What a block prints, typed into one shell; each command has to succeed."""
    done = clone.run(f"trap 'echo \"FAILED $? $BASH_COMMAND\"' ERR\n{block}")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    assert not [line for line in failed if not any(word in line for word in MAY_FAIL)], done.stdout
    assert not re.search(r"command not found|usage:|unrecognized|Traceback|unexpected", done.stdout), done.stdout
    return done.stdout


def processes(clone: Clone) -> dict[str, str]:
    shown = clone.run("./run-all.sh status config/gateway.toml").stdout
    return dict(re.findall(r"run-all: (\w+) runs: process (\d+)", shown))


def test_what_to_type_first_says_who_is_alive_and_what_waits(site: Clone) -> None:
    bucket = site.path / "work/shared-bucket/main/c"
    wait_until(lambda: len(list(bucket.glob("*/end"))) == 3, "three shipments in the bucket")
    (block,) = blocks(site, HEADINGS[0])
    shown = typed(site, block)
    assert shown.count("alive: pid ") == 2
    assert "\t[ship]\tSummary: transferred" in shown
    assert "OK" in shown


def test_a_gateway_is_reset_and_a_compute_box_after_it_and_nothing_is_lost(site: Clone) -> None:
    before = processes(site)
    assert set(before) == {"ship", "deliver"}
    for block in blocks(site, HEADINGS[1]):
        typed(site, block)
    lifted = site.run(".venv/bin/hathi start --remote --config config/gateway.toml")
    assert lifted.returncode == 4, "the file of this host still stands"
    for block in blocks(site, HEADINGS[2]):
        typed(site, block)
    after = processes(site)
    assert set(after) == {"ship", "deliver"}
    assert not set(before.values()) & set(after.values())

    state = site.path / "work/compute/state"
    (state / "spill" / "left.over").mkdir(parents=True)
    (state / "_PIPE_RUNNING").write_text("{}")
    for block in blocks(site, HEADINGS[3]):
        typed(site, block)
    assert not (state / "_PIPE_RUNNING").exists()
    assert not list((state / "spill").iterdir())
    bucket, lake = site.path / "work/shared-bucket/main/c", site.path / "work/gateway/lake"
    wait_until(lambda: len(list(bucket.glob("*/done"))) == 3, "three shipments delivered")
    count = duckdb.sql(f"select count(*) from '{lake}/features/*/*/features/*.parquet'").fetchall()
    assert count == [(36,)]


def test_kill_ends_what_does_not_stop(site: Clone) -> None:
    running = processes(site)
    assert set(running) == {"ship", "deliver"}
    shown = site.run("./run-all.sh kill config/gateway.toml").stdout
    for program, process in running.items():
        assert f"{program} killed: process {process}" in shown
    assert processes(site) == {}
    assert site.run("scripts/print_logs.sh config/gateway.toml").stdout.count("ended unexpectedly") == 2
    assert site.run("./run-all.sh kill config/gateway.toml").returncode == 0


def test_each_error_that_it_names_is_one_that_the_product_says() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    (table,) = re.findall(r"^## Typical errors\n(.*?)^## ", text, re.S | re.M)
    named = re.findall(r"^\| `([^`]+)` \|", table, re.M)
    assert len(named) > 20
    source = "\n".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py"))
    assert [words for words in named if words not in source] == []
